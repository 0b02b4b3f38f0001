"""Pods and namespaces for address management: from the node's watch, or by a live read if that is in doubt."""

from __future__ import annotations

from fast.api.core import Namespace, Pod
from fast.api.ipendpoint import PodRef
from fast.api.resources import NAMESPACES, PODS
from fast.errors import NotFound
from fast.kube import Informer, KubeClient
from fast.net import IPAddress


class NodePods:
    """A ``fast.ipam.PodView`` over the informer of this node's pods.

    The watch is some milliseconds behind the server. What it shows is good enough if the runtime's UID agrees with it.
    Everything else is read live, once the caller doubts it.
    """

    def __init__(self, client: KubeClient, pods: Informer[Pod], namespaces: Informer[Namespace]) -> None:
        self._client = client
        self._pods = pods
        self._namespaces = namespaces
        self._doubted: set[str] = set()

    def doubt(self, ref: PodRef) -> None:
        """Read this pod live the next time it is asked for."""
        self._doubted.add(f"{ref.namespace}/{ref.name}")

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """Return the pod of that name, or None.

        Raises:
            KubeError: The API server could not be asked.
        """
        key = f"{namespace}/{name}"
        cached = self._pods.cache.get(key)
        if cached is not None and key not in self._doubted:
            return cached
        self._doubted.discard(key)
        try:
            return await self._client.get(PODS, name, namespace)
        except NotFound:
            return None

    def pod_with(self, address: IPAddress) -> Pod | None:
        """The pod of this node whose status reports the address, or None, as far as the watch showed."""
        text = str(address)
        for pod in self._pods.cache.values():
            if text == pod.status.pod_ip or any(text == item.ip for item in pod.status.pod_ips):
                return pod
        return None

    async def namespace(self, name: str) -> Namespace | None:
        """Return the namespace, or None.

        Raises:
            KubeError: The API server could not be asked.
        """
        cached = self._namespaces.cache.get(name)
        if cached is not None:
            return cached
        try:
            return await self._client.get(NAMESPACES, name)
        except NotFound:
            return None
