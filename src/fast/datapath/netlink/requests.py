"""The rtnetlink requests Fast makes, each as one value that says in words what it asks for. Nothing is sent here."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass, field, replace

from fast.datapath.netlink import wire
from fast.net import IPAddress, IPNetwork, Mac

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_RULE = struct.Struct("=BBBBBxxBI")  # family, dst len, src len, tos, table, action, flags
_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

#: Marks the routes that Fast made (``ip route show proto 117``); not among the numbers of iproute2's rt_protos.
ROUTE_PROTOCOL = 117


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a batch.

    Attributes:
        kind: RTM_* number.
        flags: NLM_F_* beyond REQUEST and ACK.
        body: The family header and its attributes.
        what: What is asked, for the error message: ``add route 10.244.10.0/32``.
        tolerated: errno values that mean the wanted state is there already.
    """

    kind: int
    flags: int
    body: bytes
    what: str
    tolerated: frozenset[int] = field(default=frozenset())

    def tolerating(self, *errnos: int) -> Request:
        """Give the same request for which these errno values are success too."""
        return replace(self, tolerated=frozenset(errnos))


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 -- IP versions


def _link_body(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change)


def add_veth(
    name: str, mac: Mac, peer: str, peer_mac: Mac, peer_netns: int, mtu: int, group: int = 0
) -> Request:
    """Make a veth pair: ``name`` here and up, ``peer`` (down) right inside the namespace of descriptor ``peer_netns``.

    ``group`` is the device group of ``name``.

    The peer cannot be created up: the kernel would open it before its other end exists (ENOTCONN).
    """
    other = (
        _link_body()
        + wire.text(wire.IFLA_IFNAME, peer)
        + wire.attribute(wire.IFLA_ADDRESS, peer_mac)
        + wire.u32(wire.IFLA_MTU, mtu)
        + wire.u32(wire.IFLA_NET_NS_FD, peer_netns)
    )
    body = (
        _link_body(flags=wire.IFF_UP, change=wire.IFF_UP)
        + wire.text(wire.IFLA_IFNAME, name)
        + wire.attribute(wire.IFLA_ADDRESS, mac)
        + wire.u32(wire.IFLA_MTU, mtu)
        + wire.u32(wire.IFLA_GROUP, group)
        + wire.nested(
            wire.IFLA_LINKINFO,
            wire.text(wire.IFLA_INFO_KIND, "veth"),
            wire.nested(wire.IFLA_INFO_DATA, wire.nested(wire.VETH_INFO_PEER, other)),
        )
    )
    what = f"add veth {name} with peer {peer}"
    return Request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, body, what)


def add_vxlan(name: str, mac: Mac, port: int, mtu: int) -> Request:
    """Make a collect-metadata VXLAN device, down: no VNI, no FDB learning, no ARP; the programs set the tunnel key."""
    body = (
        _link_body(flags=wire.IFF_NOARP, change=wire.IFF_NOARP)
        + wire.text(wire.IFLA_IFNAME, name)
        + wire.attribute(wire.IFLA_ADDRESS, mac)
        + wire.u32(wire.IFLA_MTU, mtu)
        + wire.nested(
            wire.IFLA_LINKINFO,
            wire.text(wire.IFLA_INFO_KIND, "vxlan"),
            wire.nested(
                wire.IFLA_INFO_DATA,
                wire.attribute(wire.IFLA_VXLAN_PORT, struct.pack(">H", port)),
                wire.attribute(wire.IFLA_VXLAN_COLLECT_METADATA, b"\1"),
                wire.attribute(wire.IFLA_VXLAN_LEARNING, b"\0"),
            ),
        )
    )
    what = f"add vxlan device {name} on UDP port {port}"
    return Request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, body, what)


def set_link(
    index: int,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    mac: Mac | None = None,
    alias: str | None = None,
    name: str | None = None,
    group: int | None = None,
) -> Request:
    """Change what is given of the device of that index; with index 0, of the device called ``name``."""
    flags = 0 if up is None else wire.IFF_UP
    body = _link_body(index, flags if up else 0, flags)
    body += b"" if name is None else wire.text(wire.IFLA_IFNAME, name)
    body += b"" if mtu is None else wire.u32(wire.IFLA_MTU, mtu)
    body += b"" if mac is None else wire.attribute(wire.IFLA_ADDRESS, mac)
    # The kernel takes an alias without its NUL; an empty one, which takes the alias away, has to be one byte, the NUL.
    body += b"" if alias is None else wire.attribute(wire.IFLA_IFALIAS, alias.encode() or b"\0")
    body += b"" if group is None else wire.u32(wire.IFLA_GROUP, group)
    return Request(wire.RTM_NEWLINK, 0, body, f"set device {name or index}")


def get_link(name: str) -> Request:
    """Ask for the device of that name; it answers one link record."""
    body = _link_body() + wire.text(wire.IFLA_IFNAME, name)
    return Request(wire.RTM_GETLINK, 0, body, f"get device {name}")


def get_link_at(index: int) -> Request:
    """Ask for the device of that index; it answers one link record."""
    return Request(wire.RTM_GETLINK, 0, _link_body(index), f"get device {index}")


def delete_link(index: int, name: str) -> Request:
    """Delete the device (for a veth: both ends). ENODEV is tolerated. The kernel takes some 20 ms for it."""
    body = _link_body(index) + (b"" if index else wire.text(wire.IFLA_IFNAME, name))
    return Request(wire.RTM_DELLINK, 0, body, f"delete device {name}").tolerating(errno.ENODEV)


def delete_group(group: int) -> Request:
    """Delete every device of the group, all in one wait of the kernel's. An empty group is tolerated."""
    body = _link_body() + wire.u32(wire.IFLA_GROUP, group)
    request = Request(wire.RTM_DELLINK, 0, body, f"delete the devices of group {group}")
    return request.tolerating(errno.ENODEV, errno.EINVAL)


def dump_links(kind: str = "") -> Request:
    """Ask for all devices, or those of one kind (``veth``, ``vxlan``)."""
    body = _link_body()
    if kind:
        body += wire.nested(wire.IFLA_LINKINFO, wire.text(wire.IFLA_INFO_KIND, kind))
    return Request(wire.RTM_GETLINK, wire.NLM_F_DUMP, body, "list devices")


def add_address(
    index: int, address: IPAddress, prefix_length: int | None = None, *, link_scope: bool = False
) -> Request:
    """Give the device an address (default: a host address, /32 or /128). IPv6 without duplicate address detection.

    One of link scope is no source for packets that leave by other devices.
    """
    length = address.max_prefixlen if prefix_length is None else prefix_length
    scope = wire.RT_SCOPE_LINK if link_scope else wire.RT_SCOPE_UNIVERSE
    body = (
        _IFADDRMSG.pack(_family(address), length, 0, scope, index)
        + wire.attribute(wire.IFA_LOCAL, address.packed)
        + wire.attribute(wire.IFA_ADDRESS, address.packed)
    )
    if _family(address) == socket.AF_INET6:
        body += wire.u32(wire.IFA_FLAGS, wire.IFA_F_NODAD)
    flags = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
    return Request(wire.RTM_NEWADDR, flags, body, f"add address {address}/{length}")


def delete_address(index: int, address: IPAddress, prefix_length: int) -> Request:
    """Take an address from the device."""
    body = (
        _IFADDRMSG.pack(_family(address), prefix_length, 0, 0, index)
        + wire.attribute(wire.IFA_LOCAL, address.packed)
        + wire.attribute(wire.IFA_ADDRESS, address.packed)
    )
    return Request(wire.RTM_DELADDR, 0, body, f"delete address {address}", frozenset({errno.EADDRNOTAVAIL}))


def dump_addresses(index: int = 0) -> Request:
    """Ask for the addresses of both families, of one device or (0) of all."""
    body = _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, index)
    return Request(wire.RTM_GETADDR, wire.NLM_F_DUMP, body, "list addresses")


def _route(destination: IPNetwork, index: int, table: int, scope: int, flags: int = 0) -> bytes:
    body = _RTMSG.pack(
        _family(destination.network_address),
        destination.prefixlen,
        0,
        0,
        table,
        ROUTE_PROTOCOL,
        scope,
        wire.RTN_UNICAST,
        flags,
    )
    if destination.prefixlen:
        body += wire.attribute(wire.RTA_DST, destination.network_address.packed)
    return body + wire.u32(wire.RTA_OIF, index)


def replace_route(
    destination: IPNetwork,
    index: int,
    *,
    gateway: IPAddress | None = None,
    source: IPAddress | None = None,
    mtu: int | None = None,
    table: int = wire.RT_TABLE_MAIN,
    gateway_on_link: bool = False,
) -> Request:
    """Set the route to ``destination`` through the device; without a gateway it is on-link.

    Args:
        destination: A network; the default route as 0.0.0.0/0 or ::/0.
        index: Of the device.
        gateway: Next hop, which must itself be reachable on-link.
        source: Preferred source address, for packets this host makes.
        mtu: Largest packet the route carries, in bytes; None: as the device. Locked: the kernel forwards by the
            device's otherwise, and tells senders of that first.
        table: Number of the routing table, up to 255.
        gateway_on_link: Take the gateway as reachable through the device, whatever routes say.
    """
    scope = wire.RT_SCOPE_LINK if gateway is None and destination.version == 4 else wire.RT_SCOPE_UNIVERSE  # noqa: PLR2004
    body = _route(destination, index, table, scope, wire.RTNH_F_ONLINK if gateway_on_link else 0)
    body += b"" if gateway is None else wire.attribute(wire.RTA_GATEWAY, gateway.packed)
    body += b"" if source is None else wire.attribute(wire.RTA_PREFSRC, source.packed)
    if mtu is not None:
        lock = wire.u32(wire.RTAX_LOCK, 1 << wire.RTAX_MTU)
        body += wire.nested(wire.RTA_METRICS, lock, wire.u32(wire.RTAX_MTU, mtu))
    flags = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
    via = f" via {gateway}" if gateway else ""
    return Request(wire.RTM_NEWROUTE, flags, body, f"set route {destination}{via}")


def delete_route(destination: IPNetwork, index: int, table: int = wire.RT_TABLE_MAIN) -> Request:
    """Delete Fast's route to ``destination`` through the device; none there is tolerated."""
    body = _route(destination, index, table, wire.RT_SCOPE_NOWHERE)  # any scope
    request = Request(wire.RTM_DELROUTE, 0, body, f"delete route {destination}")
    return request.tolerating(errno.ESRCH, errno.ENODEV)


def dump_routes(version: int, index: int = 0, table: int = wire.RT_TABLE_MAIN) -> Request:
    """Ask for the routes of IPv4 or IPv6 in the table or (0) all; through one device or (0) all; ENOENT: no table."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
    body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    body += wire.u32(wire.RTA_TABLE, table) if table else b""
    body += wire.u32(wire.RTA_OIF, index) if index else b""
    return Request(wire.RTM_GETROUTE, wire.NLM_F_DUMP, body, f"list IPv{version} routes")


def _rule(source: IPNetwork, table: int, priority: int) -> bytes:
    return (
        _RULE.pack(_family(source.network_address), 0, source.prefixlen, 0, table, wire.FR_ACT_TO_TBL, 0)
        + wire.attribute(wire.FRA_SRC, source.network_address.packed)
        + wire.u32(wire.FRA_PRIORITY, priority)
        + wire.attribute(wire.FRA_PROTOCOL, bytes([ROUTE_PROTOCOL]))
    )


def add_rule(source: IPNetwork, table: int, priority: int) -> Request:
    """Let packets from ``source`` look into the routing table first; such a rule already there is tolerated."""
    what = f"add rule from {source} to table {table}"
    flags = wire.NLM_F_CREATE | wire.NLM_F_EXCL
    return Request(wire.RTM_NEWRULE, flags, _rule(source, table, priority), what).tolerating(errno.EEXIST)


def delete_rule(source: IPNetwork, table: int, priority: int) -> Request:
    """Delete the rule that :func:`add_rule` makes; none there is tolerated."""
    what = f"delete rule from {source} to table {table}"
    return Request(wire.RTM_DELRULE, 0, _rule(source, table, priority), what).tolerating(errno.ENOENT)


def dump_rules(version: int) -> Request:
    """Ask for the routing rules of IPv4 or IPv6."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
    return Request(
        wire.RTM_GETRULE, wire.NLM_F_DUMP, _RULE.pack(family, 0, 0, 0, 0, 0, 0), "list routing rules"
    )


def replace_neighbour(index: int, address: IPAddress, mac: Mac) -> Request:
    """Set a permanent neighbour entry: nobody asks by ARP or neighbour discovery for it."""
    body = (
        _NDMSG.pack(_family(address), index, wire.NUD_PERMANENT, 0, 0)
        + wire.attribute(wire.NDA_DST, address.packed)
        + wire.attribute(wire.NDA_LLADDR, mac)
    )
    flags = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
    return Request(wire.RTM_NEWNEIGH, flags, body, f"set neighbour {address} at {mac}")


def resolve_neighbour(index: int, address: IPAddress) -> Request:
    """Let the kernel find out the neighbour's MAC where it does not know it, as if there were a packet to send.

    That the kernel has no room for the entry is tolerated: it will say so when there is a packet.
    """
    body = _NDMSG.pack(_family(address), index, 0, wire.NTF_USE, 0) + wire.attribute(
        wire.NDA_DST, address.packed
    )
    return Request(wire.RTM_NEWNEIGH, wire.NLM_F_CREATE, body, f"resolve neighbour {address}").tolerating(
        errno.ENOBUFS
    )


def dump_neighbours(version: int) -> Request:
    """Ask for the neighbour entries of IPv4 or IPv6."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
    return Request(wire.RTM_GETNEIGH, wire.NLM_F_DUMP, _NDMSG.pack(family, 0, 0, 0, 0), "list neighbours")
