"""A server without HTTP: the real store and verbs, the real controllers, and a kubelet that only writes statuses."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from fakes.kubelet import StatusKubelet
from fast_playground.apiserver.kinds import DEPLOYMENTS, NAMESPACES, PODS, REPLICA_SETS, STATEFUL_SETS
from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.storage import Store
from fast_playground.apiserver.workloads import run_workloads


class Cluster:
    """What a test does to a cluster, and waits for."""

    def __init__(self, api: Verbs) -> None:
        self.api = api
        self.kubelet = StatusKubelet(api)

    async def create(self, kind: str, name: str, *, labels: dict | None = None, **spec) -> dict:
        gvr = {"Deployment": DEPLOYMENTS, "ReplicaSet": REPLICA_SETS, "StatefulSet": STATEFUL_SETS}[kind]
        labels = labels or {"app": name}
        pod = {"containers": [{"name": "c", "image": "busybox"}], "terminationGracePeriodSeconds": 1}
        full = {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        obj = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": full | spec}
        return await self.api.create(gvr, obj, "default")

    async def pods(self, namespace: str | None = "default") -> list[dict]:
        return await self.api.list(PODS, namespace)

    async def pod_names(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in await self.pods())

    async def until(self, condition, what: str, seconds: float = 20) -> None:
        """Wait until an async condition holds; looks after every change of the store."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await condition():
            assert asyncio.get_running_loop().time() < deadline, f"not seen in {seconds} s: {what}"
            await asyncio.sleep(0.01)

    async def until_status(self, gvr, name: str, **wanted) -> dict:
        """Wait until an object's status has these values (and its controller saw the newest generation)."""
        last: dict = {}

        async def holds() -> bool:
            nonlocal last
            last = await self.api.get(gvr, name, "default")
            status = last["status"]
            seen = status.get("observedGeneration", 0) == last["metadata"]["generation"]
            return seen and all(status.get(key, 0) == value for key, value in wanted.items())

        try:
            await self.until(holds, f"{name} {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; status is {last['status']}") from None
        return last


@pytest.fixture
async def cluster(tmp_path, request):
    """Two ready nodes, the namespace default, every controller, and the kubelet; parameter: grace seconds of nodes."""
    grace = getattr(request, "param", 40.0)
    store = Store(tmp_path / "db")
    registry = Registry()
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        tasks = [asyncio.create_task(store.run())]
        verbs = Verbs(store, registry)
        await verbs.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
        )
        made = Cluster(verbs)
        for node in ("n1", "n2"):
            await made.kubelet.add_node(node)
        tasks.append(asyncio.create_task(run_workloads(verbs, registry, node_grace_seconds=grace)))
        tasks.append(asyncio.create_task(made.kubelet.run()))
        yield made
        failed = [task.exception() for task in tasks if task.done()]
        for task in reversed(tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not failed
