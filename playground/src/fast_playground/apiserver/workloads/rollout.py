"""The arithmetic of a rolling update, as functions of a Deployment and its ReplicaSets. No I/O, no status.

It is Kubernetes' own (pkg/controller/deployment/rolling.go), but for one rule: a change of scale amid a rollout goes to
the newest ReplicaSet instead of being spread over all of them.
"""

from __future__ import annotations

import math

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.workloads.owned_pods import without_nulls

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def replicas(obj: Object) -> int:
    """How many pods a Deployment or ReplicaSet shall have."""
    return int(obj["spec"].get("replicas", 1))


def available(replica_set: Object) -> int:
    """How many pods of a ReplicaSet are available."""
    return int((replica_set.get("status") or {}).get("availableReplicas", 0))


def revision(replica_set: Object) -> int:
    """The number of the rollout that last used a ReplicaSet."""
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, 0))


def is_recreate(deployment: Object) -> bool:
    """Whether old pods must be gone before new ones come."""
    return bool(deployment["spec"].get("strategy", {}).get("type") == "Recreate")


def is_empty(replica_set: Object) -> bool:
    """Whether no pod is left, not even one that is about to go."""
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
    """Tell the ReplicaSet of the Deployment's template (None: there is none) from those of earlier ones."""
    wanted = without_nulls(deployment["spec"]["template"])
    new = next((item for item in sets if _plain_template(item) == wanted), None)
    return new, [item for item in sets if item is not new]


def _plain_template(replica_set: Object) -> Object:
    """Give a ReplicaSet's template without the label that the Deployment controller put on it."""
    template: Object = without_nulls(replica_set["spec"]["template"])
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    return template | {"metadata": metadata | {"labels": labels}}


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
