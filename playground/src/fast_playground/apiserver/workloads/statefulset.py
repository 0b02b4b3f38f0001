"""The StatefulSet controller: pods with ordinals, started in order, stopped and replaced from the highest.

Without ControllerRevision objects: a pod that is created again below a rollout's partition gets the newest template.
"""

from __future__ import annotations

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import PODS, STATEFUL_SETS
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads import owned_pods
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, controller_key, find, own_key

_KIND = "StatefulSet"
_REVISION = "controller-revision-hash"


class StatefulSetController(ControlLoop[Key]):
    """Reconciles StatefulSets.

    Args:
        api: Where they are.
    """

    def __init__(self, api: Verbs) -> None:
        sources = {STATEFUL_SETS: own_key, PODS: controller_key(_KIND)}
        super().__init__("statefulset", api, sources)

    async def reconcile(self, key: Key) -> float | None:
        """Take one StatefulSet a step further, and write its status."""
        stateful_set = await find(self._api, STATEFUL_SETS, key)
        if stateful_set is None:
            return None
        if not owned_pods.is_terminating(stateful_set):
            by_ordinal = await self._pods(stateful_set)
            if await self._start(stateful_set, by_ordinal) and await self._end(stateful_set, by_ordinal):
                await self._replace(stateful_set, by_ordinal)
        return await self._write_status(stateful_set)

    async def _pods(self, stateful_set: Object) -> dict[int, Object]:
        mine = await owned_pods.owned(self._api, PODS, stateful_set)
        found = {_ordinal(pod): pod for pod in mine}
        return dict(sorted(found.items()))

    async def _start(self, stateful_set: Object, by_ordinal: dict[int, Object]) -> bool:
        """Create the missing pods, lowest ordinal first; tell whether all are there and (if ordered) available."""
        complete = True
        for ordinal in _wanted(stateful_set):
            pod = by_ordinal.get(ordinal)
            if pod is None:
                await self._create(stateful_set, ordinal)
            elif not owned_pods.is_active(pod):
                if not owned_pods.is_terminating(pod):  # it failed or ended, and its successor needs the name
                    await owned_pods.delete_pod(self._api, stateful_set, _KIND, pod)
            elif _is_parallel(stateful_set) or _is_available(stateful_set, pod):
                continue
            complete = False
            if not _is_parallel(stateful_set):
                return False
        return complete

    async def _create(self, stateful_set: Object, ordinal: int) -> None:
        name = f"{stateful_set['metadata']['name']}-{ordinal}"
        labels = {
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
            _REVISION: _revision(stateful_set),
        }
        spec = {"hostname": name}
        if subdomain := stateful_set["spec"].get("serviceName"):
            spec["subdomain"] = subdomain
        await owned_pods.create_pod(self._api, stateful_set, _KIND, {"name": name, "labels": labels}, spec)

    async def _end(self, stateful_set: Object, by_ordinal: dict[int, Object]) -> bool:
        """Delete surplus pods, highest ordinal first; tell whether none is left."""
        surplus = [ordinal for ordinal in by_ordinal if ordinal not in _wanted(stateful_set)]
        for ordinal in reversed(surplus):
            if not owned_pods.is_terminating(by_ordinal[ordinal]):
                await owned_pods.delete_pod(self._api, stateful_set, _KIND, by_ordinal[ordinal])
            if not _is_parallel(stateful_set):
                break
        return not surplus

    async def _replace(self, stateful_set: Object, by_ordinal: dict[int, Object]) -> None:
        """Delete the highest pod of an earlier template, unless one above it is not available again yet."""
        strategy = stateful_set["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        for ordinal in reversed(_wanted(stateful_set)):
            pod = by_ordinal[ordinal]
            if ordinal < partition:
                return
            if not _is_updated(stateful_set, pod):
                await owned_pods.delete_pod(self._api, stateful_set, _KIND, pod)
                return
            if not _is_available(stateful_set, pod):
                return

    async def _write_status(self, stateful_set: Object) -> float | None:
        before, spec = stateful_set.get("status") or {}, stateful_set["spec"]
        live = list((await self._pods(stateful_set)).values())
        active = [pod for pod in live if owned_pods.is_active(pod)]
        ready, available, wait = owned_pods.counts(active, spec.get("minReadySeconds", 0))
        newest = _revision(stateful_set)
        current = before.get("currentRevision") or newest
        updated = sum(_is_updated(stateful_set, pod) for pod in active)
        if updated == ready == len(live) == len(_wanted(stateful_set)):
            current = newest
        status = {
            "observedGeneration": stateful_set["metadata"]["generation"],
            "replicas": len(live),
            "readyReplicas": ready or None,
            "availableReplicas": available,
            "currentReplicas": sum(pod["metadata"]["labels"].get(_REVISION) == current for pod in active)
            or None,
            "updatedReplicas": updated or None,
            "currentRevision": current,
            "updateRevision": newest,
            "collisionCount": 0,
        }
        await owned_pods.write_status(self._api, STATEFUL_SETS, stateful_set, status)
        return wait


def _wanted(stateful_set: Object) -> range:
    """The ordinals that should have a pod."""
    spec = stateful_set["spec"]
    start = (spec.get("ordinals") or {}).get("start", 0)
    return range(start, start + spec.get("replicas", 1))


def _ordinal(pod: Object) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _is_parallel(stateful_set: Object) -> bool:
    return bool(stateful_set["spec"].get("podManagementPolicy") == "Parallel")


def _is_available(stateful_set: Object, pod: Object) -> bool:
    minimum = stateful_set["spec"].get("minReadySeconds", 0)
    return owned_pods.is_active(pod) and owned_pods.available_in(pod, minimum) == 0


def _revision(stateful_set: Object) -> str:
    return f"{stateful_set['metadata']['name']}-{owned_pods.template_hash(stateful_set['spec']['template'])}"


def _is_updated(stateful_set: Object, pod: Object) -> bool:
    return bool(pod["metadata"]["labels"].get(_REVISION) == _revision(stateful_set))
