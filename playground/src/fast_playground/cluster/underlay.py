"""The network between a playground's nodes: a Linux bridge in a network namespace of its own, a veth for every node.

The bridge's own address plays the outside world: the nodes' default route leads there, the API server listens there.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from fast.datapath.netlink import Netlink, Request, requests, wire
from fast.datapath.netns import Netns, run_in
from fast.net import Mac, parse_subnet

NETWORK = IPv4Network("192.168.77.0/24")
SECOND_NETWORK = IPv4Network("192.168.78.0/24")
#: The bridge's address: the nodes' default gateway, and where they find the API server.
OUTSIDE = IPv4Address("192.168.77.254")
MAX_NODES = 200
_BRIDGE = "underlay"
_IFLA_MASTER = 10  # linux/if_link.h
_DEFAULT_ROUTE = parse_subnet("0.0.0.0/0")
_UPLINK = "eth0"


def node_address(number: int) -> IPv4Address:
    """Return the underlay address of node ``number``, counted from 1."""
    return NETWORK[number]


def second_address(number: int) -> IPv4Address:
    """Return the second address of node ``number``, which is in another network than its first."""
    return SECOND_NETWORK[number]


def add_second_address(node: Path, number: int) -> None:
    """Give a node its second address, on the same device; ``node`` is the path of its network namespace."""
    with Netns.open(str(node)) as inside, Netlink(inside.fd) as netlink:
        uplink = _index(netlink, _UPLINK)
        netlink.execute(requests.add_address(uplink, second_address(number), SECOND_NETWORK.prefixlen))


def ensure_bridge(namespace: Path, mtu: int) -> None:
    """Make the bridge, with its address, in the underlay's namespace.

    Args:
        namespace: Its path, as ``/proc/PID/ns/net``.
        mtu: Of the bridge, in bytes.
    """
    with Netns.open(str(namespace)) as netns, Netlink(netns.fd) as netlink:
        netlink.execute(requests.set_link(0, name="lo", up=True), _add_bridge(mtu))
        bridge = _index(netlink, _BRIDGE)
        netlink.execute(
            requests.set_link(bridge, up=True), requests.add_address(bridge, OUTSIDE, NETWORK.prefixlen)
        )


def connect_node(underlay: Path, node: Path, number: int, mtu: int) -> None:
    """Wire a node to the bridge: ``eth0`` in the node with its address and default route, ``nN`` in the underlay.

    Replaces what an earlier boot of the node left in the underlay.

    Args:
        underlay: Path of the underlay's network namespace.
        node: Path of the node's.
        number: Of the node, counted from 1.
        mtu: Of both ends, in bytes.
    """
    port = f"n{number}"
    with Netns.open(str(underlay)) as outside, Netns.open(str(node)) as inside:
        with Netlink(outside.fd) as netlink:
            veth = requests.add_veth(
                port, Mac.derived(f"underlay {port}"), _UPLINK, Mac.derived(f"node {port}"), inside.fd, mtu
            )
            netlink.execute(requests.delete_link(0, port))
            netlink.execute(veth)
            netlink.execute(_set_master(_index(netlink, port), _index(netlink, _BRIDGE)))
        with Netlink(inside.fd) as netlink:
            uplink = _index(netlink, _UPLINK)
            netlink.execute(
                requests.set_link(0, name="lo", up=True),
                requests.set_link(uplink, up=True),
                requests.add_address(uplink, node_address(number), NETWORK.prefixlen),
                requests.replace_route(_DEFAULT_ROUTE, uplink, gateway=OUTSIDE),
            )


def listen(underlay: Path, port: int) -> socket.socket:
    """Make a TCP socket that listens on the bridge's address. Its holder can serve there from any namespace."""

    def make() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(OUTSIDE), port))
        listener.listen(1024)
        return listener

    with Netns.open(str(underlay)) as netns:
        return run_in(netns.fd, make)


def _index(netlink: Netlink, name: str) -> int:
    link = netlink.find_link(name)
    assert link is not None, f"{name} was just made"
    return link.index


def _add_bridge(mtu: int) -> Request:
    body = (
        bytes(16)  # struct ifinfomsg: all of it is given by attributes
        + wire.text(wire.IFLA_IFNAME, _BRIDGE)
        + wire.u32(wire.IFLA_MTU, mtu)
        + wire.attribute(wire.IFLA_ADDRESS, Mac.derived("underlay bridge"))
        + wire.nested(wire.IFLA_LINKINFO, wire.text(wire.IFLA_INFO_KIND, "bridge"))
    )
    request = Request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, body, f"add bridge {_BRIDGE}")
    return request.tolerating(errno.EEXIST)


def _set_master(index: int, bridge: int) -> Request:
    body = b"\0\0\0\0" + index.to_bytes(4, "little") + bytes(8) + wire.u32(_IFLA_MASTER, bridge)
    return Request(wire.RTM_NEWLINK, 0, body, f"put device {index} into bridge {_BRIDGE}")
