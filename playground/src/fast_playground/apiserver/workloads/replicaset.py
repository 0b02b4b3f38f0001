"""The ReplicaSet controller: keeps as many pods as asked for, and counts them in the status."""

from __future__ import annotations

from collections import Counter

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import PODS, REPLICA_SETS
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads import owned_pods
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, controller_key, find, own_key

_KIND = "ReplicaSet"


class ReplicaSetController(ControlLoop[Key]):
    """Reconciles ReplicaSets.

    Args:
        api: Where they are.
    """

    def __init__(self, api: Verbs) -> None:
        sources = {REPLICA_SETS: own_key, PODS: controller_key(_KIND)}
        super().__init__("replicaset", api, sources)

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one ReplicaSet's pods and status."""
        replica_set = await find(self._api, REPLICA_SETS, key)
        if replica_set is None:
            return None
        mine = await owned_pods.owned(self._api, PODS, replica_set)
        if not owned_pods.is_terminating(replica_set):
            mine = await self._scale(replica_set, mine)
        return await self._write_status(replica_set, mine)

    async def _scale(self, replica_set: Object, mine: list[Object]) -> list[Object]:
        """Create missing pods or delete surplus ones; give the resulting pods."""
        active = [pod for pod in mine if owned_pods.is_active(pod)]
        missing = replica_set["spec"].get("replicas", 1) - len(active)
        # One after the other, so that they come to the scheduler in a known order.
        prefix = {"generateName": f"{replica_set['metadata']['name']}-"}
        created = [
            await owned_pods.create_pod(self._api, replica_set, _KIND, dict(prefix)) for _ in range(missing)
        ]
        for pod in _by_deletion_cost(active)[: max(0, -missing)]:
            await owned_pods.delete_pod(self._api, replica_set, _KIND, pod)
        return [*mine, *created] if missing >= 0 else await owned_pods.owned(self._api, PODS, replica_set)

    async def _write_status(self, replica_set: Object, mine: list[Object]) -> float | None:
        spec = replica_set["spec"]
        active = [pod for pod in mine if owned_pods.is_active(pod)]
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        labelled = [pod for pod in active if labels.items() <= (pod["metadata"].get("labels") or {}).items()]
        ready, available, wait = owned_pods.counts(active, spec.get("minReadySeconds", 0))
        status = {
            "replicas": len(active),
            "fullyLabeledReplicas": len(labelled) or None,
            "readyReplicas": ready or None,
            "availableReplicas": available or None,
            "terminatingReplicas": sum(map(owned_pods.is_terminating, mine)),
            "observedGeneration": replica_set["metadata"]["generation"],
        }
        await owned_pods.write_status(self._api, REPLICA_SETS, replica_set, status)
        return wait


def _by_deletion_cost(active: list[Object]) -> list[Object]:
    """Order pods for deletion: those that are missed least come first (Kubernetes' ActivePodsWithRanks)."""
    on_node = Counter(pod["spec"].get("nodeName", "") for pod in active)

    def cost(pod: Object) -> tuple[bool, bool, bool, int]:
        node = pod["spec"].get("nodeName", "")
        started = pod.get("status", {}).get("phase", "Pending") != "Pending"
        return bool(node), started, owned_pods.ready_since(pod) is not None, -on_node[node]

    youngest_first = active[::-1]
    return sorted(youngest_first, key=cost)  # stable: among equals the youngest goes first
