"""The agent's audit: compares records with this node's kernel and exports ``fast_ipam_drift{kind}``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from fast.agent.config.interval import Interval
from fast.api.fastnode import FastNode
from fast.api.ipendpoint import IpEndpoint
from fast.errors import FastError
from fast.ipam import IpamMetrics
from fast.ipam.explain.drift import Drift, DriftKind, audit_node, lasting
from fast.ipam.store.snapshot import underlays_of
from fast.net.node_state import NodeState

log = structlog.get_logger()


class Auditor:
    """Audits this node.

    Args:
        node_name: This node.
        records: Gives every record as seen now.
        nodes: Gives every FastNode as seen now.
        read_state: Reads the kernel. Blocking.
        metrics: Has the gauge.
        look_again_seconds: Between the two looks of an audit: by then, an ADD or DEL in progress has ended.
    """

    def __init__(
        self,
        node_name: str,
        records: Callable[[], Iterable[IpEndpoint]],
        nodes: Callable[[], Iterable[FastNode]],
        read_state: Callable[[], NodeState],
        metrics: IpamMetrics,
        *,
        look_again_seconds: float = 3.0,
    ) -> None:
        self._node_name = node_name
        self._records = records
        self._nodes = nodes
        self._read_state = read_state
        self._metrics = metrics
        self._look_again_seconds = look_again_seconds

    async def run(self, interval: Interval) -> None:
        """Audit for ever. If the kernel cannot be asked, the gauge stays as it was."""
        while True:
            try:
                await self.audit()
            except FastError as error:
                log.warning("audit failed", error=str(error))
            await interval.wait()

    async def audit(self) -> list[Drift]:
        """Look, look again if something differs, and set the gauge to what lasted.

        Raises:
            DatapathError: Devices or maps cannot be read.
        """
        found = await self._look()
        if found:
            await asyncio.sleep(self._look_again_seconds)
            found = lasting(found, await self._look())
        counts = Counter(drift.kind for drift in found)
        for kind in DriftKind:
            self._metrics.drift.labels(kind.value).set(counts[kind])
        for drift in found:
            log.warning("drift", kind=drift.kind.value, address=drift.address, what=drift.text)
        return found

    async def _look(self) -> list[Drift]:
        state = await asyncio.to_thread(self._read_state)
        records, underlays = list(self._records()), underlays_of(self._nodes())
        return await asyncio.to_thread(partial(audit_node, records, self._node_name, state, underlays))
