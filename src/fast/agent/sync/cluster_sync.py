"""Keeps the node's eBPF map of every pod and node address as the API server has them.

Writes everything at start, then each change. From time to time it compares the whole map and repairs what somebody
else changed. Changes are gathered for some milliseconds and written as one batch in a thread, so that the event loop
stays free. The map's layout belongs to the datapath.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from fast.agent.repairs import count_repairs
from fast.api.core import Node
from fast.api.ipendpoint import IpEndpoint
from fast.datapath.bpf.layout import ClusterPod, Kind
from fast.datapath.cluster_map import SyncResult
from fast.datapath.repair import RepairKind
from fast.errors import FastError, InvalidRange
from fast.net import IPAddress, parse_address

log = structlog.get_logger()

#: How long changes are gathered before they are written: far below the 50 ms in which one must be in the map.
GATHER_SECONDS = 0.005
#: Between two comparisons of the whole map. One of 100,000 entries takes half a second of CPU, in a thread.
CHECK_INTERVAL_SECONDS = 60.0
_RETRY_SECONDS = 5.0

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


class ClusterMap(Protocol):
    """The datapath's map of the cluster. Blocking."""

    def upsert_cluster(self, entries: Iterable[tuple[IPAddress, ClusterPod]]) -> None:
        """Set entries."""

    def remove_cluster(self, addresses: Iterable[IPAddress]) -> int:
        """Remove entries."""

    def sync_cluster(self, entries: Mapping[IPAddress, ClusterPod]) -> SyncResult:
        """Make the map hold exactly these."""


class ClusterSync:
    """Feeds the map from the informers' changes. Everything but the writing runs in the event loop."""

    def __init__(
        self,
        cluster_map: ClusterMap,
        records: Callable[[], Iterable[IpEndpoint]],
        nodes: Callable[[], Iterable[Node]],
        report: Callable[[str], None],
        *,
        check_interval_seconds: float = CHECK_INTERVAL_SECONDS,
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            cluster_map: Where entries go.
            records: Gives every record as seen now, for a full sync.
            nodes: Gives every Node as seen now.
            report: Told after every full sync how it went: empty for well, else the reason.
            check_interval_seconds: Between two comparisons of the whole map.
        """
        self._report = report
        self._map = cluster_map
        self._records = records
        self._nodes = nodes
        self._pending: dict[IPAddress, ClusterPod | None] = {}
        self._node_addresses: set[IPAddress] = set()
        self._oldest_change = 0.0
        self._wake = asyncio.Event()
        self._full = True
        self._check_interval_seconds = check_interval_seconds
        self._check_due = math.inf

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> None:
        """Take note of a changed record."""
        shown = new or old
        address = None if shown is None else shown.find_address()
        if address is None or address in self._node_addresses:
            return
        entry = None if new is None else entry_of_record(new)
        if entry is None and (old is None or entry_of_record(old) is None):
            return
        if new is not None and old is not None and entry == entry_of_record(old):
            return
        self._note({address: entry})

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """Take note of a changed Node: its InternalIPs are the tunnel's endpoints."""
        before = {} if old is None else entries_of_node(old)
        after = {} if new is None else entries_of_node(new)
        if before == after:
            return
        gone = before.keys() - after.keys()
        # A replaced machine's new Node may be there before the old one goes, with the same addresses.
        inherited = {
            address: entry
            for node in (self._nodes() if gone else ())
            for address, entry in entries_of_node(node).items()
            if address in gone
        }
        self._node_addresses = (self._node_addresses - gone) | inherited.keys() | after.keys()
        self._note({**dict.fromkeys(gone), **inherited, **after})

    def resync(self) -> None:
        """Compare the whole map with what it should be, such as after the datapath came up again."""
        self._full = True
        self._wake.set()

    async def run(self) -> None:
        """Write for ever: everything first, then what changes. What fails is tried again."""
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

    def _note(self, changes: Mapping[IPAddress, ClusterPod | None]) -> None:
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
        self._pending.clear()  # what comes from here on is newer than the lists below, and written after them
        self._full = False
        records, nodes = list(self._records()), list(self._nodes())
        began = time.monotonic()
        entries = await asyncio.to_thread(wanted_entries, records, nodes)
        result = await asyncio.to_thread(self._map.sync_cluster, entries)
        _ENTRIES.set(len(entries))
        _WRITES.labels("set").inc(result.added + result.changed)
        _WRITES.labels("remove").inc(result.removed)
        self._check_due = asyncio.get_running_loop().time() + self._check_interval_seconds
        log.debug(
            "cluster map synced",
            entries=len(entries),
            added=result.added,
            changed=result.changed,
            removed=result.removed,
            seconds=round(time.monotonic() - began, 3),
        )
        self._report("")
        return result

    async def _write_pending(self) -> None:
        pending, self._pending, oldest = self._pending, {}, self._oldest_change
        if not pending:
            return
        entries = [(address, entry) for address, entry in pending.items() if entry is not None]
        gone = [address for address, entry in pending.items() if entry is None]
        if entries:
            await asyncio.to_thread(self._map.upsert_cluster, entries)
        if gone:
            await asyncio.to_thread(self._map.remove_cluster, gone)
        _WRITES.labels("set").inc(len(entries))
        _WRITES.labels("remove").inc(len(gone))
        _LAG.observe(time.monotonic() - oldest)


def wanted_entries(records: Iterable[IpEndpoint], nodes: Iterable[Node]) -> dict[IPAddress, ClusterPod]:
    """Work out the whole map: every bound record, and every node's addresses (which win over a record's)."""
    entries: dict[IPAddress, ClusterPod] = {}
    for record in records:
        entry, address = entry_of_record(record), record.find_address()
        if entry is not None and address is not None:
            entries[address] = entry
    for node in nodes:
        entries.update(entries_of_node(node))
    return entries


def entry_of_record(record: IpEndpoint) -> ClusterPod | None:
    """The map's entry for a record; None for a retained one (no sandbox has it) or one whose node is not known."""
    if not record.spec.container_id or not record.spec.node_ip:
        return None
    return _pod_on(record.spec.node_ip)


@lru_cache(maxsize=16_384)
def _pod_on(node_ip: str) -> ClusterPod | None:
    """Make the entry of a node's pods: one for all of them, as 100,000 of their own would take their time."""
    try:
        return ClusterPod(IPv4Address(node_ip), Kind.POD)
    except ValueError:
        return None


def entries_of_node(node: Node) -> dict[IPAddress, ClusterPod]:
    """The map's entries for a Node: all of its InternalIPs, reached by the first IPv4 one (the underlay is IPv4)."""
    addresses = []
    for text in node.internal_ips:
        try:
            addresses.append(parse_address(text))
        except InvalidRange:
            log.warning("InternalIP of a Node is not an address", node=node.metadata.name, address=text)
    underlay = next((address for address in addresses if isinstance(address, IPv4Address)), None)
    if underlay is None:
        return {}
    return dict.fromkeys(addresses, ClusterPod(underlay, Kind.NODE))
