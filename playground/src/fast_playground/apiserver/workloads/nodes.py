"""The node controller: nodes that fall silent, the taints that follow from conditions, and the pods these evict.

A pod is deleted by force only where its node cannot run it any more: the Node object is gone, or it is tainted
out-of-service (what Kubernetes calls pod garbage collection).
"""

from __future__ import annotations

import time

from fast.api.core import TAINT_OUT_OF_SERVICE
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import LEASES, NODES, PODS
from fast_playground.apiserver.metadata import seconds_since, timestamp
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads import owned_pods
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, delete_if_there, find, own_key
from fast_playground.apiserver.workloads.scheduler import tolerates

_LEASE_NAMESPACE = "kube-node-lease"
_PREFIX = "node.kubernetes.io/"
_OURS = tuple(f"{_PREFIX}{name}" for name in ("not-ready", "unreachable", "unschedulable"))


class NodeController(ControlLoop[Key]):
    """Reconciles Nodes, and pods whose node is gone.

    Args:
        api: Where they are.
        grace_seconds: How long a node may be silent before it counts as unreachable, and be gone before its pods go. A
            node without a lease in ``kube-node-lease`` is never silent.
    """

    def __init__(self, api: Verbs, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._renewed: dict[str, tuple[str, float]] = {}  # renewTime, and when it was first seen (monotonic)
        self._gone: dict[str, float] = {}
        sources = {NODES: own_key, LEASES: _node_of_lease, PODS: self._node_of_pod}
        self._known: set[str] = set()
        super().__init__("node", api, sources)

    def _node_of_pod(self, pod: Object) -> list[Key]:
        node = pod["spec"].get("nodeName")
        return [Key("", node)] if node and node not in self._known else []

    async def reconcile(self, key: Key) -> float | None:
        """Make one node's condition, taints and pods fit what is known of it."""
        node = await find(self._api, NODES, key)
        if node is None:
            return await self._forget(key.name)
        self._known.add(key.name)
        self._gone.pop(key.name, None)
        left = await self._silence_left(key.name)
        if left is not None and left <= 0:
            node = await self._mark_unreachable(node)
        node = await self._ensure_taints(node)
        waits = [await self._evict(node), left if left and left > 0 else None]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _forget(self, name: str) -> float | None:
        """Delete the pods of a node that is gone, once it has been for the grace time."""
        self._known.discard(name)
        self._renewed.pop(name, None)
        orphans = await self._api.list(PODS, field_selector=f"spec.nodeName={name}")
        if not orphans:
            self._gone.pop(name, None)
            return None
        left = self._gone.setdefault(name, time.monotonic()) + self._grace_seconds - time.monotonic()
        if left > 0:
            return left
        for pod in orphans:
            await delete_if_there(self._api, PODS, pod["metadata"], grace_period_seconds=0)
        return self._grace_seconds

    async def _silence_left(self, name: str) -> float | None:
        """Give the seconds until a node has been silent too long; None: it need not speak."""
        lease = await find(self._api, LEASES, Key(_LEASE_NAMESPACE, name))
        if lease is None:
            return None
        renewed = (lease.get("spec") or {}).get("renewTime", "")
        if self._renewed.get(name, ("", 0.0))[0] != renewed:
            self._renewed[name] = renewed, time.monotonic()  # by our own clock: the node's may be wrong
        return self._renewed[name][1] + self._grace_seconds - time.monotonic()

    async def _mark_unreachable(self, node: Object) -> Object:
        if _ready(node) == "Unknown":
            return node
        condition = {
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": timestamp(),
        }
        name, patch = node["metadata"]["name"], {"status": {"conditions": [condition]}}
        return await self._api.patch(
            NODES, name, patch, kind="strategic", subresource="status", options=owned_pods.MANAGER
        )

    async def _ensure_taints(self, node: Object) -> Object:
        before = node.get("spec", {}).get("taints") or []
        kept = [taint for taint in before if taint["key"] not in _OURS]
        for taint in _condition_taints(node):
            same = (item for item in before if all(item.get(key) == taint[key] for key in taint))
            kept.append(next(same, taint))
        added = {"timeAdded": timestamp()}  # toleration ends a number of seconds after it
        kept = [(added if taint["effect"] == "NoExecute" else {}) | taint for taint in kept]
        if kept == before:
            return node
        metadata = node["metadata"]
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "spec": {"taints": kept or None},
        }
        return await self._api.patch(NODES, metadata["name"], patch, options=owned_pods.MANAGER)

    async def _evict(self, node: Object) -> float | None:
        """Delete the pods that do not tolerate the node's taints; give the seconds until the next is due."""
        taints = [item for item in node.get("spec", {}).get("taints") or [] if item["effect"] == "NoExecute"]
        fenced = any(item["key"] == TAINT_OUT_OF_SERVICE for item in node.get("spec", {}).get("taints") or [])
        if not taints and not fenced:
            return None
        waits = []
        for pod in await self._api.list(PODS, field_selector=f"spec.nodeName={node['metadata']['name']}"):
            left = min((_tolerated_seconds(pod, taint) for taint in taints), default=float("inf"))
            if owned_pods.is_terminating(pod) and not fenced:
                continue
            if left <= 0 or owned_pods.is_terminating(pod):
                grace = 0 if fenced else None
                await delete_if_there(self._api, PODS, pod["metadata"], grace_period_seconds=grace)
            elif left < float("inf"):
                waits.append(left)
        return min(waits, default=None)


def _node_of_lease(lease: Object) -> list[Key]:
    metadata = lease["metadata"]
    return [Key("", metadata["name"])] if metadata["namespace"] == _LEASE_NAMESPACE else []


def _ready(node: Object) -> str | None:
    conditions = (node.get("status") or {}).get("conditions") or []
    return next((item["status"] for item in conditions if item["type"] == "Ready"), None)


def _condition_taints(node: Object) -> list[Object]:
    """Give the taints that follow from a node's condition and from ``spec.unschedulable``."""
    taints = []
    ready = _ready(node)
    if ready != "True":
        key = f"{_PREFIX}{'unreachable' if ready == 'Unknown' else 'not-ready'}"
        # A node that never said anything keeps new pods off, but has none to evict.
        effects = ("NoSchedule",) if ready is None else ("NoSchedule", "NoExecute")
        taints += [{"key": key, "effect": effect} for effect in effects]
    if node.get("spec", {}).get("unschedulable"):
        taints.append({"key": f"{_PREFIX}unschedulable", "effect": "NoSchedule"})
    return taints


def _tolerated_seconds(pod: Object, taint: Object) -> float:
    """Give the seconds that a pod may stay under a NoExecute taint: none, some, or for ever."""
    matching = [item for item in pod["spec"].get("tolerations") or [] if tolerates(item, taint)]
    if not matching:
        return 0.0
    limits = [item["tolerationSeconds"] for item in matching if item.get("tolerationSeconds") is not None]
    if not limits:
        return float("inf")
    return float(min(limits)) - (seconds_since(taint["timeAdded"]) if taint.get("timeAdded") else 0)
