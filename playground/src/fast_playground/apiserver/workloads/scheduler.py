"""The scheduler: gives each pending pod a node, the same one every time.

It knows node selectors and taints, but no resources, volumes, priorities or affinities. Among the nodes that a pod may
run on, it takes the one with the fewest pods of the same owner, then the fewest pods at all, then the first by name: of
two replicas one lands on n1 and one on n2, the first on n1.
"""

from __future__ import annotations

from collections import Counter

from fast_playground.apiserver.api import ApiError, Object, Options
from fast_playground.apiserver.kinds import NODES, PODS
from fast_playground.apiserver.metadata import timestamp
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads import owned_pods
from fast_playground.apiserver.workloads.events import record_event
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, controller_of

SCHEDULER_NAME = "default-scheduler"
_MANAGER = Options(manager="kube-scheduler", field_validation="Ignore")
_PASS = Key("", "every pending pod")


class Scheduler(ControlLoop[Key]):
    """Binds pending pods, oldest first.

    Args:
        api: Where they are.
    """

    def __init__(self, api: Verbs) -> None:
        sources = {PODS: lambda pod: [_PASS] if is_pending(pod) else [], NODES: lambda _: [_PASS]}
        super().__init__("scheduler", api, sources)

    async def reconcile(self, _: Key) -> float | None:
        """Bind every pending pod that fits a node; say on the others why none fits."""
        every = await self._api.list(PODS)
        pending = sorted(filter(is_pending, every), key=_age)
        if not pending:
            return None
        nodes = await self._api.list(NODES)
        total: Counter[str] = Counter()
        by_owner: Counter[tuple[str, str]] = Counter()
        for pod in filter(owned_pods.is_active, every):
            if node := pod["spec"].get("nodeName"):
                total[node] += 1
                by_owner[_owner(pod), node] += 1
        for pod in pending:
            obstacles = {node["metadata"]["name"]: find_obstacle(pod, node) for node in nodes}
            feasible = [name for name, obstacle in obstacles.items() if obstacle is None]
            if not feasible:
                await self._refuse(pod, Counter(filter(None, obstacles.values())))
                continue
            owner = _owner(pod)
            chosen = min(feasible, key=lambda name: (by_owner[owner, name], total[name], name))
            if await self._bind(pod, chosen):
                total[chosen] += 1
                by_owner[owner, chosen] += 1
        return None

    async def _bind(self, pod: Object, node: str) -> bool:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        identity = {"name": name, "namespace": namespace, "uid": metadata["uid"]}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": identity, "target": target}
        try:
            await self._api.bind(name, namespace, binding, _MANAGER)
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise
            return False  # it is gone, or somebody else bound it
        await record_event(
            self._api, pod, "Pod", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}"
        )
        return True

    async def _refuse(self, pod: Object, obstacles: Counter[str]) -> None:
        """Record on a pod why no node takes it, once for each new reason."""
        nodes = sum(obstacles.values())
        reasons = ", ".join(sorted(f"{count} {obstacle}" for obstacle, count in obstacles.items()))
        message = (
            f"0/{nodes} nodes are available: {reasons}." if nodes else "no nodes available to schedule pods"
        )
        conditions = (pod.get("status") or {}).get("conditions") or []
        if any(item["type"] == "PodScheduled" and item.get("message") == message for item in conditions):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": timestamp(),
        }
        metadata = pod["metadata"]
        await self._api.patch(
            PODS,
            metadata["name"],
            {"status": {"conditions": [condition]}},
            metadata["namespace"],
            kind="strategic",
            subresource="status",
            options=_MANAGER,
        )
        await record_event(self._api, pod, "Pod", "FailedScheduling", message, warning=True)


def is_pending(pod: Object) -> bool:
    """Whether a pod waits for this scheduler."""
    spec = pod["spec"]
    if spec.get("schedulerName", SCHEDULER_NAME) != SCHEDULER_NAME or spec.get("schedulingGates"):
        return False
    return not spec.get("nodeName") and owned_pods.is_active(pod)


def find_obstacle(pod: Object, node: Object) -> str | None:
    """Find why a pod cannot run on a node, in the scheduler's words; None if it can."""
    spec, labels = node.get("spec") or {}, node["metadata"].get("labels") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    if not is_ready(node):
        return "node(s) were not ready"
    for taint in spec.get("taints") or []:
        tolerations = pod["spec"].get("tolerations") or []
        if taint["effect"] != "PreferNoSchedule" and not any(tolerates(item, taint) for item in tolerations):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    if (pod["spec"].get("affinity") or {}).get("nodeAffinity"):
        return "node(s) cannot take pods with node affinity, which this scheduler lacks: use nodeSelector"
    return None


def is_ready(node: Object) -> bool:
    """Whether a node says that it is Ready."""
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration tolerates that taint."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same = toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")
    return bool(same)


def _owner(pod: Object) -> str:
    """Give the UID of the pod's controller, or its own if it has none."""
    owner = controller_of(pod)
    return str(owner["uid"] if owner else pod["metadata"]["uid"])


def _age(pod: Object) -> tuple[str, int]:
    metadata = pod["metadata"]
    return metadata["creationTimestamp"], int(metadata["resourceVersion"])
