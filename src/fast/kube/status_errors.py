"""Translates the API server's answers, and missing answers, into :mod:`fast.errors`. One table; no I/O."""

from __future__ import annotations

import ssl
from http import HTTPStatus

import aiohttp
import msgspec

from fast.errors import (
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)

#: Every status with its own error. The others go by their class: see :func:`error_type`.
BY_STATUS: dict[int, type[KubeError]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Expired,
    HTTPStatus.TOO_MANY_REQUESTS: Throttled,
}

_LONGEST_MESSAGE = 500  # a proxy may answer with an HTML page


class RetryDetails(msgspec.Struct, rename="camel"):
    """``details`` of a Status: only when to retry."""

    retry_after_seconds: int = 0


class Status(msgspec.Struct, rename="camel"):
    """``metav1.Status``: the body of an error answer, and the object of a watch's ERROR event."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: RetryDetails | None = None


_decode_status = msgspec.json.Decoder(Status).decode


def error_type(status: int) -> type[KubeError]:
    """Give the error class of an HTTP status; total.

    A 4xx that is not in the table is a wrong request (:class:`Invalid`). 5xx is :class:`Unavailable`, and so is
    every status that no API server sends for its API (redirects of a proxy, 1xx): whoever answered was not the API
    server.
    """
    if found := BY_STATUS.get(status):
        return found
    is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return Invalid if is_client_error else Unavailable


def error_of_answer(what: str, status: int, body: bytes, retry_after: str | None = None) -> KubeError:
    """Make the error for an error answer.

    Args:
        what: The request in words, as ``create ipendpoints 10.0.0.1``; begins the message.
        status: The HTTP status.
        body: The answer's body: a Status object, or whatever a proxy wrote.
        retry_after: The ``Retry-After`` header, if there was one.
    """
    try:
        found = _decode_status(body)
    except msgspec.MsgspecError:
        text = body.decode(errors="replace").strip()[:_LONGEST_MESSAGE]
        found = Status(message=text or HTTPStatus(status).phrase if status in set(HTTPStatus) else text)
    seconds = _retry_after_seconds(retry_after, found)
    message = f"{what}: {found.message or found.reason or f'HTTP status {status}'}"
    return error_type(status)(message, status=status, reason=found.reason, retry_after_seconds=seconds)


def error_of_event(what: str, raw: msgspec.Raw) -> KubeError:
    """Make the error for a watch's ERROR event."""
    body = bytes(raw)
    try:
        code = _decode_status(body).code
    except msgspec.MsgspecError:
        code = 0
    return error_of_answer(what, code or HTTPStatus.INTERNAL_SERVER_ERROR, body)


def error_of_transport(what: str, error: Exception) -> KubeError:
    """Make the error for a request without a complete answer: refused, reset, timed out, bad TLS."""
    if isinstance(error, TimeoutError):
        return Unavailable(f"{what}: timed out", reason="Timeout")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Unavailable(
            f"{what}: the API server's certificate is not trusted: {error}", reason="Certificate"
        )
    return Unavailable(f"{what}: {error or type(error).__name__}", reason="Connection")


def _retry_after_seconds(header: str | None, status: Status) -> float | None:
    """The server's Retry-After in seconds; an HTTP date, which no API server sends, is ignored."""
    if header is not None:
        try:
            return max(0.0, float(header))
        except ValueError:
            pass
    if status.details is not None and status.details.retry_after_seconds > 0:
        return float(status.details.retry_after_seconds)
    return None
