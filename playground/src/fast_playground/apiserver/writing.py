"""From what a client sent to what is stored: the checks and completions that every write passes, as pure steps.

Nothing here stores; ``verbs`` calls it inside its transactions.
"""

from __future__ import annotations

from typing import Any

from fast_playground.apiserver import strategy
from fast_playground.apiserver.api import Object, Options
from fast_playground.apiserver.apply import release_fields
from fast_playground.apiserver.kinds import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from fast_playground.apiserver.metadata import carry_over, prepare_new, timestamp, validate_metadata
from fast_playground.apiserver.registry import Kind, Registry
from fast_playground.apiserver.status import (
    ApiError,
    FieldError,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    modified,
)
from fast_playground.apiserver.storage import Transaction

_SHOWN_UNKNOWN_FIELDS = 20


def check_type(kind: Kind, obj: Any) -> None:
    """Check that a body is an object of that kind. Raises ApiError: 400, or 422 for custom kinds."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind})")
    given, version = obj.get("kind"), obj.get("apiVersion")
    if not given or not version:
        missing = "kind" if not given else "apiVersion"
        raise bad_request(f"Object '{missing.capitalize()}' is missing in the request's body")
    if given != kind.kind or version != kind.gvr.group_version:
        if not kind.custom:
            what = f'{given} in version "{version}" cannot be handled as a {kind.kind}'
            raise bad_request(f'{what}: no kind "{given}" is registered for the resource\'s version')
        errors = []
        if given != kind.kind:
            errors.append(invalid_value("kind", given, f"must be {kind.kind}"))
        if version != kind.gvr.group_version:
            errors.append(invalid_value("apiVersion", version, f"must be {kind.gvr.group_version}"))
        raise invalid(kind.gvr, str(given), str((obj.get("metadata") or {}).get("name", "")), errors)


def prune_and_default(kind: Kind, obj: Object, options: Options) -> None:
    """Remove unknown fields and fill in defaults, in place.

    Raises:
        ApiError: 400 for unknown fields under strict validation.
    """
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    if not kind.custom and kind.status:
        obj.setdefault("spec", {})
    try:
        unknown = kind.schema.prune(obj, drop_null=not kind.custom)
    except FieldError as error:  # nested without end
        raise invalid(kind.gvr, kind.kind, str(obj["metadata"].get("name", "")), [error]) from error
    if unknown and options.field_validation == "Strict":
        texts = ", ".join(f'unknown field "{path}"' for path in unknown[:_SHOWN_UNKNOWN_FIELDS])
        what = f'{kind.kind} in version "{kind.gvr.version}" cannot be handled as a {kind.kind}'
        raise bad_request(f"{what}: strict decoding error: {texts}")
    if options.field_validation == "Warn":
        options.warnings.extend(f'unknown field "{path}"' for path in unknown[:_SHOWN_UNKNOWN_FIELDS])
    kind.schema.default(obj)


def _validate_schema(kind: Kind, obj: Object, old: Object | None) -> None:
    errors = kind.schema.validate(obj, "", old)
    for error in errors:
        if not kind.custom and error.reason == "FieldValueTypeInvalid":
            what = f'{kind.kind} in version "{kind.gvr.version}" cannot be handled as a {kind.kind}'
            raise bad_request(f"{what}: {error}")
    _raise(kind, obj, errors)


def _validate_rules(kind: Kind, obj: Object, old: Object | None) -> None:
    errors = validate_metadata(obj["metadata"], kind, old["metadata"] if old else None)
    if check := strategy.VALIDATE.get(kind.gvr):
        errors += check(obj, old)
    _raise(kind, obj, errors)


def _raise(kind: Kind, obj: Object, errors: list[FieldError]) -> None:
    if errors:
        raise invalid(kind.gvr, kind.kind, str(obj["metadata"].get("name", "")), errors)


def make_new(kind: Kind, obj: Object, namespace: str | None, options: Options, managed: list[Object]) -> None:
    """Turn a body into an object to create, in place. Checks that need other objects are in ``admit``.

    Args:
        kind: Its kind.
        obj: The body.
        namespace: The path's.
        options: How strictly.
        managed: Who owns its fields, if server-side apply makes it.

    Raises:
        ApiError: for an invalid object.
    """
    check_type(kind, obj)
    if (obj.get("metadata") or {}).get("resourceVersion"):
        raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
    check_namespace(kind, obj, namespace)
    if kind.status and kind.gvr not in strategy.STATUS_AT_CREATION:
        obj.pop("status", None)
    prune_and_default(kind, obj, options)
    prepare_new(obj["metadata"], kind, namespace)
    if managed:
        obj["metadata"]["managedFields"] = managed
    _validate_schema(kind, obj, None)
    if default := strategy.DEFAULT.get(kind.gvr):
        default(obj)


def admit(tx: Transaction, kind: Kind, obj: Object, registry: Registry) -> None:
    """Complete a new object in place, which may need other objects, and validate it.

    Raises:
        ApiError: for an invalid object.
    """
    if complete := strategy.ADMIT.get(kind.gvr):
        complete(tx, obj, registry)
    _validate_rules(kind, obj, None)


def check_namespace(kind: Kind, obj: Object, namespace: str | None) -> None:
    """Check that the body's namespace is the path's. Raises ApiError: 400."""
    given = (obj.get("metadata") or {}).get("namespace")
    if given and given != (namespace or "") and kind.namespaced:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def make_replacement(
    kind: Kind, old: Object, new: Object, subresource: str, options: Options, *, applied: bool = False
) -> Object:
    """Turn a body into what replaces ``old``.

    Args:
        kind: Their kind.
        old: What is stored.
        new: What the client sent or a patch made; may be changed.
        subresource: ``status``, ``finalize``, or empty.
        options: How strictly.
        applied: Whether server-side apply made it, and so has settled whose fields are whose.

    Returns:
        The replacement; equal to ``old`` if nothing changes.

    Raises:
        ApiError: for an invalid object.
    """
    check_type(kind, new)
    meta, before = new["metadata"], old["metadata"]
    if meta.get("name", before["name"]) != before["name"]:
        why = f"the name of the object ({meta['name']}) does not match the name on the URL ({before['name']})"
        raise bad_request(why)
    check_namespace(kind, new, before.get("namespace"))
    _check_versions(kind, meta, before, subresource)
    new = _split(kind, old, new, subresource)
    prune_and_default(kind, new, options)
    meta = new["metadata"]
    meta["name"] = before["name"]
    if kind.namespaced:
        meta["namespace"] = before["namespace"]
    carry_over(meta, before)
    meta["resourceVersion"] = before["resourceVersion"]
    _validate_schema(kind, new, old)
    if default := strategy.DEFAULT.get(kind.gvr):
        default(new)
    _validate_rules(kind, new, old)
    if not applied:
        release_fields(old, new, kind.schema)
    if kind.generation and _wanted(kind, new) != _wanted(kind, old):
        meta["generation"] = before.get("generation", 0) + 1
    if kind.gvr == CUSTOM_RESOURCE_DEFINITIONS and not subresource:
        new["status"] = strategy.established(new, timestamp())
    return new


def _check_versions(kind: Kind, meta: Object, before: Object, subresource: str) -> None:
    name = before["name"]
    if (version := meta.get("resourceVersion")) and version != before["resourceVersion"]:
        raise modified(kind.gvr, name)
    if not version and kind.update_needs_version and not subresource:
        error = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
        raise invalid(kind.gvr, kind.gvr.resource, name, [error])
    if (uid := meta.get("uid")) and uid != before["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before['uid']}"
        raise conflict(kind.gvr, name, why)


def _split(kind: Kind, old: Object, new: Object, subresource: str) -> Object:
    """Take from a body only what its path may change."""
    head = {"apiVersion": kind.gvr.group_version, "kind": kind.kind}
    if subresource == "status":
        meta = dict(old["metadata"])
        if kind.gvr in strategy.STATUS_MAY_CHANGE_METADATA:
            for part in ("labels", "annotations"):
                meta[part] = new["metadata"].get(part)
        if "managedFields" in new["metadata"]:
            meta["managedFields"] = new["metadata"]["managedFields"]
        made = {**old, **head, "metadata": meta}
        made.pop("status", None)
        return made | ({"status": new["status"]} if "status" in new else {})
    if subresource == "finalize":
        return {**old, **head, "metadata": dict(old["metadata"]), "spec": new.get("spec") or {}}
    if not kind.status:
        return new
    made = {name: value for name, value in new.items() if name != "status"}
    if kind.gvr == NAMESPACES:  # its finalizers have a subresource of their own
        made["spec"] = old["spec"]
    return made | ({"status": old["status"]} if "status" in old else {})


def _wanted(kind: Kind, obj: Object) -> Object:
    """The part of an object whose changes its generation counts."""
    hidden = (
        ("metadata", "kind", "apiVersion", "status") if kind.status else ("metadata", "kind", "apiVersion")
    )
    return {name: value for name, value in obj.items() if name not in hidden}
