"""Live reads of what decides whether an address still has an owner. Never from a cache; no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fast.api.core import Node, Pod, StatefulSet
from fast.api.resources import NODES, PODS, STATEFULSETS
from fast.errors import NotFound
from fast.kube import KubeClient


class ClusterReader(Protocol):
    """What the controller's garbage collection asks; every answer is the API server's, of this moment.

    Every call may raise a :class:`fast.errors.KubeError`.
    """

    async def nodes(self) -> Mapping[str, Node]:
        """Every Node by name."""

    async def node(self, name: str) -> Node | None:
        """The Node of that name, or None."""

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """The Pod of that name, or None."""

    async def stateful_sets(self) -> Mapping[str, StatefulSet]:
        """Every StatefulSet by UID."""


class KubeCluster:
    """The reader on a Kubernetes API server."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def nodes(self) -> Mapping[str, Node]:
        """See :class:`ClusterReader`."""
        return {node.metadata.name: node for node in (await self._client.list(NODES)).items}

    async def node(self, name: str) -> Node | None:
        """See :class:`ClusterReader`."""
        try:
            return await self._client.get(NODES, name)
        except NotFound:
            return None

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """See :class:`ClusterReader`."""
        try:
            return await self._client.get(PODS, name, namespace)
        except NotFound:
            return None

    async def stateful_sets(self) -> Mapping[str, StatefulSet]:
        """See :class:`ClusterReader`."""
        return {found.metadata.uid: found for found in (await self._client.list(STATEFULSETS)).items}
