"""The loop that manages the flow table, and its metrics. What a sweep does is in fast.datapath.node.flow_table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from prometheus_client import Counter, Gauge

from fast.datapath.node.flow_table import FlowSweep
from fast.errors import FastError

log = structlog.get_logger()

#: Closed flows stay for ten seconds, so a pod's limit follows its connections within this time more.
INTERVAL_SECONDS = 5.0

_ENTRIES = Gauge("fast_flow_entries", "Flows in the flow table.")
_CAPACITY = Gauge("fast_flow_capacity", "Flows that fit into the flow table.")
_REFUSED = Gauge(
    "fast_flow_refused", "Flows that pods of this node were refused: over their limit, or no room."
)
_EVICTED = Counter("fast_flow_evictions", "Flows deleted before they expired, as the table was nearly full.")
_SEEDED = Counter("fast_flow_seeded", "Flows added to the table from the kernel's conntrack.")


class FlowKeeper:
    """Sweeps for ever.

    Args:
        up: Set once the datapath is up.
        sweep: Sweeps once. Blocking.
    """

    def __init__(self, up: asyncio.Event, sweep: Callable[[], FlowSweep]) -> None:
        self._up = up
        self._sweep = sweep

    async def run(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Sweep for ever; a failure is logged, and the next sweep tries again."""
        await self._up.wait()
        while True:
            try:
                _report(await asyncio.to_thread(self._sweep))
            except (FastError, OSError) as error:
                log.warning("the flow table could not be swept", error=str(error))
            await asyncio.sleep(interval_seconds)


def _report(found: FlowSweep) -> None:
    _ENTRIES.set(found.present)
    _CAPACITY.set(found.capacity)
    _REFUSED.set(found.refused)
    _EVICTED.inc(found.evicted)
    _SEEDED.inc(found.seeded)
    if found.evicted:
        log.warning(
            "the flow table was nearly full; flows of the pods that have most were evicted",
            evicted=found.evicted,
            capacity=found.capacity,
        )
