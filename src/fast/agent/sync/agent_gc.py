"""The agent's garbage collection: what to hand to fast.ipam's, when, and what the runtime's own GC takes down.

A sandbox is there as long as its veth is: the kernel removes it with the sandbox's network namespace.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from prometheus_client import Counter

from fast.agent.cni.conflist import NETWORK
from fast.agent.config.interval import Interval
from fast.datapath.pod.identity import Endpoint
from fast.errors import FastError
from fast.ipam import AttachmentKey, Ipam
from fast.ipam.rules.record_states import holder_of

log = structlog.get_logger()

_FREED = Counter(
    "fast_agent_gc_freed", "Addresses freed by the agent's garbage collection, by rule.", ["rule"]
)
_FAILURES = Counter(
    "fast_agent_gc_failures",
    "Sweeps of the agent's garbage collection, and releases in them, that failed.",
)


class Sandboxes(Protocol):
    """The node's attachments in the kernel. Blocking."""

    def endpoints(self) -> list[Endpoint]:
        """List them."""

    def detach(self, container_id: str, ifname: str) -> bool:
        """Unwire one."""


class AgentCollector:
    """Sweeps this node's records, on its own clock and on CNI GC (``fast.cni.dependencies.Collector``)."""

    def __init__(self, ipam: Ipam, sandboxes: Sandboxes) -> None:
        self._ipam = ipam
        self._sandboxes = sandboxes
        self._locks = ipam.locks

    async def run(self, interval: Interval) -> None:
        """Sweep at once and then for ever; what fails is tried again by the next sweep."""
        while True:
            try:
                await self.sweep()
            except FastError as error:
                _FAILURES.inc()
                log.warning("garbage collection failed", error=str(error))
            await interval.wait()

    async def sweep(self) -> None:
        """Free every address of this node whose sandbox is gone; ``agent_gc_rules.on_agent_sweep`` has the rule.

        Raises:
            DatapathError: The kernel cannot be asked; nothing was freed.
        """
        swept = await self._ipam.gc(self._there)
        for _, decision in swept.freed:
            _FREED.labels(decision.rule).inc()
        _FAILURES.inc(len(swept.refused))

    async def collect(self, network: str, valid: frozenset[AttachmentKey]) -> None:
        """Take down what the runtime does not list. By the specification it runs no ADD or DEL meanwhile.

        Args:
            network: Whose attachments are listed. All of a node's are taken for the installed network's, so the list
                of another one, which lacks these, takes nothing down.
            valid: The list.

        Raises:
            DatapathError, KubeError: The first of what could not be taken down; the others were. Calling again helps.
        """
        if network != NETWORK:
            log.warning("GC of another network ignored", network=network, installed=NETWORK)
            return
        failures: list[FastError] = []
        known = {holder_of(record) for record in self._ipam.ledger.mine()}
        known |= await self._there()
        for key in sorted(known - valid - self._locks.in_flight):
            try:
                async with self._locks.hold(key):
                    await asyncio.to_thread(self._sandboxes.detach, *key)
                    released = await self._ipam.release(*key)
            except FastError as error:
                log.warning("attachment not taken down", containerid=key[0], ifname=key[1], error=str(error))
                failures.append(error)
                continue
            _FREED.labels("cni-gc").inc(len(released))
            log.info("attachment unknown to the runtime taken down", containerid=key[0], ifname=key[1])
        if failures:
            raise failures[0]

    async def _there(self) -> set[AttachmentKey]:
        endpoints = await asyncio.to_thread(self._sandboxes.endpoints)
        return {(endpoint.container_id, endpoint.ifname) for endpoint in endpoints}
