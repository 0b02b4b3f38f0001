"""Keeps the node's eBPF map of every pod and node address that counts (``cluster_judge`` decides which do).

Writes everything at start, then each change. From time to time it compares the whole map and repairs what somebody
else changed. Changes are gathered for some milliseconds and written as one batch in a thread, so that the event loop
stays free. The map's layout belongs to the datapath.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from fast.agent.repairs import count_repairs
from fast.agent.sync.cluster_judge import Changes, ClusterJudge, Refusal, Refused, World
from fast.api.core import Node
from fast.api.fastnode import FastNode, NodeProblem
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips
from fast.datapath.bpf.layout import ClusterPod
from fast.datapath.cluster_map import SyncResult
from fast.datapath.repair import RepairKind
from fast.errors import FastError, MapFull
from fast.net import IPAddress, IPNetwork

log = structlog.get_logger()

#: How long changes are gathered before they are written: far below the 50 ms in which one must be in the map.
GATHER_SECONDS = 0.005
#: Between two comparisons of the whole map. One of 100,000 entries takes half a second of CPU, in a thread.
CHECK_INTERVAL_SECONDS = 60.0
_RETRY_SECONDS = 5.0
#: Between two reports of refusals: who writes refused records by the thousand must not fill the log.
_REPORT_SECONDS = 1.0

_ENTRIES = Gauge(
    "fast_cluster_entries", "Pod and node addresses of the cluster that the agent keeps in its map."
)
_WRITES = Counter(
    "fast_cluster_writes", "Entries written to or removed from the map of the cluster.", ["operation"]
)
_LAG = Histogram(
    "fast_cluster_sync_lag_seconds",
    "Time from a change's arrival at the agent until it is in the map.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
_FAILURES = Counter(
    "fast_cluster_sync_failures", "Writes to the map of the cluster that failed and are tried again."
)
_REFUSED = Gauge(
    "fast_cluster_refused",
    "Records of pods and addresses of nodes that do not count, by the reason why.",
    ["reason"],
)
for _reason in Refusal:
    _REFUSED.labels(_reason.value).set(0)


class ClusterMap(Protocol):
    """The datapath's map of the cluster. Blocking."""

    def upsert_cluster(self, entries: Iterable[tuple[IPAddress, ClusterPod]]) -> None:
        """Set entries; MapFull if they do not fit."""

    def remove_cluster(self, addresses: Iterable[IPAddress]) -> int:
        """Remove entries."""

    def sync_cluster(self, entries: Mapping[IPAddress, ClusterPod]) -> SyncResult:
        """Make the map hold exactly these, as far as they fit: nodes first."""

    def cluster_entries(self) -> Mapping[IPAddress, ClusterPod]:
        """Read the map."""


@dataclass(frozen=True, slots=True)
class ClusterKnown:
    """What the informers know now: mappings by name that they keep up to date."""

    pools: Mapping[str, Ips]
    nodes: Mapping[str, FastNode]
    records: Mapping[str, IpEndpoint]
    kube_nodes: Mapping[str, Node] = field(default_factory=dict)

    def node_created(self, name: str) -> str:
        """Give when a Node object was created; empty if there is none."""
        node = self.kube_nodes.get(name)
        return (node.metadata.creation_timestamp or "") if node is not None else ""


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector, which would walk 100,000 records again and again.

    With it, judging them takes 0.66 to 0.82 s of CPU, without it 0.39 to 0.40 s. Nothing made meanwhile has cycles.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class ClusterSync:
    """Feeds the map from the informers' changes. Everything but judging the whole and writing is in the event loop.

    Attributes:
        refusals: What does not count, by reason; as of the last report.
        own_addresses: This node's addresses.
    """

    def __init__(
        self,
        cluster_map: ClusterMap,
        known: ClusterKnown,
        report: Callable[[str], None],
        *,
        own_name: str,
        own_addresses: Collection[IPAddress],
        services: Collection[IPNetwork] = (),
        check_interval_seconds: float = CHECK_INTERVAL_SECONDS,
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            cluster_map: Where entries go.
            known: Gives everything as seen now, for a full sync.
            report: Told after every full sync, and when refusals change: empty if the map could be written, else why
                not. What is refused is in :attr:`refusals`.
            own_name: This node.
            own_addresses: Its addresses, which count without a FastNode.
            services: Networks of the cluster's Services.
            check_interval_seconds: Between two comparisons of the whole map.
        """
        self._report = report
        self._map = cluster_map
        self._known = known
        self._judge = ClusterJudge(own_name, own_addresses, known.records.get, services, known.node_created)
        self._backlog: list[Callable[[], Changes]] | None = None
        self._first = True
        self._left_out = 0
        self._pending: Changes = {}
        self._oldest_change = 0.0
        self._wake = asyncio.Event()
        self._full = True
        self._check_interval_seconds = check_interval_seconds
        self._check_due = math.inf
        self._reported_at = -math.inf
        self._report_due: asyncio.TimerHandle | None = None
        self.refusals: dict[Refusal, Refused] = {}
        self.own_addresses = own_addresses

    def set_services(self, services: Collection[IPNetwork]) -> None:
        """Set the networks of the cluster's Services; before :meth:`run`."""
        self._judge.set_services(services)

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> None:
        """Take note of a changed record."""
        self._judged(lambda: self._judge.record_changed(old, new))

    def node_changed(self, old: FastNode | None, new: FastNode | None) -> None:
        """Take note of a changed FastNode."""
        self._judged(lambda: self._judge.node_changed(old, new))

    def pool_changed(self, old: Ips | None, new: Ips | None) -> None:
        """Take note of a changed pool."""
        shown = new if new is not None else old
        if shown is not None:
            name = shown.metadata.name
            self._judged(lambda: self._judge.pool_changed(name, new))

    def counts(self, record: IpEndpoint) -> bool:
        """Whether a record counts."""
        return self._judge.counts(record)

    def node_addresses(self) -> set[IPAddress]:
        """Give the nodes' addresses that count, this node's included."""
        return self._judge.node_addresses()

    def names_of(self, node: str) -> frozenset[str]:
        """Give the names of a node's records that count."""
        return self._judge.names_of(node)

    def resync(self) -> None:
        """Compare the whole map with what it should be, such as after the datapath came up again."""
        self._full = True
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled: everything first, then what changes. What fails is tried again."""
        self._wake.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._check_due):
                    await self._wake.wait()
            if not self._full:
                await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()
            try:
                await self._write()
            except FastError as error:
                _FAILURES.inc()
                self._report(str(error))
                self._full = True
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    def _judged(self, judge: Callable[[], Changes]) -> None:
        """Judge a change: now, or when the judgement of everything, which runs in a thread, is done."""
        if self._first:
            return  # the first judgement takes everything as it is then
        if self._backlog is not None:
            self._backlog.append(judge)
            return
        changes = judge()
        self._note(changes)
        self._tell_refusals()

    def _note(self, changes: Changes) -> None:
        if not changes:
            return
        if not self._pending:
            self._oldest_change = time.monotonic()
        self._pending.update(changes)
        self._wake.set()

    async def _write(self) -> None:
        if self._full:
            await self._write_everything()
            return
        await self._write_pending()
        # With nothing pending at this moment, what the map lacks is not under way: somebody else took it out.
        if not self._pending and asyncio.get_running_loop().time() >= self._check_due:
            result = await self._write_everything()
            if repaired := result.added + result.changed + result.removed:
                count_repairs(RepairKind.CLUSTER_ENTRY, repaired)
                log.warning("entries of the cluster map were changed by others; repaired", repaired=repaired)

    async def _write_everything(self) -> SyncResult:
        self._pending.clear()  # what comes from here on is judged and written after what is judged now
        self._full, self._first = False, False
        began = time.monotonic()
        with _collector_paused():
            entries = await self._judge_everything()
            result = await asyncio.to_thread(self._map.sync_cluster, entries)
        self._left_out = result.left_out
        _ENTRIES.set(len(entries) - result.left_out)
        _WRITES.labels("set").inc(result.added + result.changed)
        _WRITES.labels("remove").inc(result.removed)
        self._check_due = asyncio.get_running_loop().time() + self._check_interval_seconds
        log.debug(
            "cluster map synced",
            entries=len(entries),
            added=result.added,
            changed=result.changed,
            removed=result.removed,
            left_out=result.left_out,
            seconds=round(time.monotonic() - began, 3),
        )
        self._tell_refusals(at_once=True)
        return result

    async def _judge_everything(self) -> Mapping[IPAddress, ClusterPod]:
        """Judge everything in a thread, then what changed meanwhile."""
        self._backlog, known = [], self._known
        try:
            held = {} if self._judge.judged else await asyncio.to_thread(self._map.cluster_entries)
            world = World(
                list(known.pools.values()), list(known.nodes.values()), list(known.records.values()), held
            )
            self._judge, entries = await asyncio.to_thread(self._judge.judge_everything, world)
        finally:
            backlog, self._backlog = self._backlog, None
        for judge in backlog:
            self._note(judge())
        return entries

    async def _write_pending(self) -> None:
        pending, self._pending, oldest = self._pending, {}, self._oldest_change
        if not pending:
            return
        entries = [(address, entry) for address, entry in pending.items() if entry is not None]
        gone = [address for address, entry in pending.items() if entry is None]
        if gone:
            await asyncio.to_thread(self._map.remove_cluster, gone)
        try:
            if entries:
                await asyncio.to_thread(self._map.upsert_cluster, entries)
        except MapFull:
            self.resync()  # which sorts out what gets room
        if gone and self._left_out:
            self.resync()
        _WRITES.labels("set").inc(len(entries))
        _WRITES.labels("remove").inc(len(gone))
        _LAG.observe(time.monotonic() - oldest)

    def _tell_refusals(self, *, at_once: bool = False) -> None:
        """Export what does not count, and report it; not more often than once in _REPORT_SECONDS."""
        loop = asyncio.get_running_loop()
        if self._report_due is not None and not at_once:
            return
        if not at_once and (wait := self._reported_at + _REPORT_SECONDS - loop.time()) > 0:
            self._report_due = loop.call_later(wait, lambda: self._tell_refusals(at_once=True))
            return
        if self._report_due is not None:
            self._report_due.cancel()
        self._report_due, self._reported_at = None, loop.time()
        found = self._judge.refusals()
        if self._left_out:
            found[Refusal.NO_ROOM] = Refused(self._left_out, ())
        for why in Refusal:
            _REFUSED.labels(why.value).set(found[why].count if why in found else 0)
        if found != self.refusals:
            for why, refused in found.items():
                log.warning(
                    "addresses do not count",
                    reason=why.value,
                    count=refused.count,
                    examples=list(refused.examples),
                )
        self.refusals = found
        self._report("")


_REMEDIES = {
    Refusal.OUTSIDE_POOL: "delete these IpEndpoints, or put their addresses into the ranges of their pool",
    Refusal.SPECIAL_ADDRESS: "delete these IpEndpoints: no pod can have such an address",
    Refusal.NODE_ADDRESS: "exclude the nodes' addresses from the pool (excludeIPs)",
    Refusal.TOO_MANY: "see which pods the node has, and delete the IpEndpoints that belong to none",
    Refusal.IN_POOL: "exclude the node's address from the pool (excludeIPs), or give the node another address",
    Refusal.POD_ADDRESS: "give the node another address, or delete the pod that has it",
    Refusal.TAKEN: "give each node its own address; delete the FastNode of a node that is gone",
    Refusal.SERVICE_ADDRESS: "give the node an address outside the Services' networks (--node-ip)",
    Refusal.NO_ROOM: "raise --max-cluster-entries on every node",
}


def refusal_problems(refusals: Mapping[Refusal, Refused]) -> list[NodeProblem]:
    """Put what does not count into the words of a node's problems."""
    return [
        NodeProblem(
            check="cluster-map",
            severity="error" if why is Refusal.NO_ROOM else "warning",
            problem=f"{refused.count} addresses do not count ({why.value})"
            + (f": {', '.join(refused.examples)}" if refused.examples else ""),
            remedy=_REMEDIES[why],
        )
        for why, refused in sorted(refusals.items())
    ]
