"""The agent's garbage collection: calls ``fast.ipam``'s, and serves the runtime's own GC.

A sandbox exists while its veth does: the kernel removes the veth with the sandbox's network namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog
from prometheus_client import Counter

from fast.agent.cni.conflist import NETWORK
from fast.agent.config.interval import Interval
from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.datapath.pod.identity import Endpoint
from fast.errors import FastError
from fast.ipam import AttachmentKey, Ipam
from fast.ipam.rules.record_states import holder_of
from fast.net import IPAddress

log = structlog.get_logger()

_FREED = Counter(
    "fast_agent_gc_freed", "Addresses freed by the agent's garbage collection, by rule.", ["rule"]
)
_FAILURES = Counter(
    "fast_agent_gc_failures",
    "Sweeps of the agent's garbage collection, and releases in them, that failed.",
)


_RESTORED = Counter(
    "fast_agent_records_restored", "Records of live sandboxes that were lost, and that the agent wrote again."
)
_BETWEEN_RESTORES_SECONDS = 0.2
_YIELDS = (
    "is also recorded for another pod: the record of this one was lost, and the address was given again. Delete this "
    "pod, so that its next one gets another address."
)
_STAYS = (
    "is also on a pod of another node whose record was lost: that pod is the one to delete. Until then connections "
    "may reach either."
)
#: Records a Warning event on a pod: the pod, the reason, the text.
Tell = Callable[[PodRef, str, str], None]


class Sandboxes(Protocol):
    """The node's attachments in the kernel. Blocking."""

    def endpoints(self) -> list[Endpoint]:
        """List them."""

    def detach(self, container_id: str, ifname: str) -> bool:
        """Unwire one."""


class AgentCollector:
    """Sweeps this node's records, on its own clock and on CNI GC (``fast.cni.dependencies.Collector``)."""

    def __init__(self, ipam: Ipam, sandboxes: Sandboxes, tell: Tell = lambda pod, reason, text: None) -> None:
        """Prepare.

        Args:
            ipam: The node's address management.
            sandboxes: The node's kernel.
            tell: Records a Warning event on a pod.
        """
        self._ipam = ipam
        self._sandboxes = sandboxes
        self._tell = tell
        self._locks = ipam.locks
        self._lost = asyncio.Event()
        #: Whether sandboxes and records were compared at least once: before that no address may be given.
        self.compared = False

    def record_lost(self, record: IpEndpoint) -> None:
        """Compare sandboxes and records at once (for :meth:`fast.ipam.Ipam.on_lost`)."""
        self._lost.set()

    async def run(self, interval: Interval) -> None:
        """Sweep at once and then for ever; what fails is tried again by the next sweep."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._restore_when_lost())
            while True:
                try:
                    await self.sweep()
                except FastError as error:
                    _FAILURES.inc()
                    log.warning("garbage collection failed", error=str(error))
                await interval.wait()

    async def _restore_when_lost(self) -> None:
        """Restore records soon after they were lost; many that are lost at once (a restored etcd) are one round."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self.restore()
            except FastError as error:
                log.warning("records not restored", error=str(error))
            await asyncio.sleep(_BETWEEN_RESTORES_SECONDS)

    async def restore(self) -> None:
        """Give live sandboxes their lost records back, and tell the pods whose address another one has.

        Raises:
            DatapathError: The kernel cannot be asked.
        """
        restored = await self._ipam.restore(self._live)
        self.compared = True
        _RESTORED.inc(len(restored.records))
        _FAILURES.inc(len(restored.refused))
        for item in restored.contested:
            self._tell(item.pod, "AddressContested", f"{item.address} {_YIELDS}")
            self._tell(item.record.spec.pod, "AddressContested", f"{item.address} {_STAYS}")

    async def sweep(self) -> None:
        """Restore lost records, then free the node's addresses whose sandbox is gone.

        Raises:
            DatapathError: The kernel cannot be asked; nothing was freed.
        """
        await self.restore()
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
        return set(await self._live())

    async def _live(self) -> dict[AttachmentKey, tuple[IPAddress, ...]]:
        endpoints = await asyncio.to_thread(self._sandboxes.endpoints)
        return {(endpoint.container_id, endpoint.ifname): endpoint.addresses for endpoint in endpoints}
