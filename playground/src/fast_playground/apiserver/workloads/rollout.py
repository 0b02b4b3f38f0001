"""The arithmetic of a rollout: how large each ReplicaSet may be, and a Deployment's status. No I/O.

It is Kubernetes' own (pkg/controller/deployment/rolling.go), except that a change of scale during a rollout goes to the
newest ReplicaSet instead of being spread over all, and that a rollout has no deadline.
"""

from __future__ import annotations

import math

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.metadata import timestamp

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def replicas(obj: Object) -> int:
    """How many pods a Deployment or ReplicaSet shall have."""
    return int(obj["spec"].get("replicas", 1))


def available(replica_set: Object) -> int:
    """How many pods of a ReplicaSet are available."""
    return _sum([replica_set], "availableReplicas")


def revision(replica_set: Object) -> int:
    """The number of the rollout that last used a ReplicaSet."""
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, 0))


def is_recreate(deployment: Object) -> bool:
    """Whether old pods must be gone before new ones come."""
    return bool(deployment["spec"].get("strategy", {}).get("type") == "Recreate")


def is_empty(replica_set: Object) -> bool:
    """Whether a ReplicaSet has no pods left, terminating ones included."""
    status, metadata = replica_set.get("status") or {}, replica_set["metadata"]
    left = replicas(replica_set) + status.get("replicas", 0) + status.get("terminatingReplicas", 0)
    return left == 0 and bool(status.get("observedGeneration", 0) >= metadata["generation"])


def bounds(deployment: Object) -> tuple[int, int]:
    """Give maxSurge and maxUnavailable in pods: percentages round up for surge, down for unavailable, not both to 0."""
    if is_recreate(deployment):
        return 0, 0
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
    wanted = replicas(deployment)
    surge = math.ceil(_resolve(rolling.get("maxSurge", "25%"), wanted))
    unavailable = math.floor(_resolve(rolling.get("maxUnavailable", "25%"), wanted))
    return surge, min(wanted, unavailable if surge or unavailable else 1)


def _resolve(value: int | str, total: int) -> float:
    return value if isinstance(value, int) else int(value.rstrip("%")) * total / 100


def split(deployment: Object, sets: list[Object]) -> tuple[Object | None, list[Object]]:
    """Tell the ReplicaSet of the Deployment's template (None if there is none) from those of earlier templates."""
    wanted = deployment["spec"]["template"]
    new = next((item for item in sets if _plain_template(item) == wanted), None)
    return new, [item for item in sets if item is not new]


def _plain_template(replica_set: Object) -> Object:
    """Give a ReplicaSet's template without the label that the Deployment controller added."""
    template: Object = replica_set["spec"]["template"]
    labels = {key: value for key, value in template["metadata"]["labels"].items() if key != HASH_LABEL}
    return template | {"metadata": template["metadata"] | {"labels": labels}}


def new_size(deployment: Object, new: Object | None, old: list[Object]) -> int:
    """How many replicas the newest ReplicaSet (None: not made yet) may have now."""
    wanted, current = replicas(deployment), replicas(new) if new else 0
    if is_recreate(deployment):
        return wanted
    room = wanted + bounds(deployment)[0] - sum(map(replicas, old)) - current
    return min(wanted, current + max(0, room))


def old_sizes(deployment: Object, new: Object, old: list[Object]) -> list[int]:
    """How many replicas each old ReplicaSet may keep, so that enough pods stay available.

    Pods that are not available go first, wherever they are; then the sets in the order given.
    """
    least = replicas(deployment) - bounds(deployment)[1]
    budget = sum(map(replicas, (*old, new))) - least - (replicas(new) - available(new))
    sizes = [replicas(item) for item in old]
    for index, item in enumerate(old):
        broken = min(max(0, budget), max(0, sizes[index] - available(item)))
        sizes[index] -= broken
        budget -= broken
    spare = min(budget, sum(map(available, (*old, new))) - least)
    for index, size in enumerate(sizes):
        surplus = min(max(0, spare), size)
        sizes[index] -= surplus
        spare -= surplus
    return sizes


def status_of(deployment: Object, sets: list[Object], new: Object | None) -> Object:
    """Work out a Deployment's status; fields that are None stay out.

    Args:
        deployment: With its present status, whose times are kept if nothing changed.
        sets: All its ReplicaSets.
        new: The ReplicaSet of its template; None if it does not exist yet.
    """
    before = {item["type"]: item for item in (deployment.get("status") or {}).get("conditions") or []}
    ready = _sum(sets, "availableReplicas")
    counts = {
        "replicas": _sum(sets, "replicas"),
        "updatedReplicas": _sum([new] if new else [], "replicas"),
        "readyReplicas": _sum(sets, "readyReplicas"),
        "availableReplicas": ready,
        "unavailableReplicas": max(0, sum(map(replicas, sets)) - ready),
    }
    conditions = [_available(deployment, ready), _progressing(deployment, counts, new)]
    return {key: value or None for key, value in counts.items()} | {
        "terminatingReplicas": _sum(sets, "terminatingReplicas"),
        "observedGeneration": deployment["metadata"]["generation"],
        "conditions": [_stamped(condition, before.get(condition["type"], {})) for condition in conditions],
    }


def _available(deployment: Object, ready: int) -> Object:
    if ready >= replicas(deployment) - bounds(deployment)[1]:
        said = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        said = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    return dict(zip(("type", "status", "reason", "message"), ("Available", *said), strict=True))


def _progressing(deployment: Object, counts: dict[str, int], new: Object | None) -> Object:
    name, wanted = new["metadata"]["name"] if new else "", replicas(deployment)
    if deployment["spec"].get("paused"):
        said = ("Unknown", "DeploymentPaused", "Deployment is paused")
    elif all(counts[key] == wanted for key in ("replicas", "updatedReplicas", "availableReplicas")):
        said = ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
    else:
        said = ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
    return dict(zip(("type", "status", "reason", "message"), ("Progressing", *said), strict=True))


def _stamped(condition: Object, last: Object) -> Object:
    """Put times on a condition: those of the last one if it says the same."""
    if all(last.get(key) == value for key, value in condition.items()):
        return last
    stamp = timestamp()
    since = last["lastTransitionTime"] if last.get("status") == condition["status"] else stamp
    return condition | {"lastUpdateTime": stamp, "lastTransitionTime": since}


def _sum(sets: list[Object], field: str) -> int:
    return sum((item.get("status") or {}).get(field, 0) for item in sets)
