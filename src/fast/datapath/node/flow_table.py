"""Manages the flow table: deletes what expired, limits each pod's share, evicts if it fills up, adds what is missing.

The programs only add entries and count (bpf/lib/flow.h); deleting is done here alone. docs/adr/0014 has the reasons.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fast.datapath.bpf.layout import FLOW_OWNER_INBOUND, Flow, FlowFlag, FlowKey, FlowLimit
from fast.datapath.bpf.maps import ClusterPods, FlowLimits, Flows, Interfaces, LocalPods
from fast.datapath.netlink.conntrack import Translated, translated_flows
from fast.errors import MapFull, NetlinkError
from fast.net import from_map_key, map_key

MIN_ENTRIES, MAX_ENTRIES = 1 << 16, 1 << 21
#: An entry's memory: key, value, the kernel's header of 48 bytes, and its bucket.
_ENTRY_BYTES = 128
_MEMORY_SHARE = 0.004
_BUDGETS = 4  # a pod may have one fourth of the table
_FULL, _EVICTED_TO = 0.9, 0.8

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_CLOSED_SECONDS = 10.0
#: Added to conntrack's timeouts: an entry must not end before the kernel's.
_MARGIN_SECONDS = 10.0
_NETFILTER = Path("/proc/sys/net/netfilter")
_VALUE = struct.Struct("=QIIII")
_PROTOCOL_AT = 36
_FINS = int(FlowFlag.FIN_BY_LOW | FlowFlag.FIN_BY_HIGH)
_ANSWERED = int(FlowFlag.ANSWERED)


def entries_for(memory_bytes: int) -> int:
    """Return how many entries the table gets on a node with that much memory: a power of two."""
    wanted = int(memory_bytes * _MEMORY_SHARE / _ENTRY_BYTES)
    return min(max(1 << max(wanted, 1).bit_length() - 1, MIN_ENTRIES), MAX_ENTRIES)


def budget_of(entries: int) -> int:
    """Return how many entries of a table of that size a pod may have."""
    return entries // _BUDGETS


def memory_bytes() -> int:
    """Return the node's memory in bytes (/proc/meminfo)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """After how many seconds without a packet a flow's entry is deleted."""

    tcp_established: float
    tcp_unanswered: float
    udp: float
    icmp: float
    other: float

    @classmethod
    def read(cls) -> Timeouts:
        """Read the kernel's own timeouts of conntrack; its defaults where it has none."""
        return cls(
            tcp_established=_sysctl_seconds("nf_conntrack_tcp_timeout_established", 432_000),
            tcp_unanswered=_sysctl_seconds("nf_conntrack_tcp_timeout_syn_sent", 120),
            udp=_sysctl_seconds("nf_conntrack_udp_timeout_stream", 120),
            icmp=_sysctl_seconds("nf_conntrack_icmp_timeout", 30),
            other=_sysctl_seconds("nf_conntrack_generic_timeout", 600),
        )

    def of(self, protocol: int, flags: int) -> float:
        """Return the timeout of a flow."""
        if protocol == _TCP:
            if flags & _FINS == _FINS:
                # What comes late is answered by a reset of the client, which ends the server's side as well.
                return _CLOSED_SECONDS
            established = self.tcp_established if flags & _ANSWERED else self.tcp_unanswered
            return established + _MARGIN_SECONDS
        if protocol == _UDP:
            return self.udp + _MARGIN_SECONDS
        return (self.icmp if protocol in (_ICMP, _ICMPV6) else self.other) + _MARGIN_SECONDS


def _sysctl_seconds(name: str, default: float) -> float:
    try:
        return float((_NETFILTER / name).read_text())
    except (OSError, ValueError):
        return default


@dataclass(frozen=True, slots=True)
class FlowSweep:
    """What a sweep found and did.

    Attributes:
        present: Entries afterwards, of ``capacity``.
        expired, evicted, seeded: Entries deleted by age, deleted for room, added from conntrack.
        refused: Flows that programs refused to open, by all pods since their devices exist.
    """

    present: int
    capacity: int
    expired: int = 0
    evicted: int = 0
    seeded: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Contents:
    """What is in the table: keys by owner, with the order in which they would be evicted."""

    expired: list[bytes] = field(default_factory=list)
    by_owner: dict[int, list[tuple[int, int, bytes]]] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[int]:
        return Counter({owner: len(entries) for owner, entries in self.by_owner.items()})


class FlowTable:
    """The table of one node. Not thread-safe: one caller at a time."""

    def __init__(
        self, flows: Flows, interfaces: Interfaces, limits: FlowLimits, local: LocalPods, cluster: ClusterPods
    ) -> None:
        self._flows = flows
        self._interfaces = interfaces
        self._limits = limits
        self._local = local
        self._cluster = cluster
        self._seeded = False

    @property
    def capacity(self) -> int:
        """How many entries fit."""
        return self._flows.info.max_entries

    def sweep(self) -> FlowSweep:
        """Delete expired entries, evict if too few are free, set the pods' limits. The first sweep seeds the table.

        Takes about 1 µs an entry.
        """
        interfaces = dict(
            self._interfaces.items()
        )  # before the table: what opens meanwhile counts against nobody
        contents = self._read(Timeouts.read(), set(interfaces))
        self._flows.delete_many_raw(contents.expired)
        evicted = self._evict(contents)
        seeded = self._seed(contents) if evicted or not self._seeded else 0
        self._seeded = True
        counts = contents.counts
        budget = budget_of(self.capacity)
        for ifindex, interface in interfaces.items():
            own, inbound = counts[ifindex], counts[ifindex | FLOW_OWNER_INBOUND]
            limit = FlowLimit(
                max(interface.flows_opened - own + budget, 0),
                max(interface.inbound_opened - inbound + budget, 0),
            )
            self._limits.put(ifindex, limit)
        self._limits.delete_many(
            [ifindex for ifindex, _ in self._limits.items() if ifindex not in interfaces]
        )
        return FlowSweep(
            present=counts.total(),
            capacity=self.capacity,
            expired=len(contents.expired),
            evicted=evicted,
            seeded=seeded,
            refused=sum(item.flows_refused + item.inbound_refused for item in interfaces.values()),
        )

    def _read(self, timeouts: Timeouts, interfaces: set[int]) -> _Contents:
        contents, now, cache = _Contents(), time.monotonic_ns(), dict[tuple[int, int], float]()
        for key, value in self._flows.snapshot_raw().items():
            last_seen_ns, flags, _, _, owner = _VALUE.unpack(value)
            kind = key[_PROTOCOL_AT], flags & (_FINS | _ANSWERED)
            timeout = cache.get(kind)
            if timeout is None:
                timeout = cache[kind] = timeouts.of(*kind)
            if owner and owner & ~FLOW_OWNER_INBOUND not in interfaces:
                timeout = min(timeout, _CLOSED_SECONDS)  # its pod is gone
            if now - last_seen_ns > timeout * 1e9:
                contents.expired.append(key)
                continue
            worth = 0 if flags & _FINS == _FINS else 2 if flags & _ANSWERED else 1
            contents.by_owner.setdefault(owner, []).append((worth, last_seen_ns, key))
        return contents

    def _evict(self, contents: _Contents) -> int:
        """Delete entries of the owners that have most, if the table is nearly full; return how many."""
        counts = contents.counts
        if counts.total() <= self.capacity * _FULL:
            return 0
        share = fair_share(counts.values(), int(self.capacity * _EVICTED_TO))
        evicted: list[bytes] = []
        for entries in contents.by_owner.values():
            if len(entries) > share:
                entries.sort()
                evicted += (key for *_, key in entries[: len(entries) - share])
                del entries[: len(entries) - share]
        self._flows.delete_many_raw(evicted)
        return len(evicted)

    def _seed(self, contents: _Contents) -> int:
        """Add translated flows between pods that the table lacks, unless their owner has its fair share."""
        share = budget_of(self.capacity)
        counts = contents.counts
        try:
            flows = list(translated_flows())
        except NetlinkError:
            return 0  # a kernel without conntrack translates nothing
        added = 0
        with contextlib.suppress(MapFull):
            for key, flow in self._entries_of(flows).items():
                if counts[flow.owner] < share and self._flows.put_many_raw({key: flow.pack()}, only_new=True):
                    counts[flow.owner] += 1
                    contents.by_owner.setdefault(flow.owner, []).append((2, flow.last_seen_ns, key))
                    added += 1
        return added

    def _entries_of(self, flows: Iterable[Translated]) -> Mapping[bytes, Flow]:
        """Make the entries of those flows that run between a pod of this node and a pod or node of the cluster."""
        local = {map_key(address): pod.ifindex for address, pod in self._local.items()}
        known = local.keys() | self._cluster.snapshot_raw().keys()
        now, entries = time.monotonic_ns(), {}
        for flow in flows:
            ends = _mapped(flow.client), _mapped(flow.backend)
            owner = local.get(ends[0])
            if owner is None and ends[1] in local:
                owner = local[ends[1]] | FLOW_OWNER_INBOUND
            if owner is None or not known.issuperset(ends):
                continue
            client = from_map_key(ends[0]), flow.client_port
            key = FlowKey.of(client, (from_map_key(ends[1]), flow.backend_port), flow.protocol)
            opener = FlowFlag.OPENED_BY_LOW if (key.low, key.low_port) == client else FlowFlag.OPENED_BY_HIGH
            flags = FlowFlag.STACK | FlowFlag.SEEDED | opener
            flags |= FlowFlag.ANSWERED if flow.answered else FlowFlag.NONE
            entries[key.pack()] = Flow(now, flags, owner=owner)
        return entries


def fair_share(counts: Iterable[int], room: int) -> int:
    """Return the largest share that all may have, so that nobody's count above it leaves the sum within ``room``.

    Who has less keeps it; what they leave goes to the others.
    """
    waiting = sorted(counts)
    largest = waiting[-1] if waiting else 0
    while waiting:
        share = room // len(waiting)
        if waiting[0] > share:
            return share
        room -= waiting.pop(0)
    return largest


def _mapped(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed  # noqa: PLR2004 -- of an IPv6 address
