"""fast_from_pod, into the tunnel without the device: the outer headers it writes, and when the device has to do it."""

import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from fast.datapath.bpf import DevFlag, PacketDirection, Reason
from fast.net import Mac
from kernel.bpf.node import (
    ENCAP_BYTES,
    HOST_MAC,
    MAC_A,
    NEXT_HOP_WAYS,
    NODE,
    OTHER_NODE,
    REDIRECT,
    TUNNEL_MTU,
    TUNNEL_PORT,
    UNDERLAY_MTU,
    V4,
    VNI,
    only,
)
from kernel.bpf.packets import TCP, UDP, Ip, ethernet, tcp, udp

#: Longer than the programs go by a route that they have looked up: two of the kernel's ticks, of 10 ms at most.
REMEMBERED_SECONDS = 0.05
ENCAPSULATED = only(Reason.FORWARD_TUNNEL, PacketDirection.FROM_POD)
LEFT_TO_DEVICE = only(Reason.FORWARD_TUNNEL_DEVICE, PacketDirection.FROM_POD)


@dataclass(frozen=True)
class Outer:
    """What stands before the pod's own frame, read from a packet that has left the program."""

    tos: int
    total_bytes: int
    identification: int
    fragment_bits: int
    ttl: int
    protocol: int
    checksum_over_all: int
    source: IPv4Address
    destination: IPv4Address
    ports: tuple[int, int]
    udp_bytes: int
    udp_checksum: int
    vxlan: tuple[int, int]
    inner: bytes

    @classmethod
    def of(cls, frame: bytes) -> "Outer":
        ip, transport, tunnel = frame[14:34], frame[34:42], frame[42:50]
        first, tos, total, identification, fragment, ttl, protocol, _, source, destination = struct.unpack(
            "!BBHHHBBH4s4s", ip
        )
        assert first == 0x45
        words = sum(struct.unpack("!10H", ip))
        *ports, length, checksum = struct.unpack("!HHHH", transport)
        flags, vni = struct.unpack("!II", tunnel)
        return cls(
            tos,
            total,
            identification,
            fragment,
            ttl,
            protocol,
            (words & 0xFFFF) + (words >> 16),
            IPv4Address(source),
            IPv4Address(destination),
            tuple(ports),
            length,
            checksum,
            (flags, vni),
            frame[ENCAP_BYTES:],
        )


@pytest.fixture(autouse=True)
def nothing_remembered(node):
    """No route that an earlier test had is gone by any more."""
    time.sleep(REMEMBERED_SECONDS)


def sent(node, packet, **context):
    result, grew = node.from_pod(packet, **context)
    assert (result.verdict, grew) == (REDIRECT, ENCAPSULATED)
    return Outer.of(result.packet)


def test_the_outer_headers_are_those_of_vxlan_from_this_node_to_the_other(node, ip):
    packet = Ip(ip.a, ip.r, TCP, tcp(1000, 80, b"payload"))
    outer = sent(node, packet)
    assert (outer.source, outer.destination, outer.protocol) == (NODE, OTHER_NODE, UDP)
    assert (outer.ttl, outer.fragment_bits, outer.checksum_over_all) == (64, 0, 0xFFFF)
    assert outer.ports[1] == TUNNEL_PORT
    assert 49152 <= outer.ports[0] <= 65535
    assert outer.udp_checksum == 0
    assert outer.vxlan == (0x08000000, VNI << 8)
    assert (outer.total_bytes, outer.udp_bytes) == (len(outer.inner) + 36, len(outer.inner) + 16)
    assert outer.inner == ethernet(MAC_A, HOST_MAC, packet.ethertype, bytes(packet))


def test_the_checksum_is_right_whatever_the_size(node):
    sums = {sent(node, Ip(V4.a, V4.r, UDP, udp(1, 2, bytes(size)))).checksum_over_all for size in range(600)}
    assert sums == {0xFFFF}


def with_traffic_class(packet, value):
    raw = bytearray(bytes(packet))
    if packet.source.version == 4:
        raw[1] = value
    else:
        raw[0:2] = (6 << 12 | value << 4).to_bytes(2, "big")
    return bytes(raw)


@pytest.mark.parametrize(("inner", "outer"), [(0, 0), (1, 1), (2, 2), (3, 2), (0xB8 | 1, 1), (0xFC, 0)])
def test_the_outer_header_tells_of_congestion_and_nothing_else_of_the_traffic_class(node, ip, inner, outer):
    packet = Ip(ip.a, ip.r, TCP, tcp(1, 2))
    raw = with_traffic_class(packet, inner)
    assert sent(node, raw, ethertype=packet.ethertype).tos == outer


def test_a_flow_keeps_its_source_port_and_flows_have_many(node, ip):
    def port(source_port):
        return sent(node, Ip(ip.a, ip.r, TCP, tcp(source_port, 80))).ports[0]

    assert len({port(1000) for _ in range(20)}) == 1
    assert len({port(source_port) for source_port in range(1000, 1100)}) > 90


def test_packets_have_identifications_of_their_own(node):
    packet = Ip(V4.a, V4.r, TCP, tcp(1, 2))
    assert len({sent(node, packet).identification for _ in range(50)}) > 40


def test_a_packet_is_counted_by_its_size_before_it_went_into_the_tunnel(node):
    packet = Ip(V4.a, V4.r, TCP, tcp(1, 2))
    key = (Reason.FORWARD_TUNNEL, PacketDirection.FROM_POD)
    sent(node, packet)
    before = node.metrics.read()[key].byte_count
    sent(node, packet)
    assert node.metrics.read()[key].byte_count - before == 14 + len(bytes(packet))


# By the device.


def left_to_device(node, ip):
    packet = Ip(ip.a, ip.r, TCP, tcp(1000, 80))
    result, grew = node.from_pod(packet)
    assert (result.verdict, grew) == (REDIRECT, LEFT_TO_DEVICE)
    return result.packet[14:] == bytes(packet)


def test_where_the_device_may_not_be_skipped_it_gets_the_packet_as_it_is(node, ip):
    node.set_tunnel(DevFlag.NONE)
    assert left_to_device(node, ip)


def test_segments_that_the_kernel_could_not_cut_behind_outer_headers_are_the_devices_to_cut(node, ip):
    # BPF_PROG_RUN's packets have a segment size, but no kind of segments.
    packet = Ip(ip.a, ip.r, TCP, tcp(1, 2, bytes(3000)))
    result, grew = node.from_pod(packet, gso_size=1000)
    assert (result.packet[14:], grew) == (bytes(packet), LEFT_TO_DEVICE)


@pytest.fixture
def route(node):
    """Change the route to the other node for a while."""

    def change(what):
        node.machine.run(f"ip route replace {OTHER_NODE}/32 {what}")
        time.sleep(REMEMBERED_SECONDS)

    yield change
    node.machine.run(f"ip route del {OTHER_NODE}/32", check=False)


@pytest.mark.parametrize(
    "what",
    [
        f"dev nic mtu lock {TUNNEL_MTU + ENCAP_BYTES - 1}",
        "via inet6 fe80::1 dev nic",
        "dev nic encap ip id 1 dst 192.168.77.9",
    ],
)
def test_a_route_that_the_program_cannot_follow_is_the_devices_to_follow(node, ip, route, what):
    route(what)
    assert left_to_device(node, ip)


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_a_node_that_no_route_leads_to_is_the_devices_to_refuse(node, ip, route, kind):
    node.machine.run(f"ip route add {kind} {OTHER_NODE}/32")
    time.sleep(REMEMBERED_SECONDS)
    assert left_to_device(node, ip)


def test_a_route_just_wide_enough_is_followed(node, ip, route):
    route(f"dev nic mtu lock {TUNNEL_MTU + ENCAP_BYTES}")
    assert sent(node, Ip(ip.a, ip.r, TCP, tcp(1, 2)))


def test_a_route_that_comes_back_is_followed_again(node, ip, route):
    route(f"dev nic mtu lock {UNDERLAY_MTU - 1}")
    assert left_to_device(node, ip)
    route("dev nic")
    assert sent(node, Ip(ip.a, ip.r, TCP, tcp(1, 2)))


def newly_found(node, action):
    """Do it; give which of its ways to the other node each CPU has looked up meanwhile, and by which gateway."""
    before = max((hop.found_jiffies for _, hop in node.next_hops()), default=0)
    time.sleep(REMEMBERED_SECONDS)
    action()
    return {(way, hop.gateway, hop.ifindex) for way, hop in node.next_hops() if hop.found_jiffies > before}


def test_a_node_behind_a_gateway_is_sent_to_by_the_gateway(node, route):
    route("via 192.168.77.254 dev nic")
    found = newly_found(node, lambda: sent(node, Ip(V4.a, V4.r, TCP, tcp(1, 2))))
    assert {way[1:] for way in found} == {(IPv4Address("192.168.77.254"), node.devices["nic"])}


def send_many_flows(node):
    for source_port in range(1000, 1100):
        sent(node, Ip(V4.a, V4.r, TCP, tcp(source_port, 80)))


def test_where_several_gateways_lead_to_a_node_its_flows_are_spread_over_them_and_each_keeps_to_its_own(
    node, route
):
    node.machine.run("sysctl -qw net.ipv4.fib_multipath_hash_policy=1")
    for number in range(10, 50, 4):  # the kernel's hash is a random one, and may send all to one of them
        gateways = [f"192.168.77.{number + host}" for host in range(4)]
        route(" ".join(f"nexthop via {gateway} dev nic" for gateway in gateways))
        ways = newly_found(node, lambda: send_many_flows(node))
        if len({gateway for _, gateway, _ in ways}) > 1:
            break
    else:
        raise AssertionError("never spread")
    assert {way for way, _, _ in ways} == set(range(NEXT_HOP_WAYS))
    assert newly_found(node, lambda: send_many_flows(node)) == ways


def test_a_frame_to_a_group_is_sent_on_as_any_other(node):
    packet = Ip(V4.a, V4.r, TCP, tcp(1, 2))
    group = Mac.parse("01:00:5e:00:00:01")
    result, grew = node.run("fast_from_pod", ethernet(MAC_A, group, packet.ethertype, bytes(packet)), "ha")
    # The kernel drops what is for a group here, and writes the right address over anything else.
    assert (grew, result.packet[0] & 1) == (ENCAPSULATED, 0)
    assert Outer.of(result.packet).inner[:6] == group
