"""Records what a controller did as Event objects, for ``kubectl describe`` and ``kubectl events``. Best effort."""

from __future__ import annotations

import time

import structlog

from fast_playground.apiserver.api import ApiError, Object
from fast_playground.apiserver.kinds import EVENTS
from fast_playground.apiserver.metadata import timestamp
from fast_playground.apiserver.resource_verbs import Verbs

_API_VERSIONS = {"Pod": "v1", "Node": "v1"}
_COMPONENTS = {
    "Deployment": "deployment-controller",
    "ReplicaSet": "replicaset-controller",
    "StatefulSet": "statefulset-controller",
    "Pod": "default-scheduler",
}
_logger = structlog.get_logger()


async def record_event(
    api: Verbs, obj: Object, kind: str, reason: str, message: str, *, warning: bool = False
) -> None:
    """Record an event about an object. What goes wrong is logged and otherwise ignored.

    Args:
        api: Where.
        obj: What it is about.
        kind: The object's kind (objects from a list do not carry it).
        reason: In CamelCase, as ``SuccessfulCreate``.
        message: For people.
        warning: Type Warning instead of Normal.
    """
    metadata = obj["metadata"]
    stamp = timestamp()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        # As client-go names them: unique by time, and sorting by it.
        "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}"},
        "involvedObject": {
            "apiVersion": _API_VERSIONS.get(kind, "apps/v1"),
            "kind": kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": reason,
        "message": message,
        "type": "Warning" if warning else "Normal",
        "source": {"component": _COMPONENTS.get(kind, "fast-apiserver")},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
    try:
        await api.create(EVENTS, event, metadata["namespace"])
    except ApiError as error:  # for example, its namespace is terminating
        _logger.debug("an event is lost", reason=reason, about=metadata["name"], error=error.message)
