"""Deletion inside a transaction: preconditions, grace, finalizers, propagation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fast_playground.apiserver import pod_kind
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS
from fast_playground.apiserver.metadata import timestamp
from fast_playground.apiserver.registry import Kind, Registry
from fast_playground.apiserver.status import bad_request, conflict, forbidden, not_found
from fast_playground.apiserver.storage import Transaction

_FINALIZERS = {"Orphan": "orphan", "Foreground": "foregroundDeletion", "Background": ""}
_PERMANENT_NAMESPACES = ("default", "kube-system", "kube-public")


@dataclass(frozen=True)
class Deletion:
    """The DeleteOptions that are supported."""

    grace_period_seconds: int | None = None
    propagation: str | None = None
    preconditions: dict[str, str] = field(default_factory=dict)


def is_released(obj: Object) -> bool:
    """Whether an object that is marked as deleted can be removed."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"))


def delete_in(
    tx: Transaction,
    kind: Kind,
    registry: Registry,
    key: str,
    asked: Deletion,
    check: Callable[[Object], None],
) -> tuple[Object, bool]:
    """Delete one object, or mark it.

    Args:
        tx: The transaction.
        kind: Its kind.
        registry: The kinds, for what a definition's deletion takes along.
        key: Its key.
        asked: How.
        check: Refuses the deletion of the object if a policy does.

    Returns:
        Its last state, and whether it is gone.

    Raises:
        ApiError: 404, or 409 for a precondition that does not hold.
    """
    before, obj = read(tx, kind, key), read(tx, kind, key)
    name, meta = before["metadata"]["name"], obj["metadata"]
    _check_preconditions(kind, name, meta, asked.preconditions)
    if kind.gvr == NAMESPACES and name in _PERMANENT_NAMESPACES:
        raise forbidden(kind.gvr, name, "this namespace may not be deleted")
    check(obj)
    finalizer = _finalizer(asked.propagation)
    if finalizer and finalizer not in (meta.get("finalizers") or []):
        meta["finalizers"] = [*(meta.get("finalizers") or []), finalizer]
    grace = pod_kind.grace_seconds(obj, asked.grace_period_seconds) if kind.gvr == PODS else 0
    held = bool(meta.get("finalizers") or (kind.gvr == NAMESPACES and obj["spec"].get("finalizers")))
    if (
        grace or held or kind.gvr == PODS
    ):  # kubelets wait for the mark, so pods get it even if they go at once
        _mark(kind, obj, grace)
        if obj != before:
            tx.put(kind.storage, key, obj)
    if grace or held:
        return obj, False
    remove(tx, kind, registry, key, obj)
    return obj, True


def read(tx: Transaction, kind: Kind, key: str) -> Object:
    """Read one object inside a transaction. Raises ApiError: 404."""
    record = tx.get(kind.storage, key)
    if record is None:
        raise not_found(kind.gvr, key.rpartition("/")[2])
    return record.decode()


def remove(tx: Transaction, kind: Kind, registry: Registry, key: str, obj: Object) -> None:
    """Remove an object. With a definition, all objects of its kinds are removed, finalizers or not."""
    if kind.gvr == CUSTOM_RESOURCE_DEFINITIONS:
        storage = f"{obj['spec']['group']}/{obj['spec']['names']['plural']}"
        for instance in tx.keys(storage):
            if record := tx.get(storage, instance):
                tx.delete(storage, instance, record.decode())
    tx.delete(kind.storage, key, obj)


def _check_preconditions(kind: Kind, name: str, meta: Object, preconditions: dict[str, str]) -> None:
    for field_name, label, hint in (
        ("uid", "UID", "The object might have been deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "The object might have been modified"),
    ):
        wanted = preconditions.get(field_name)
        if wanted is not None and wanted != meta[field_name]:
            why = f"the {label} in the precondition ({wanted}) does not match the {label} in record"
            raise conflict(kind.gvr, name, f"{why} ({meta[field_name]}). {hint}", kind.kind)


def _finalizer(propagation: str | None) -> str:
    if propagation not in (*_FINALIZERS, None):
        raise bad_request(f'invalid propagationPolicy "{propagation}": must be one of {sorted(_FINALIZERS)}')
    return _FINALIZERS[propagation or "Background"]


def _mark(kind: Kind, obj: Object, grace: int) -> None:
    """Set when the object is to go. An earlier mark can only be brought forward."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta:
        if kind.generation:
            meta["generation"] = meta.get("generation", 0) + 1
    elif meta.get("deletionGracePeriodSeconds", 0) <= grace:
        return
    if kind.gvr == NAMESPACES:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    meta["deletionTimestamp"] = timestamp(grace)
    meta["deletionGracePeriodSeconds"] = grace
