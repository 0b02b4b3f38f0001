"""Who lost packets, where to, and why: the programs' exact counts, grouped and named.

The counts are the kernel's (map ``fast_drops``). This module only reads and names them; it keeps none.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fast.agent.see.traffic_event import EventNamer, direction_name, reason_name, reason_text
from fast.datapath.bpf.layout import DropCount, DropKey, protocol_name


class Drops(msgspec.Struct, frozen=True, rename="camel"):
    """Packets that were dropped alike.

    Attributes:
        reason: Its name in lower case.
        what: The sentence "the packet …" of the reason.
        direction: Which program dropped them.
        pod: The pod of this node whose interface they passed; empty if none did.
        source: Their source address.
        source_pod: Who held it when the last one was dropped; empty if nobody did.
        destination: Their destination address.
        destination_pod: Who held it then.
        destination_port: 0 if the protocol has none.
        protocol: Its name, or its number.
        packets: How many.
        size_bytes: All of them together.
        first: When the first one was dropped, as RFC 3339 in UTC.
        last: When the last one was.
        seconds_ago: How long ago that was.
    """

    reason: str
    what: str
    direction: str
    pod: str
    source: str
    source_pod: str
    destination: str
    destination_pod: str
    destination_port: int
    protocol: str
    packets: int
    size_bytes: int
    first: str
    last: str
    seconds_ago: float


def name_drops(counts: Mapping[DropKey, DropCount], namer: EventNamer, now_ns: int) -> list[Drops]:
    """Name every group, the newest first.

    Args:
        counts: As ``fast_drops`` has them.
        namer: Knows who held which address when.
        now_ns: CLOCK_MONOTONIC.
    """
    newest_first = sorted(counts.items(), key=lambda item: item[1].last_ns, reverse=True)
    return [_named(key, count, namer, now_ns) for key, count in newest_first]


def packets_not_shown(counts: Mapping[DropKey, DropCount], dropped: int) -> int:
    """Return how many drops are counted by reason but are in no group: the map was full of others.

    Args:
        counts: As ``fast_drops`` has them.
        dropped: All drops by ``fast_metrics``.
    """
    return max(0, dropped - sum(count.packets for count in counts.values()))


def _named(key: DropKey, count: DropCount, namer: EventNamer, now_ns: int) -> Drops:
    source = namer.holder(key.source, count.last_ns)
    destination = namer.holder(key.destination, count.last_ns)
    pod = namer.pod_of_device(key.ifindex, count.last_ns)
    return Drops(
        reason=reason_name(key.reason),
        what=reason_text(key.reason),
        direction=direction_name(key.direction),
        pod=str(pod or ""),
        source=str(key.source),
        source_pod=str(source or ""),
        destination=str(key.destination),
        destination_pod=str(destination or ""),
        destination_port=key.destination_port,
        protocol=protocol_name(key.protocol),
        packets=count.packets,
        size_bytes=count.byte_count,
        first=namer.wall_time(count.first_ns),
        last=namer.wall_time(count.last_ns),
        seconds_ago=round(max(0, now_ns - count.last_ns) / 1e9, 1),
    )
