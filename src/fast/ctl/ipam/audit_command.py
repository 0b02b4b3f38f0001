"""Reads what ``fast-ctl ipam audit`` compares, twice if something differs. Comparing is in fast.ipam.explain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fast.ipam.explain.drift import Drift, audit_cluster, audit_node, lasting
from fast.ipam.store.snapshot import read_snapshot
from fast.kube import KubeClient
from fast.net.node_state import NodeState


async def look_twice(
    client: KubeClient, node: str, read_state: Callable[[], NodeState | None], again_after_seconds: float
) -> list[tuple[str, Drift]]:
    """Give the drift that two looks found, each with its node's name; empty for what concerns the cluster.

    Args:
        client: The cluster.
        node: The Node whose kernel ``read_state`` reads; empty: the cluster only.
        read_state: Blocking; None where the node has no maps of Fast.
        again_after_seconds: Between the looks.

    Raises:
        KubeError: The API server refused or is away.
        DatapathError: The kernel cannot be asked.
    """
    of_cluster, of_node = await _look(client, node, read_state)
    if of_cluster or of_node:
        await asyncio.sleep(again_after_seconds)
        second_of_cluster, second_of_node = await _look(client, node, read_state)
        of_cluster = lasting(of_cluster, second_of_cluster)
        of_node = lasting(of_node, second_of_node)
    return [("", drift) for drift in of_cluster] + [(node, drift) for drift in of_node]


async def _look(
    client: KubeClient, node: str, read_state: Callable[[], NodeState | None]
) -> tuple[list[Drift], list[Drift]]:
    snapshot = await read_snapshot(client)
    records = snapshot.records.values()
    of_cluster = audit_cluster(records, snapshot.pools.values(), snapshot.pods.values())
    seen = await asyncio.to_thread(read_state) if node else None
    if seen is None:
        return of_cluster, []
    return of_cluster, audit_node(records, node, seen, snapshot.underlays)
