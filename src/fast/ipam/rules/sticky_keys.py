"""Sticky keys: which pods get the same address back when they are recreated, and under which name it is kept.

A key names the pod's namespace and stable name, never a UID: a StatefulSet that is deleted and created again, with or
without its pods, finds its addresses again, and no pod can name another namespace's key.

- ``StatefulSet/<namespace>/<name>/<ordinal>``: a pod of a StatefulSet of the API group ``apps``.
- ``Pod/<namespace>/<name>``: a pod of any other controller with stable pod names, if it has the annotation
  ``fast.io/sticky: "true"``.
- ``<StatefulSet UID>/<ordinal>``: what versions before 1.0 wrote. Such records are found and rewritten.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fast.api.core import Pod
from fast.api.ips import ANNOTATION_STICKY
from fast.api.meta import OwnerReference

#: On the records of sticky pods: their key as a label's value, so that a live list can select them.
LABEL_STICKY_KEY = "fast.io/sticky-key"

_STATEFUL_SET = "StatefulSet"
_POD = "Pod"
_LONGEST_LABEL = 63
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class StickyKey:
    """A key, read.

    Attributes:
        namespace: Of the workload; empty in a key of the former form.
        name: Of the StatefulSet or pod; empty in a key of the former form.
        ordinal: Of a StatefulSet's pod; None for a pod of another controller.
        set_uid: The StatefulSet's UID in a key of the former form, else empty.
    """

    namespace: str = ""
    name: str = ""
    ordinal: int | None = None
    set_uid: str = ""


def sticky_key_of(pod: Pod) -> str:
    """Give the pod's sticky key; empty if its address may change when it is recreated."""
    meta = pod.metadata
    found = _stateful_set_of(pod)
    if found is not None:
        owner, ordinal = found
        return f"{_STATEFUL_SET}/{meta.namespace}/{owner.name}/{ordinal}"
    if meta.annotations.get(ANNOTATION_STICKY) == "true":
        return f"{_POD}/{meta.namespace}/{meta.name}"
    return ""


def former_sticky_key_of(pod: Pod) -> str:
    """Give the key that versions before 1.0 gave the pod; empty if they gave it none."""
    found = _stateful_set_of(pod)
    return f"{found[0].uid}/{found[1]}" if found is not None else ""


def parse_sticky_key(key: str) -> StickyKey | None:
    """Read a key; None if it is not spelled as one."""
    match key.split("/"):
        case [kind, namespace, name, ordinal] if kind == _STATEFUL_SET and ordinal.isdecimal():
            return StickyKey(namespace, name, int(ordinal))
        case [kind, namespace, name] if kind == _POD and namespace and name:
            return StickyKey(namespace, name)
        case [uid, ordinal] if uid and ordinal.isdecimal():
            return StickyKey(ordinal=int(ordinal), set_uid=uid)
        case _:
            return None


def sticky_labels(key: str) -> dict[str, str]:
    """Give the labels of a record of that key; none if it is empty."""
    if not key:
        return {}
    value = _NOT_IN_LABELS.sub(".", key)
    if len(value) > _LONGEST_LABEL:
        value = hashlib.sha256(key.encode()).hexdigest()[:_LONGEST_LABEL]
    return {LABEL_STICKY_KEY: value}


def _stateful_set_of(pod: Pod) -> tuple[OwnerReference, int] | None:
    """Find the StatefulSet that the pod is a member of by its name, as the StatefulSet's controller would adopt it."""
    for owner in pod.metadata.owner_references:
        if owner.controller and owner.kind == _STATEFUL_SET and owner.api_version.startswith("apps/"):
            stem, dash, ordinal = pod.metadata.name.rpartition("-")
            if dash and stem == owner.name and ordinal.isdecimal():
                return owner, int(ordinal)
    return None
