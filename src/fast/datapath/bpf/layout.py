"""The structs that eBPF programs and Python share, byte for byte: each mirrors one C struct of ``bpf/lib``.

Pure data. A test compares every one of them with the C struct through BTF (tests/kernel/bpf), so a change in C that
is not made here fails. Addresses are 16 bytes in network order, IPv4 as ``::ffff:a.b.c.d`` (``fast.net.map_key``).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Protocol, Self

from fast.net import IPAddress, Mac, from_map_key, map_key


class Layout(Protocol):
    """What packs to and from the bytes of one C struct."""

    C_NAME: ClassVar[str]
    FORMAT: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """Give the struct's bytes, in this machine's order but for ``__be`` fields."""
        ...

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        ...


class LocalPodFlag(IntFlag):
    """``enum fast_local_pod_flag``."""

    NONE = 0
    #: Its packets go through the stack in both directions, so that what is attached to its veth (traffic shaping by the
    #: ``bandwidth`` plugin, say) sees them.
    VIA_STACK = 1


class Kind(IntEnum):
    """``enum fast_kind``: what an address of the cluster belongs to."""

    POD = 1
    NODE = 2


class Device(IntEnum):
    """``enum fast_device_role``: the index into ``fast_local_dev``."""

    TUNNEL = 0
    UNDERLAY = 1


class DevFlag(IntFlag):
    """``enum fast_dev_flag``."""

    NONE = 0
    #: Of the tunnel: programs may encapsulate by themselves what pods send, past the device, routes and netfilter.
    MAY_BE_SKIPPED = 1


class Routing(IntEnum):
    """``enum fast_routing``: how IPv4 reaches other nodes. IPv6 always takes the tunnel: its underlay is IPv4."""

    VXLAN = 0
    NATIVE = 1


class EventSwitch(IntFlag):
    """``enum fast_event_kind``: which events the programs write, and which kind a written one is."""

    DROP = 1
    NEW_FLOW = 2
    SAMPLE = 4


@dataclass(frozen=True, slots=True)
class LocalPod:
    """``struct fast_local_pod``: a pod on this node. ``ifindex`` is its veth's host side."""

    C_NAME: ClassVar[str] = "fast_local_pod"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=I6s6sI")

    ifindex: int
    pod_mac: Mac
    host_mac: Mac
    flags: LocalPodFlag = LocalPodFlag.NONE

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(self.ifindex, self.pod_mac, self.host_mac, self.flags)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        ifindex, pod_mac, host_mac, flags = cls.FORMAT.unpack(raw)
        return cls(ifindex, Mac(pod_mac), Mac(host_mac), LocalPodFlag(flags))


@dataclass(frozen=True, slots=True)
class ClusterPod:
    """``struct fast_cluster_pod``: the node on which an address lives, by its underlay address ``node_ip``."""

    C_NAME: ClassVar[str] = "fast_cluster_pod"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=4sBBH")

    node_ip: IPv4Address
    kind: Kind = Kind.POD
    flags: int = 0

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(self.node_ip.packed, self.kind, self.flags, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        node_ip, kind, flags, _ = cls.FORMAT.unpack(raw)
        return cls(IPv4Address(node_ip), Kind(kind), flags)


@dataclass(frozen=True, slots=True)
class LocalDev:
    """``struct fast_dev``: a device of this node. ``mtu`` is in bytes, without the Ethernet header."""

    C_NAME: ClassVar[str] = "fast_dev"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=III")

    ifindex: int
    mtu: int
    flags: DevFlag = DevFlag.NONE

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(self.ifindex, self.mtu, self.flags)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        ifindex, mtu, flags = cls.FORMAT.unpack(raw)
        return cls(ifindex, mtu, DevFlag(flags))


@dataclass(frozen=True, slots=True)
class NextHop:
    """``struct fast_next_hop``: what one CPU remembers of the way to a node, as of ``found_jiffies``.

    ``ifindex`` 0: packets to the node go by the tunnel device.
    """

    C_NAME: ClassVar[str] = "fast_next_hop"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=Q4s4sI4x")

    found_jiffies: int
    node_ip: IPv4Address
    gateway: IPv4Address
    ifindex: int

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(self.found_jiffies, self.node_ip.packed, self.gateway.packed, self.ifindex)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        found_jiffies, node_ip, gateway, ifindex = cls.FORMAT.unpack(raw)
        return cls(found_jiffies, IPv4Address(node_ip), IPv4Address(gateway), ifindex)


@dataclass(frozen=True, slots=True)
class FlowKey:
    """``struct fast_flow_key``: a flow in either direction, its ends sorted as the programs sort them.

    For ICMP echoes both ports are the identifier; for other protocols than TCP, UDP and these, both are 0.
    """

    C_NAME: ClassVar[str] = "fast_flow_key"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=16s16s2s2sB3x")

    low: IPAddress
    high: IPAddress
    low_port: int
    high_port: int
    protocol: int

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

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        low_port, high_port = (port.to_bytes(2, "big") for port in (self.low_port, self.high_port))
        return self.FORMAT.pack(map_key(self.low), map_key(self.high), low_port, high_port, self.protocol)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        low, high, low_port, high_port, protocol = cls.FORMAT.unpack(raw)
        ports = int.from_bytes(low_port, "big"), int.from_bytes(high_port, "big")
        return cls(from_map_key(low), from_map_key(high), *ports, protocol)

    def __str__(self) -> str:
        return f"{_end(self.low, self.low_port)} <-> {_end(self.high, self.high_port)} {protocol_name(self.protocol)}"


@dataclass(frozen=True, slots=True)
class Flow:
    """``struct fast_flow``: a flow that came through the stack, last at ``last_seen_ns`` (monotonic, to the second)."""

    C_NAME: ClassVar[str] = "fast_flow"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=QII")

    last_seen_ns: int
    flags: int = 0

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(self.last_seen_ns, self.flags, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        last_seen_ns, flags, _ = cls.FORMAT.unpack(raw)
        return cls(last_seen_ns, flags)


@dataclass(frozen=True, slots=True)
class Metric:
    """``struct fast_metric``: one CPU's count, or several added up."""

    C_NAME: ClassVar[str] = "fast_metric"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=QQ")

    packets: int
    byte_count: int

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(self.packets, self.byte_count)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        return cls(*cls.FORMAT.unpack(raw))


@dataclass(frozen=True, slots=True)
class Event:
    """``struct fast_event``: what happened to one packet. Ports as in :class:`FlowKey`, but in the packet's direction.

    ``kind``, ``reason`` and ``direction`` are plain numbers here, so that a reader survives ones that it does not know.
    """

    C_NAME: ClassVar[str] = "fast_event"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=Q16s16sIIHHBBBB")

    time_ns: int
    source: IPAddress
    destination: IPAddress
    ifindex: int
    length_bytes: int
    source_port: int
    destination_port: int
    protocol: int
    kind: int
    reason: int
    direction: int

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(
            self.time_ns,
            map_key(self.source),
            map_key(self.destination),
            self.ifindex,
            self.length_bytes,
            socket.htons(self.source_port),
            socket.htons(self.destination_port),
            self.protocol,
            self.kind,
            self.reason,
            self.direction,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        time_ns, source, destination, ifindex, length, source_port, destination_port, *rest = (
            cls.FORMAT.unpack(raw)
        )
        ports = socket.ntohs(source_port), socket.ntohs(destination_port)
        return cls(time_ns, from_map_key(source), from_map_key(destination), ifindex, length, *ports, *rest)


@dataclass(frozen=True, slots=True)
class Config:
    """``struct fast_config``: what the programs are told before they are loaded; read-only afterwards.

    Args:
        node_ip: The node's underlay address: where other nodes send the tunnel's packets.
        node_ip6: The node's IPv6 address, a tunnel endpoint like ``node_ip``; None where it has none.
        tunnel_port: UDP port of the vxlan device.
        vni: VXLAN network identifier.
        routing: How IPv4 reaches other nodes.
        events: Which events to write to ``fast_events``.
        sample_mask: With SAMPLE, one packet in ``sample_mask + 1`` is written; a power of two less one.
    """

    C_NAME: ClassVar[str] = "fast_config"
    FORMAT: ClassVar[struct.Struct] = struct.Struct("=16s16s4sIIHBB")

    node_ip: IPv4Address
    node_ip6: IPv6Address | None = None
    tunnel_port: int = 0
    vni: int = 1
    routing: Routing = Routing.VXLAN
    events: EventSwitch = EventSwitch.DROP
    sample_mask: int = 1023

    def pack(self) -> bytes:
        """Give the struct's bytes."""
        return self.FORMAT.pack(
            map_key(self.node_ip),
            map_key(self.node_ip6 or self.node_ip),
            self.node_ip.packed,
            self.vni,
            self.sample_mask,
            socket.htons(self.tunnel_port),
            self.routing,
            self.events,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the struct's bytes."""
        _, node_ip6, node_ip, vni, sample_mask, tunnel_port, routing, events = cls.FORMAT.unpack(raw)
        address6 = from_map_key(node_ip6)
        return cls(
            node_ip=IPv4Address(node_ip),
            node_ip6=address6 if isinstance(address6, IPv6Address) else None,
            tunnel_port=socket.ntohs(tunnel_port),
            vni=vni,
            routing=Routing(routing),
            events=EventSwitch(events),
            sample_mask=sample_mask,
        )


def protocol_name(number: int) -> str:
    """Name an IP protocol number as ``/etc/protocols`` does, for those that people meet; the number for the rest."""
    return {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}.get(number, str(number))


def _end(address: IPAddress, port: int) -> str:
    """Spell an (address, port) end."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004
