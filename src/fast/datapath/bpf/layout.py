"""The structs and enums that eBPF programs and Python share: those generated from C, and what Python adds to them.

Addresses are 16 bytes in network order, IPv4 as ``::ffff:a.b.c.d`` (``fast.net.map_key``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Protocol, Self

from fast.datapath.bpf.generated import (
    FLOW_OWNER_INBOUND,
    ClusterPod,
    ConfigFlag,
    DevFlag,
    Device,
    DropCount,
    DropKey,
    Event,
    EventBudget,
    EventSwitch,
    Flow,
    FlowFlag,
    FlowLimit,
    Interface,
    Kind,
    LocalDev,
    LocalPod,
    LocalPodFlag,
    Metric,
    NextHop,
    RawConfig,
    RawFlowKey,
    Routing,
)
from fast.net import IPAddress, map_key

__all__ = [
    "FLOW_OWNER_INBOUND",
    "ClusterPod",
    "Config",
    "ConfigFlag",
    "DevFlag",
    "Device",
    "DropCount",
    "DropKey",
    "Event",
    "EventBudget",
    "EventSwitch",
    "Flow",
    "FlowFlag",
    "FlowKey",
    "FlowLimit",
    "Interface",
    "Kind",
    "Layout",
    "LocalDev",
    "LocalPod",
    "LocalPodFlag",
    "Metric",
    "NextHop",
    "Routing",
    "protocol_name",
]


class Layout(Protocol):
    """What packs to and from the bytes of one C struct."""

    C_NAME: ClassVar[str]
    FORMAT: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """Return the struct's bytes, in this machine's order but for ``__be`` fields."""
        ...

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        ...


class FlowKey(RawFlowKey):
    """``struct fast_flow_key``: a flow in either direction, its ends sorted as the programs sort them.

    For ICMP echoes both ports are the identifier; for other protocols than TCP, UDP and these, both are 0.
    """

    __slots__ = ()

    @classmethod
    def of(cls, first: tuple[IPAddress, int], second: tuple[IPAddress, int], protocol: int) -> Self:
        """Make the key from the two (address, port) ends in any order."""
        low, high = sorted((first, second), key=cls._order)
        return cls(low[0], high[0], low[1], high[1], protocol)

    @staticmethod
    def _order(end: tuple[IPAddress, int]) -> tuple[int, int, int]:
        """Sort as bpf/lib/flow.h does: by machine words, not in network order, because that is quicker."""
        first, second = struct.unpack("=QQ", map_key(end[0]))
        return first, second, struct.unpack("=H", struct.pack("!H", end[1]))[0]

    def __str__(self) -> str:
        return f"{_end(self.low, self.low_port)} <-> {_end(self.high, self.high_port)} {protocol_name(self.protocol)}"


@dataclass(frozen=True, slots=True)
class Config:
    """What the programs are told before they are loaded; read-only afterwards.

    Args:
        node_ip: The node's underlay address: where other nodes send the tunnel's packets.
        node_ip6: The node's IPv6 address, a tunnel endpoint like ``node_ip``; None if it has none.
        tunnel_port: UDP port of the vxlan device.
        vni: VXLAN network identifier.
        routing: How IPv4 reaches other nodes. IPv6 always takes the tunnel: its underlay is IPv4.
        events: Which events to write to ``fast_events``.
        sample_mask: With SAMPLE, one packet in ``sample_mask + 1`` is written; a power of two less one.
        flags: What else the programs do.
        flow_budget: Flows that a pod may open through the stack, until the agent sets its limit.
    """

    C_NAME: ClassVar[str] = RawConfig.C_NAME
    FORMAT: ClassVar[struct.Struct] = RawConfig.FORMAT

    node_ip: IPv4Address
    node_ip6: IPv6Address | None = None
    tunnel_port: int = 0
    vni: int = 1
    routing: Routing = Routing.VXLAN
    events: EventSwitch = EventSwitch.DROP
    sample_mask: int = 1023
    flags: ConfigFlag = ConfigFlag.NONE
    flow_budget: int = 65_536

    def pack(self) -> bytes:
        """Return the struct's bytes; it has ``node_ip`` in both forms that the programs compare."""
        return RawConfig(
            node_addr=self.node_ip,
            node_addr6=self.node_ip6 or self.node_ip,
            node_ip=self.node_ip,
            vni=self.vni,
            sample_mask=self.sample_mask,
            tunnel_port=self.tunnel_port,
            routing=self.routing,
            events=self.events,
            flags=self.flags,
            flow_budget=self.flow_budget,
        ).pack()

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        found = RawConfig.unpack(raw)
        return cls(
            node_ip=found.node_ip,
            node_ip6=found.node_addr6 if isinstance(found.node_addr6, IPv6Address) else None,
            tunnel_port=found.tunnel_port,
            vni=found.vni,
            routing=found.routing,
            events=found.events,
            sample_mask=found.sample_mask,
            flags=found.flags,
            flow_budget=found.flow_budget,
        )


def protocol_name(number: int) -> str:
    """Name an IP protocol number as ``/etc/protocols`` does, for those that people meet; the number for the rest."""
    return {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}.get(number, str(number))


def _end(address: IPAddress, port: int) -> str:
    """Spell an (address, port) end."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004
