"""What rtnetlink answers, as values: links, addresses, routes, neighbours. Reading only."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from fast.datapath.netlink import wire
from fast.datapath.netlink.requests import ROUTE_PROTOCOL
from fast.net import IPAddress, IPNetwork, Mac

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBxxBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_MAC_LENGTH = 6
_ROUTE_KINDS = (wire.RTN_UNICAST, wire.RTN_BLACKHOLE, wire.RTN_UNREACHABLE, wire.RTN_PROHIBIT)


@dataclass(frozen=True, slots=True)
class Link:
    """A network device.

    Attributes:
        peer_index: IFLA_LINK: for a veth its other end's index, in the other end's namespace.
        kind: ``veth``, ``vxlan``, …; empty for hardware.
        vxlan_port: UDP port of a vxlan device, else 0.
        collect_metadata: Whether a vxlan device takes its tunnel key from programs.
    """

    index: int
    name: str
    mtu: int
    mac: Mac | None
    up: bool
    kind: str = ""
    alias: str = ""
    peer_index: int = 0
    arp: bool = True
    vxlan_port: int = 0
    collect_metadata: bool = False
    learning: bool = False
    group: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a device. ``lasting``: of global scope, and neither temporary, tentative nor deprecated."""

    index: int
    address: IPAddress
    prefix_length: int
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """A route for unicast.

    Attributes:
        index: Of its device; 0: it has several, or leads nowhere (blackhole, unreachable, prohibit).
        protocol: Who made it (requests.ROUTE_PROTOCOL: Fast).
        priority: The lowest of those to one destination counts.
    """

    destination: IPNetwork
    index: int
    gateway: IPAddress | None
    source: IPAddress | None
    protocol: int
    table: int
    priority: int
    mtu: int | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the destination is on the device's own network."""
        return self.index != 0 and self.gateway is None


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule that selects by source; ``protocol`` says who made it."""

    source: IPNetwork
    table: int
    priority: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour entry; ``mac`` is None while it is not resolved."""

    index: int
    address: IPAddress
    mac: Mac | None
    permanent: bool


def parse_link(body: bytes) -> Link:
    """Read an RTM_NEWLINK message's body."""
    _family, _type, index, flags, _change = _IFINFOMSG.unpack_from(body)
    attributes = wire.parse_attributes(body, _IFINFOMSG.size)
    info = wire.parse_attributes(attributes.get(wire.IFLA_LINKINFO, b""))
    kind = wire.parse_text(info.get(wire.IFLA_INFO_KIND))
    data = wire.parse_attributes(info.get(wire.IFLA_INFO_DATA, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=wire.parse_text(attributes.get(wire.IFLA_IFNAME)),
        mtu=wire.parse_u32(attributes.get(wire.IFLA_MTU)),
        mac=_mac(attributes.get(wire.IFLA_ADDRESS)),
        up=bool(flags & wire.IFF_UP),
        kind=kind,
        alias=wire.parse_text(attributes.get(wire.IFLA_IFALIAS)),
        peer_index=wire.parse_u32(attributes.get(wire.IFLA_LINK)),
        arp=not flags & wire.IFF_NOARP,
        vxlan_port=int.from_bytes(data.get(wire.IFLA_VXLAN_PORT, b""), "big"),
        collect_metadata=any(data.get(wire.IFLA_VXLAN_COLLECT_METADATA, b"")),
        group=wire.parse_u32(attributes.get(wire.IFLA_GROUP)),
        learning=any(data.get(wire.IFLA_VXLAN_LEARNING, b"")),
    )


#: Flags of IPv6 addresses (linux/if_addr.h): IFA_F_TEMPORARY, _DADFAILED, _DEPRECATED, _TENTATIVE.
_PASSING = 0x01 | 0x08 | 0x20 | 0x40


def parse_address_record(body: bytes) -> Address:
    """Read an RTM_NEWADDR message's body. IFA_LOCAL is the device's own address where both are given."""
    _family, length, flags, scope, index = _IFADDRMSG.unpack_from(body)
    attributes = wire.parse_attributes(body, _IFADDRMSG.size)
    raw = attributes.get(wire.IFA_LOCAL) or attributes[wire.IFA_ADDRESS]
    address = ip_address(raw)
    # IFA_F_TEMPORARY means IFA_F_SECONDARY for IPv4
    passing = isinstance(address, IPv6Address) and flags & _PASSING
    return Address(index, address, length, scope == wire.RT_SCOPE_UNIVERSE and not passing)


def parse_route(body: bytes) -> Route | None:
    """Read an RTM_NEWROUTE message's body; None for one that is not for unicast."""
    family, length, _source, _tos, table, protocol, _scope, kind, flags = _RTMSG.unpack_from(body)
    attributes = wire.parse_attributes(body, _RTMSG.size)
    if kind not in _ROUTE_KINDS or flags & wire.RTM_F_CLONED:
        return None
    is_v4 = family == socket.AF_INET
    raw = attributes.get(wire.RTA_DST, bytes(4 if is_v4 else 16))
    destination = IPv4Network((raw, length)) if is_v4 else IPv6Network((raw, length))
    gateway, source = attributes.get(wire.RTA_GATEWAY), attributes.get(wire.RTA_PREFSRC)
    metrics = wire.parse_attributes(attributes.get(wire.RTA_METRICS, b""))
    return Route(
        destination=destination,
        index=wire.parse_u32(attributes.get(wire.RTA_OIF)) if kind == wire.RTN_UNICAST else 0,
        gateway=ip_address(gateway) if gateway else None,
        source=ip_address(source) if source else None,
        protocol=protocol,
        table=wire.parse_u32(attributes.get(wire.RTA_TABLE)) or table,
        priority=wire.parse_u32(attributes.get(wire.RTA_PRIORITY)),
        mtu=wire.parse_u32(metrics.get(wire.RTAX_MTU)) or None,
    )


def parse_route_mtu(body: bytes) -> int | None:
    """Read from an RTM_NEWROUTE message's body the MTU that the route has of its own; None: none, or Fast's route."""
    _family, _length, _source, _tos, _table, protocol, _scope, kind, flags = _RTMSG.unpack_from(body)
    if kind != wire.RTN_UNICAST or flags & wire.RTM_F_CLONED or protocol == ROUTE_PROTOCOL:
        return None
    metrics = wire.parse_attributes(wire.parse_attributes(body, _RTMSG.size).get(wire.RTA_METRICS, b""))
    return wire.parse_u32(metrics.get(wire.RTAX_MTU)) or None


def parse_rule(body: bytes) -> Rule | None:
    """Read an RTM_NEWRULE message's body; None for a rule that does not select by source."""
    family, _, length, _tos, table, _action, _flags = _RULE.unpack_from(body)
    attributes = wire.parse_attributes(body, _RULE.size)
    raw = attributes.get(wire.FRA_SRC)
    if raw is None:
        return None
    network = IPv4Network if family == socket.AF_INET else IPv6Network
    return Rule(
        source=network((raw, length), strict=False),  # the kernel keeps the host's bits of what it is given
        table=wire.parse_u32(attributes.get(wire.FRA_TABLE)) or table,
        priority=wire.parse_u32(attributes.get(wire.FRA_PRIORITY)),
        protocol=attributes.get(wire.FRA_PROTOCOL, b"\0")[0],
    )


def parse_neighbour(body: bytes) -> Neighbour | None:
    """Read an RTM_NEWNEIGH message's body; None for one without an address."""
    _family, index, state, _flags, _type = _NDMSG.unpack_from(body)
    attributes = wire.parse_attributes(body, _NDMSG.size)
    if wire.NDA_DST not in attributes:
        return None
    mac = _mac(attributes.get(wire.NDA_LLADDR))
    return Neighbour(index, ip_address(attributes[wire.NDA_DST]), mac, bool(state & wire.NUD_PERMANENT))


def _mac(raw: bytes | None) -> Mac | None:
    return Mac(raw) if raw and len(raw) == _MAC_LENGTH else None
