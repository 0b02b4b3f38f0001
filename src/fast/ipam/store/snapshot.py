"""The cluster's records, pools and pods as of one moment, read live for who explains or audits. No decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fast.api.core import Pod
from fast.api.fastnode import FastNode
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips
from fast.api.resources import FASTNODES, IPENDPOINTS, IPSES, PODS
from fast.ipam.store.record_store import EndpointChange, PoolChange
from fast.kube import KubeClient


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Records by name, pools by name, pods by namespace and name (read last); each node's underlay address."""

    records: Mapping[str, IpEndpoint]
    pools: Mapping[str, Ips]
    pods: Mapping[str, Pod]
    underlays: Mapping[str, str] = field(default_factory=dict)


class SnapshotStore:
    """A snapshot as the view of a :class:`fast.ipam.store.record_store.ReadStore`: nothing changes any more."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.endpoints = snapshot.records
        self.pools = snapshot.pools

    def subscribe(
        self, endpoint: Callable[[EndpointChange], None], pool: Callable[[PoolChange], None]
    ) -> None:
        """Do nothing: there will be no change."""


async def read_snapshot(client: KubeClient, *, pods: bool = True) -> Snapshot:
    """Read them, records first.

    Args:
        client: The cluster.
        pods: Whether pods are wanted; without, there are none in it.

    Raises:
        KubeError: The API server refused or is away.
    """
    records = (await client.list(IPENDPOINTS)).items
    pools = (await client.list(IPSES)).items
    nodes = (await client.list(FASTNODES)).items
    found = (await client.list(PODS)).items if pods else []
    return Snapshot(
        records={item.metadata.name: item for item in records},
        pools={item.metadata.name: item for item in pools},
        pods={item.metadata.key: item for item in found},
        underlays=underlays_of(nodes),
    )


def underlays_of(nodes: Iterable[FastNode]) -> dict[str, str]:
    """Give the address that others tunnel to, by node."""
    return {node.metadata.name: str(found) for node in nodes if (found := node.find_underlay()) is not None}
