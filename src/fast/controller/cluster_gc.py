"""The controller's garbage collection: sweeps on its own clock, and soon after something that may have freed addresses.

``fast.ipam.rules`` decides what is freed, ``fast.ipam.release.controller_sweep`` in which order things are read.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import structlog

from fast.api.core import Node
from fast.api.ipendpoint import IpEndpoint
from fast.errors import FastError
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.release.circuit_breaker import CircuitBreaker
from fast.ipam.release.controller_sweep import Finding, SweepPlan, carry_out, plan_sweep
from fast.ipam.release.retention import DroppedFamilies, beyond_limits
from fast.ipam.rules.record_states import is_retained
from fast.ipam.store.live_reads import ClusterReader
from fast.ipam.store.record_store import EndpointChange, PoolChange, Store
from fast.kube import Change, EventRecorder, WorkQueue

log = structlog.get_logger()

#: After a node is gone or fenced, its pods' objects are deleted within this time as a rule; and what frees addresses
#: comes in waves (a drained node, a StatefulSet scaled down), which one sweep shall see whole.
_SOON_SECONDS = 2.0


class ClusterCollector:
    """Frees addresses that no node answers for any more.

    Args:
        store: Records, and where they are written.
        cluster: Live reads.
        events: Tells users what was freed and what was not.
        queue: Pools whose status says something of it.
        metrics: Counts.
        interval_seconds: Between sweeps.
    """

    def __init__(
        self,
        store: Store,
        cluster: ClusterReader,
        events: EventRecorder,
        queue: WorkQueue[str],
        metrics: IpamMetrics,
        interval_seconds: float,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._events = events
        self._queue = queue
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._wake = asyncio.Event()
        self._breaker = CircuitBreaker()
        self._dropped = DroppedFamilies()
        self._held: dict[str, str] = {}

    def stopped(self, pool: str) -> str:
        """Say why the breaker holds addresses of the pool back; empty if it holds none."""
        return self._held.get(pool, "")

    def node_changed(self, change: Change[Node]) -> None:
        """Sweep soon where a node is gone or was fenced (an informer's handler)."""
        if change.new is None or (
            change.new.out_of_service and not (change.old and change.old.out_of_service)
        ):
            self._wake.set()

    def record_changed(self, change: EndpointChange) -> None:
        """Sweep soon where an address became retained: its StatefulSet may be gone or scaled down (a subscriber)."""
        if change.new is not None and is_retained(change.new):
            self._wake.set()

    def pool_changed(self, change: PoolChange) -> None:
        """Sweep soon where a pool is told to go: the addresses that it retains go, too (a subscriber)."""
        told_before = change.old is not None and change.old.metadata.deletion_timestamp is not None
        if change.new is None or (change.new.metadata.deletion_timestamp is not None and not told_before):
            self._wake.set()

    async def run(self) -> None:
        """Sweep at once and then for ever; a sweep that fails is tried again by the next.

        Cancelled when leadership is lost: from then on the breaker is the next leader's.
        """
        try:
            await self._sweep_for_ever()
        finally:
            self._held, self._breaker = {}, CircuitBreaker()
            self._metrics.gc_stopped.set(0)

    async def _sweep_for_ever(self) -> None:
        while True:
            began, wait = time.monotonic(), self._interval_seconds
            try:
                plan = await self.sweep()
                if plan is not None and plan.look_again_seconds is not None:
                    wait = min(wait, plan.look_again_seconds + _SOON_SECONDS)
            except FastError as error:
                log.warning("garbage collection failed", error=str(error))
            try:
                async with asyncio.timeout(max(0.0, began + wait - time.monotonic())):
                    await self._wake.wait()
                await asyncio.sleep(_SOON_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()

    async def sweep(self) -> SweepPlan:
        """Look at every record once and free what the rules say, but for what the breaker holds back.

        Raises:
            KubeError: The API server refused or is away; what was freed before stays freed.
        """
        records = list(self._store.endpoints.values())
        limits = {
            name: pool.spec.retention
            for name, pool in self._store.pools.items()
            if pool.spec.retention is not None
        }
        more = self._dropped.judge(records) | beyond_limits(records, limits)
        plan = await plan_sweep(records, self._cluster, self._breaker, more)
        self._note_held(plan)
        outcome = await carry_out(plan, self._store, self._cluster, self._freed)
        for record, error in outcome.refused:
            self._tell(record, "Warning", "ReleaseRefused", f"{record.metadata.name}: {error}")
        return plan

    def _freed(self, finding: Finding) -> None:
        record, decision = finding.record, finding.decision
        self._metrics.released.labels(record.spec.pool, decision.rule).inc()
        pod = record.spec.pod
        text = f"{record.metadata.name} of pod {pod.namespace}/{pod.name}: {decision.evidence}"
        self._tell(record, "Normal", "AddressReleased", text)

    def _tell(self, record: IpEndpoint, kind: Literal["Normal", "Warning"], reason: str, text: str) -> None:
        pool = self._store.pools.get(record.spec.pool)
        if pool is not None:
            self._events.event(pool, kind, reason, text)

    def _note_held(self, plan: SweepPlan) -> None:
        """Raise or clear the condition, the metric and the event of the breaker."""
        before = self._held
        self._held = {finding.record.spec.pool: finding.decision.evidence for finding in plan.held}
        self._metrics.gc_stopped.set(1 if plan.held else 0)
        for text in sorted(set(self._held.values())):
            log.error("garbage collection holds addresses back", reason=text)
        for name in self._held.keys() - before.keys():
            pool = self._store.pools.get(name)
            if pool is not None:
                self._events.event(pool, "Warning", "GCStopped", self._held[name])
        for name in self._held.keys() | before.keys():
            self._queue.add(name)
