"""Nodes whose underlay is no plain NIC: a bridge, a macvlan device, a device without Ethernet as of a VPN."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import struct
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from fast.datapath.bpf.layout import Device
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.datapath_config import DatapathConfig
from fast.datapath.node.node_datapath import NodeDatapath
from kernel import traffic
from kernel.fastlab import POD_SUBNETS, Cluster, Node, attach_pods, cluster, ip_of
from kernel.lab import Machine, Underlay, node_ip, underlay
from kernel.services import Service, install, vip

_TUN = 10, 200  # /dev/net/tun, which not every container has
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
SHORT = Reason.FORWARD_TUNNEL, PacketDirection.FROM_POD


def on_bridge(machine: Machine) -> None:
    """Make the NIC a port of a bridge, which takes over its addresses."""
    move_addresses(
        machine, "br0", "ip link add br0 type bridge stp_state 0 forward_delay 0; ip link set u0 master br0"
    )


def on_macvlan(machine: Machine) -> None:
    """Put a macvlan device on the NIC, which takes over its addresses."""
    move_addresses(machine, "mv0", "ip link add mv0 link u0 type macvlan mode bridge")


def move_addresses(machine: Machine, device: str, make: str) -> None:
    number = machine.name.removeprefix("n")
    machine.run(
        f"{make}\nip addr flush dev u0; ip link set {device} up\n"
        f"ip addr add {node_ip(int(number))}/24 dev {device}; ip addr add fd77::{number}/64 dev {device} nodad\n"
        f"ip route replace default via 192.168.77.100; ip -6 route replace default via fd77::64 dev {device}"
    )


def assert_short_way(made: Cluster) -> None:
    a, c = attach_pods(made, 1)
    node = made.nodes[0]
    with traffic.server(c):
        for address, own in ((c.ip, a.ip), (c.ip6, a.ip6)):
            before = node.count(*SHORT)
            traffic.every_way(a, address, own)
            assert node.count(*SHORT) > before + 10


@pytest.mark.parametrize("prepare", [on_bridge, on_macvlan])
def test_pods_reach_each_other_by_the_short_way_over_a_device_on_the_nic(prepare):
    with cluster(prepare=prepare) as made:
        assert_short_way(made)


def multi_homed(machine: Machine) -> None:
    """Put another address before the node's, as of a network for storage: a masquerade that may choose takes it."""
    number = machine.name.removeprefix("n")
    machine.run(
        f"ip addr flush dev u0; ip addr add 10.99.0.{number}/24 dev u0; ip addr add fd99::{number}/64 dev u0 nodad\n"
        f"ip addr add {node_ip(int(number))}/24 dev u0; ip addr add fd77::{number}/64 dev u0 nodad\n"
        "ip route replace default via 192.168.77.100; ip -6 route replace default via fd77::64"
    )


@pytest.mark.parametrize("flavour", ["nft", "iptables"])
@pytest.mark.parametrize("routing", ["vxlan", "native"])
def test_a_node_port_whose_backend_is_on_another_node_works_on_a_node_with_other_addresses(flavour, routing):
    with cluster(prepare=multi_homed, routing=routing) as made:
        a, c = attach_pods(made, 1)
        here = made.nodes[0]
        with traffic.server(c):
            for version in (4, 6):
                port, backend = 30000 + version, ip_of(c, version)
                install(here, [Service(vip(1, version), backend, port)], flavour)
                for client in (a, here, made.outside):
                    own = ip_of(here, version)
                    assert traffic.tcp(client, own, port) == str(own), client


def routed(machine: Machine, gateway: bool = True) -> None:
    """Put the node's address on the loopback device, as where routers are told of it."""
    number = int(machine.name.removeprefix("n"))
    here, there = node_ip(number), node_ip(3 - number)
    way = f"via 192.168.79.{3 - number} dev u0" if gateway else "dev u0"
    machine.run(
        f"ip addr del {here}/24 dev u0; ip addr add {here}/32 dev lo; ip addr add 192.168.79.{number}/24 dev u0\n"
        f"ip route add {there} {way} src {here}; ip -6 route del default"
    )


def mtus(node):
    return node.call(lambda: node.datapath.pod_mtu), node.call(
        node.datapath._up().devices.get, Device.TUNNEL
    ).mtu


def test_where_only_the_loopback_device_has_the_nodes_address_pods_get_what_the_way_out_carries():
    with cluster(prepare=routed) as made:
        assert mtus(made.nodes[0]) == (1450, 1450)
        assert_short_way(made)


def test_where_only_the_loopback_device_has_the_nodes_address_its_nics_take_packets_of_other_nodes_ports():
    def strict(machine):
        routed(machine)
        machine.run("sysctl -qw net.ipv4.conf.all.rp_filter=1")

    with cluster(prepare=strict) as made:
        a, _ = attach_pods(made, 1)
        here, there = made.nodes
        install(here, [Service(vip(1, 4), a.ip, 30001)], "nft")
        with traffic.server(a):
            assert traffic.tcp(there, here.ip, 30001) == str(here.ip)


def test_a_tunnel_without_a_known_width_loses_no_packet_that_is_larger_than_the_nic_carries():
    # No route has a gateway and no device is hardware: what fits an IP packet is taken for what is carried.
    def unknown(machine):
        routed(machine, gateway=False)

    with cluster(prepare=unknown) as made:
        assert mtus(made.nodes[0]) == (65485, 65485)
        a, c = attach_pods(made, 1)
        with traffic.server(c):
            for size in (20, 4000) * 10:
                assert traffic.udp(a, c.ip, size=size, attempts=1, seconds=5) == str(a.ip)
            assert traffic.tcp(a, c.ip, size=traffic.LARGE_BYTES) == str(a.ip)


def open_tun(machine: Machine, address: IPv4Address) -> int:
    """Make a device without Ethernet, and give the descriptor at its other end."""

    def make() -> int:
        os.mknod("/run/tun", stat.S_IFCHR | 0o600, os.makedev(*_TUN))
        fd = os.open("/run/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"vpn0", _IFF_TUN | _IFF_NO_PI))
        return fd

    fd = machine.call(make)
    machine.run(f"ip addr add {address}/24 dev vpn0; ip link set vpn0 mtu 1420 up")
    return fd


@contextlib.contextmanager
def joined(one: int, other: int) -> Iterator[None]:
    """Hand packets over between two such devices, as a VPN would."""
    stop = threading.Event()

    def relay() -> None:
        while not stop.is_set():
            ready, _, _ = select.select([one, other], [], [], 0.1)
            for fd in ready:
                os.write(other if fd == one else one, os.read(fd, 1 << 16))

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.close(one)
        os.close(other)


def vpn_node(net: Underlay, number: int, address: IPv4Address) -> Node:
    machine = net.machines[number - 1]
    config = DatapathConfig(machine.name, address, pod_subnets=POD_SUBNETS, max_cluster_entries=4096)
    datapath = NodeDatapath(config)
    machine.call(datapath.ensure)
    return Node(machine, address, IPv6Address(f"fd77::{number}"), config, datapath)


def test_pods_reach_each_other_by_the_short_way_over_a_vpn_without_ethernet():
    addresses = [IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")]
    with underlay() as net:
        machines = [net.join(f"n{number}", number) for number in (1, 2)]
        ends = [open_tun(machine, address) for machine, address in zip(machines, addresses, strict=True)]
        with joined(*ends):
            nodes = [vpn_node(net, number, address) for number, address in enumerate(addresses, 1)]
            made = Cluster(net, nodes, net.join("outside", 100), node_ip(100))
            assert_short_way(made)
            assert made.nodes[0].call(lambda: made.nodes[0].datapath.pod_mtu) == 1370
