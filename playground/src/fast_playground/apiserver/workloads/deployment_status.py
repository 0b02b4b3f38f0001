"""A Deployment's status as a function of it and its ReplicaSets: counts, conditions Available and Progressing."""

from __future__ import annotations

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.metadata import seconds_since, timestamp
from fast_playground.apiserver.workloads.rollout import bounds, replicas


def deployment_status(
    deployment: Object, sets: list[Object], new: Object | None
) -> tuple[Object, float | None]:
    """Work out a Deployment's status.

    Args:
        deployment: With the status it has now.
        sets: Every ReplicaSet of it.
        new: The one of its template; None: not made yet.

    Returns:
        The status (fields that are None stay out), and the seconds until its progress deadline passes; None: it
        cannot.
    """
    before = deployment.get("status") or {}
    conditions = {condition["type"]: condition for condition in before.get("conditions") or []}
    counts = _counts(sets, new)
    judged = [_available(deployment, counts["availableReplicas"])]
    progressing, left = _progressing(deployment, counts, new, conditions.get("Progressing"))
    if progressing is not None:
        judged.append(progressing)
    for condition in judged:
        conditions[condition["type"]] = _stamped(condition, conditions.get(condition["type"]))
    status: Object = {key: value or None for key, value in counts.items()}
    status |= {
        "terminatingReplicas": _sum(sets, "terminatingReplicas"),
        "observedGeneration": deployment["metadata"]["generation"],
        "collisionCount": before.get("collisionCount"),
        "conditions": list(conditions.values()),
    }
    return status, left


def _counts(sets: list[Object], new: Object | None) -> dict[str, int]:
    available = _sum(sets, "availableReplicas")
    return {
        "replicas": _sum(sets, "replicas"),
        "updatedReplicas": _sum([new] if new else [], "replicas"),
        "readyReplicas": _sum(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(map(replicas, sets)) - available),
    }


def _available(deployment: Object, available: int) -> Object:
    if available >= replicas(deployment) - bounds(deployment)[1]:
        return _condition(
            "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."
        )
    message = "Deployment does not have minimum availability."
    return _condition("Available", "False", "MinimumReplicasUnavailable", message)


def _progressing(
    deployment: Object, counts: dict[str, int], new: Object | None, last: Object | None
) -> tuple[Object | None, float | None]:
    """Judge the rollout; None: as before. Also the seconds until it counts as stuck."""
    before = deployment.get("status") or {}
    if deployment["spec"].get("paused"):
        return _condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"), None
    if new is None:
        return None, None
    name, reason = new["metadata"]["name"], (last or {}).get("reason")
    wanted = replicas(deployment)
    if all(counts[key] == wanted for key in ("replicas", "updatedReplicas", "availableReplicas")):
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return _condition("Progressing", "True", "NewReplicaSetAvailable", message), None
    if reason == "NewReplicaSetAvailable" and counts["replicas"] == counts["updatedReplicas"]:
        return None, None  # rolled out; that pods fail afterwards is no matter of progress
    if last is None or reason in ("DeploymentPaused", "NewReplicaSetAvailable"):
        message = f'Created new replica set "{name}"'
        return _condition("Progressing", "True", "NewReplicaSetCreated", message), _deadline(deployment)
    if _advanced(before, counts):
        message = f'ReplicaSet "{name}" is progressing.'
        return _condition("Progressing", "True", "ReplicaSetUpdated", message), _deadline(deployment)
    left = _deadline(deployment) - seconds_since(last["lastUpdateTime"])
    if left > 0 or reason == "ProgressDeadlineExceeded":
        return None, left if left > 0 else None
    message = f'ReplicaSet "{name}" has timed out progressing.'
    return _condition("Progressing", "False", "ProgressDeadlineExceeded", message), None


def _advanced(before: Object, counts: dict[str, int]) -> bool:
    """Whether pods were made, became ready or available, or old ones went, since the last status."""
    grown = any(
        counts[key] > before.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    outdated = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    return grown or counts["replicas"] - counts["updatedReplicas"] < outdated


def _deadline(deployment: Object) -> float:
    return float(deployment["spec"].get("progressDeadlineSeconds", 600))


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _stamped(condition: Object, last: Object | None) -> Object:
    """Put times on a condition: the last one's where it says the same, except that progress renews the update time."""
    stamp = timestamp()
    last = last or {}
    same = all(last.get(key) == condition[key] for key in condition)
    if same and condition["reason"] != "ReplicaSetUpdated":
        return last
    transition = last["lastTransitionTime"] if last.get("status") == condition["status"] else stamp
    return condition | {"lastUpdateTime": stamp, "lastTransitionTime": transition}


def _sum(sets: list[Object], field: str) -> int:
    return sum((item.get("status") or {}).get(field, 0) for item in sets)
