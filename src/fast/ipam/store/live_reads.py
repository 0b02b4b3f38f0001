"""Live reads of what decides whether an address still has an owner. Never from a cache; no decisions.

An object that is there but cannot be read is there all the same: it never counts as gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from fast.api.core import Node, Pod, StatefulSet, StatefulSetSpec
from fast.api.fastnode import lease_name
from fast.api.meta import ObjectMeta
from fast.api.resources import IPSES, LEASES, NODES, PODS, STATEFULSETS
from fast.api.timestamps import seconds_since
from fast.errors import Forbidden, NotFound
from fast.kube import KubeClient

#: Where Fast's components keep their Leases, unless they are told otherwise.
NAMESPACE = "fast-system"
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

    def silent_seconds(self, node: str) -> float:
        """For how many seconds nobody was seen to renew the heartbeat Lease of the node."""

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """The Pod of that name, or None."""

    async def stateful_sets(self) -> Mapping[str, StatefulSet]:
        """Every StatefulSet by UID."""

    async def pools(self) -> Mapping[str, ObjectMeta]:
        """Every pool's metadata, by name."""


class KubeCluster:
    """The reader on a Kubernetes API server.

    Args:
        client: The cluster.
        silent_seconds: Knows the nodes' heartbeats, by node.
    """

    def __init__(self, client: KubeClient, silent_seconds: Callable[[str], float]) -> None:
        self._client = client
        self._silent_seconds = silent_seconds

    def silent_seconds(self, node: str) -> float:
        """See :class:`ClusterReader`."""
        return self._silent_seconds(node)

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


async def one_look(client: KubeClient, namespace: str, unknown_seconds: float = 0.0) -> KubeCluster:
    """Make a reader for one look, which cannot watch heartbeats: it goes by the times written in the Leases.

    Args:
        client: The cluster.
        namespace: Where the Leases live.
        unknown_seconds: What counts as each node's silence if this account may not read the Leases.

    Raises:
        KubeError: The Leases cannot be listed.
    """
    try:
        leases = (await client.list(LEASES, namespace)).items
    except Forbidden:
        return KubeCluster(client, lambda node: unknown_seconds)
    silent = {item.metadata.name: seconds_since(item.spec.renew_time) for item in leases}
    return KubeCluster(client, lambda node: silent.get(lease_name(node), math.inf))
