"""One event of the datapath as people read it: names instead of addresses, words instead of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import IntEnum

import msgspec

from fast.agent.see.holders import Holder, Holders
from fast.datapath.bpf.layout import Event, EventSwitch, protocol_name
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.net import IPAddress

_KINDS = {EventSwitch.DROP: "drop", EventSwitch.NEW_FLOW: "flow", EventSwitch.SAMPLE: "sample"}


class TrafficEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What happened to one packet.

    Attributes:
        time: When, as RFC 3339 in UTC.
        kind: ``drop``, ``flow`` (the first packet of a flow) or ``sample``.
        reason: The reason's name in lower case, such as ``drop_spoofed_address``.
        direction: Which program saw the packet, such as ``from_pod``.
        what: The sentence "the packet …" of the reason.
        pod: The pod of this node whose interface the packet passed, as ``namespace/name``; empty if none did.
        source: The packet's source address.
        source_pod: Who held it at that moment; empty if nobody did.
        source_node: That pod's node.
        source_port: 0 if the protocol has none.
        destination: The packet's destination address.
        destination_pod: Who held it at that moment.
        destination_node: That pod's node.
        destination_port: 0 if the protocol has none.
        protocol: Its name, or its number.
        size_bytes: The packet's length.
    """

    time: str
    kind: str
    reason: str
    direction: str
    what: str
    source: str
    destination: str
    protocol: str
    size_bytes: int
    pod: str = ""
    source_pod: str = ""
    source_node: str = ""
    source_port: int = 0
    destination_pod: str = ""
    destination_node: str = ""
    destination_port: int = 0

    @property
    def pods(self) -> frozenset[str]:
        """Every pod that the packet concerns."""
        return frozenset({self.pod, self.source_pod, self.destination_pod} - {""})


class EventNamer:
    """Puts names into events.

    Args:
        holders: Who held an address when.
        addresses_of_device: Gives the addresses of the pod whose veth has an index here; none for other devices.
        clock_ns: CLOCK_MONOTONIC, which stamps events.
        wall_ns: Nanoseconds since 1970.
    """

    def __init__(
        self,
        holders: Holders,
        addresses_of_device: Callable[[int], Sequence[IPAddress]],
        clock_ns: Callable[[], int],
        wall_ns: Callable[[], int],
    ) -> None:
        self._holders = holders
        self._addresses_of_device = addresses_of_device
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns

    def name(self, event: Event) -> TrafficEvent:
        """Name one event. Numbers that this version does not know are shown as they are."""
        source = self._holders.find(event.source, event.time_ns)
        destination = self._holders.find(event.destination, event.time_ns)
        return TrafficEvent(
            time=self.wall_time(event.time_ns),
            kind=_KINDS.get(EventSwitch(event.kind), str(event.kind)),
            reason=reason_name(event.reason),
            direction=direction_name(event.direction),
            what=reason_text(event.reason),
            pod=_text(self.pod_of_device(event.ifindex, event.time_ns)),
            source=str(event.source),
            source_pod=_text(source),
            source_node=source.node if source else "",
            source_port=event.source_port,
            destination=str(event.destination),
            destination_pod=_text(destination),
            destination_node=destination.node if destination else "",
            destination_port=event.destination_port,
            protocol=protocol_name(event.protocol),
            size_bytes=event.length_bytes,
        )

    def holder(self, address: IPAddress, time_ns: int) -> Holder | None:
        """Give who held an address at that moment; None if nobody did."""
        return self._holders.find(address, time_ns)

    def pod_of_device(self, ifindex: int, time_ns: int) -> Holder | None:
        """Give the pod of this node whose interface has the index; None if it is no pod's."""
        found = (self._holders.find(address, time_ns) for address in self._addresses_of_device(ifindex))
        return next((holder for holder in found if holder is not None), None)

    def wall_time(self, time_ns: int) -> str:
        """Give an event's time as RFC 3339 in UTC, with milliseconds."""
        since_1970 = (self._wall_ns() - self._clock_ns() + time_ns) / 1e9
        return (
            datetime.fromtimestamp(since_1970, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )


def reason_name(number: int) -> str:
    """Name a reason in lower case; its number if this version does not know it."""
    return _name(Reason, number)


def reason_text(number: int) -> str:
    """Complete the sentence "the packet …"; empty if this version does not know the reason."""
    reason = Reason._value2member_map_.get(number)
    return reason.description if isinstance(reason, Reason) else ""


def direction_name(number: int) -> str:
    """Name a direction in lower case; its number if this version does not know it."""
    return _name(PacketDirection, number)


def _name(names: type[IntEnum], number: int) -> str:
    member = names._value2member_map_.get(number)
    return member.name.lower() if member is not None else str(number)


def _text(holder: Holder | None) -> str:
    return str(holder) if holder else ""
