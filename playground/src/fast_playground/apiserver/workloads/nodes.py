"""The node controller: taints nodes that are not Ready, and deletes pods that their node cannot run any more.

A pod is deleted by force if its Node object is gone, or if the Node is tainted out-of-service (Kubernetes' pod garbage
collection). Nodes do not become unreachable by themselves: kubelets of the playground hold no Lease.
"""

from __future__ import annotations

import time

from fast.api.core import TAINT_OUT_OF_SERVICE
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import NODES, PODS
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.strategy import NOT_READY
from fast_playground.apiserver.workloads import owned_pods
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, delete_if_there, find, own_key
from fast_playground.apiserver.workloads.scheduler import is_ready


class NodeController(ControlLoop[Key]):
    """Reconciles Nodes, and pods whose node is gone.

    Args:
        api: The verbs.
        grace_seconds: How long a node must be gone before its pods are deleted.
    """

    def __init__(self, api: Verbs, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._gone: dict[str, float] = {}  # when a node was first missed (monotonic)
        super().__init__("node", api, {NODES: own_key, PODS: _node_of_pod})

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one node's taint and its pods."""
        node = await find(self._api, NODES, key)
        if node is None:
            return await self._end_orphans(key.name)
        self._gone.pop(key.name, None)
        await self._ensure_taint(node)
        if any(taint["key"] == TAINT_OUT_OF_SERVICE for taint in _taints(node)):
            await self._delete_pods(key.name)
        return None

    async def _end_orphans(self, name: str) -> float | None:
        """Delete the pods of a node that is gone, once the grace time is over."""
        if not await self._pods(name):
            self._gone.pop(name, None)
            return None
        left = self._gone.setdefault(name, time.monotonic()) + self._grace_seconds - time.monotonic()
        if left <= 0:
            await self._delete_pods(name)
        return left if left > 0 else self._grace_seconds

    async def _pods(self, node: str) -> list[Object]:
        return await self._api.list(PODS, field_selector=f"spec.nodeName={node}")

    async def _delete_pods(self, node: str) -> None:
        for pod in await self._pods(node):
            await delete_if_there(self._api, PODS, pod["metadata"], grace_period_seconds=0)

    async def _ensure_taint(self, node: Object) -> None:
        before = _taints(node)
        kept = [taint for taint in before if taint["key"] != NOT_READY["key"]]
        wanted = kept if is_ready(node) else [*kept, NOT_READY]
        if wanted != before:
            version = node["metadata"]["resourceVersion"]
            patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": wanted or None}}
            await self._api.patch(NODES, node["metadata"]["name"], patch, options=owned_pods.MANAGER)


def _taints(node: Object) -> list[Object]:
    taints: list[Object] = node["spec"].get("taints") or []
    return taints


def _node_of_pod(pod: Object) -> list[Key]:
    return [Key("", pod["spec"]["nodeName"])] if pod["spec"].get("nodeName") else []
