"""Failures as Kubernetes' Status objects. No HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fast_playground.apiserver.kinds import GVR

Object = dict[str, Any]


class ApiError(Exception):
    """A request that is refused; becomes a Status object over HTTP.

    Args:
        code: HTTP status.
        reason: The Status' ``reason``, as ``NotFound``; empty where Kubernetes leaves it out.
        message: For people.
        details: The Status' ``details`` (name, group, kind, causes); None to leave it out.
    """

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def to_status(self) -> Object:
        """Make the Status object."""
        status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return status | {"code": self.code}


class FieldError(Exception):
    """One field of an object that is wrong; several make an ``Invalid``.

    Args:
        reason: The cause's reason, as ``FieldValueRequired``.
        field: Its path, as ``spec.containers[0].name``.
        message: What is wrong with it, without the path.
    """

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.reason = reason
        self.field = field
        self.message = message


def required(field: str, hint: str = "") -> FieldError:
    """A field that must be there and is not."""
    return FieldError("FieldValueRequired", field, "Required value" + (f": {hint}" if hint else ""))


def invalid_value(field: str, value: object, why: str) -> FieldError:
    """A value that the field's rules refuse."""
    return FieldError("FieldValueInvalid", field, f"Invalid value: {quote(value)}: {why}")


def unsupported(field: str, value: object, supported: Iterable[object] = ()) -> FieldError:
    """A value that is none of those there are."""
    choices = ", ".join(map(quote, supported))
    message = f"Unsupported value: {quote(value)}" + (f": supported values: {choices}" if choices else "")
    return FieldError("FieldValueNotSupported", field, message)


def negative(field: str, value: object) -> FieldError:
    """A number that must not be negative and is."""
    return invalid_value(field, value, "must be greater than or equal to 0")


def forbidden_field(field: str, why: str) -> FieldError:
    """A change that is not allowed."""
    return FieldError("FieldValueForbidden", field, f"Forbidden: {why}")


def quote(value: object) -> str:
    """Show a value as Kubernetes' messages do: strings in double quotes, the rest as JSON would have it."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return str(value)


def details(gvr: GVR, name: str, kind: str = "") -> Object:
    """Name an object as a Status' details do."""
    named: Object = {"name": name} if name else {}
    if gvr.group:
        named["group"] = gvr.group
    return named | {"kind": kind or gvr.resource}


def qualified(gvr: GVR, kind: str = "") -> str:
    """``resource.group``, as messages name a resource (or the kind in its place)."""
    first = kind or gvr.resource
    return f"{first}.{gvr.group}" if gvr.group else first


def not_found(gvr: GVR, name: str) -> ApiError:
    """404 for an object."""
    return ApiError(404, "NotFound", f'{qualified(gvr)} "{name}" not found', details(gvr, name))


def not_served() -> ApiError:
    """404 for a resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(gvr: GVR, name: str) -> ApiError:
    """409 for a name that is taken."""
    return ApiError(409, "AlreadyExists", f'{qualified(gvr)} "{name}" already exists', details(gvr, name))


def conflict(gvr: GVR, name: str, why: str, kind: str = "") -> ApiError:
    """409 for a stale version, a failed precondition, or a state that forbids the change."""
    message = f'Operation cannot be fulfilled on {qualified(gvr, kind)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(gvr, name, kind))


def modified(gvr: GVR, name: str) -> ApiError:
    """409 for a resourceVersion that is not the newest."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(gvr, name, why)


def invalid(gvr: GVR, kind: str, name: str, errors: list[FieldError]) -> ApiError:
    """422 with one cause for each wrong field. ``kind`` is what the message and details name."""
    causes = [{"reason": e.reason, "message": e.message, "field": e.field} for e in errors]
    texts = [str(e) for e in errors]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(gvr, kind)} "{name}" is invalid: {text}'
    return ApiError(422, "Invalid", message, details(gvr, name, kind) | {"causes": causes})


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def unsupported_media_type(accepted: list[str]) -> ApiError:
    """415 naming what is accepted."""
    message = "the body of the request was in an unknown format - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", message + ", ".join(accepted))


def method_not_allowed() -> ApiError:
    """405."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def expired(message: str) -> ApiError:
    """410: older than what is kept."""
    return ApiError(410, "Expired", message)


def too_large_version(wanted: int, current: int) -> ApiError:
    """504 for a resourceVersion that does not exist yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def unauthorized() -> ApiError:
    """401."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(gvr: GVR, name: str, why: str) -> ApiError:
    """403 on a resource; ``why`` ends the message."""
    target = f'{qualified(gvr)} "{name}"' if name else qualified(gvr)
    return ApiError(403, "Forbidden", f"{target} is forbidden: {why}", details(gvr, name))
