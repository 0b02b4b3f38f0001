"""A kubelet for every node at once that runs nothing: it only writes the statuses that a real one would."""

from contextlib import suppress

from fast_playground.apiserver.api import ApiError
from fast_playground.apiserver.kinds import NODES, PODS
from fast_playground.apiserver.resource_verbs import Verbs

READY = {"type": "Ready", "status": "True"}


class StatusKubelet:
    """Makes bound pods Running and Ready, and ends those that are deleted.

    Args:
        api: Where the pods are.
    """

    def __init__(self, api: Verbs) -> None:
        self._api = api
        self.holds: set[str] = set()  # names of pods that shall not become ready
        self.keeps: set[str] = set()  # names of pods that end only when the test says so

    async def add_node(self, name: str) -> None:
        """Register a node that is ready."""
        await self._api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        await self._api.patch(NODES, name, {"status": {"conditions": [READY]}}, subresource="status")

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        async for event, _, pod in self._api.subscribe(PODS):
            meta = pod["metadata"]
            if event == "DELETED" or not pod["spec"].get("nodeName"):
                continue
            with suppress(ApiError):  # it went or changed meanwhile
                if meta.get("deletionTimestamp"):
                    if meta["name"] not in self.keeps:
                        await self._api.delete(PODS, meta["name"], meta["namespace"], grace_period_seconds=0)
                elif pod["status"]["phase"] == "Pending" and meta["name"] not in self.holds:
                    await self.make_ready(meta["name"], meta["namespace"])

    async def make_ready(self, name: str, namespace: str = "default") -> None:
        """Say that a pod runs and is ready, and has been for long."""
        status = {"phase": "Running", "conditions": [READY | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        patch = {"status": status}
        await self._api.patch(PODS, name, patch, namespace, kind="strategic", subresource="status")


class Everything:
    """A set that holds every name."""

    def __contains__(self, _: object) -> bool:
        return True
