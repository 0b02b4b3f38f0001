"""Live reads of what decides whether an address still has an owner. Never from a cache; no decisions.

An object that is there but cannot be read is there all the same: it never counts as gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fast.api.core import Node, Pod, StatefulSet, StatefulSetSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import IPSES, NODES, PODS, STATEFULSETS
from fast.errors import NotFound
from fast.kube import KubeClient

#: Of a StatefulSet that cannot be read, every ordinal may be wanted.
_ALL_ORDINALS = (1 << 31) - 1


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

    async def pools(self) -> Mapping[str, ObjectMeta]:
        """Every pool's metadata, by name."""


class KubeCluster:
    """The reader on a Kubernetes API server."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def nodes(self) -> Mapping[str, Node]:
        """See :class:`ClusterReader`."""
        listed = await self._client.list(NODES)
        nodes = [*listed.items, *(Node(item.metadata) for item in listed.undecodable.values())]
        return {node.metadata.name: node for node in nodes}

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
        listed = await self._client.list(STATEFULSETS)
        unread = StatefulSetSpec(replicas=_ALL_ORDINALS)
        sets = [*listed.items, *(StatefulSet(item.metadata, unread) for item in listed.undecodable.values())]
        return {found.metadata.uid: found for found in sets}

    async def pools(self) -> Mapping[str, ObjectMeta]:
        """See :class:`ClusterReader`."""
        listed = await self._client.list(IPSES)
        found = [item.metadata for item in listed.items]
        found += [item.metadata for item in listed.undecodable.values()]
        return {metadata.name: metadata for metadata in found}
