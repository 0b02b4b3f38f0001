"""What must not get through, sent for real, and the named reason it is counted under."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest
from prometheus_client import CollectorRegistry

from fast.agent.node.packet_metrics import PacketCollector
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.datapath_config import DEFAULT_TUNNEL_PORT
from fast.net import Mac
from kernel import traffic
from kernel.fastlab import attach_pods, cluster, ip_of
from kernel.lab import eventually
from kernel.services import SERVICE_PORT, Service, install, vip

PORT = 8080
ETH_P_ALL = 3


@pytest.fixture(scope="module", params=["vxlan", "native"])
def made(request):
    with cluster(routing=request.param) as found:
        attach_pods(found, 2)
        yield found


def checksum(raw):
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(source, destination, payload=b"", protocol=17):
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, source.packed, destination.packed
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(payload=b"x", source=1234, destination=PORT):
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def frame(source_mac, destination_mac, payload, ethertype=0x0800):
    return bytes(destination_mac) + bytes(source_mac) + struct.pack("!H", ethertype) + payload


def send(place, device, raw):
    def write():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL) as sock:
            sock.bind((device, 0))
            sock.send(raw)

    place.call(write)


def counted(node, reason, action, direction=None):
    """Do it, and give by how much the count grew; waits until it does."""
    before = node.count(reason, direction)
    action()
    return eventually(lambda: node.count(reason, direction) - before, 3)


def from_pod(pod, payload, ethertype=0x0800, source_mac=None):
    raw = frame(source_mac or pod.endpoint.pod_mac, pod.endpoint.host_mac, payload, ethertype)
    return lambda: send(pod, "eth0", raw)


def test_a_source_address_that_is_not_the_pods_is_refused(made):
    here, there = made.nodes
    a, b = here.pods
    for source in (b.ip, there.pods[0].ip, here.ip, made.outside_ip):
        assert counted(here, Reason.DROP_SPOOFED_ADDRESS, from_pod(a, ipv4(source, b.ip, udp())))


def test_a_source_mac_that_is_not_the_pods_is_refused(made):
    a, b = made.nodes[0].pods
    mac = Mac.parse("02:00:00:00:00:66")
    assert counted(
        made.nodes[0], Reason.DROP_SPOOFED_MAC, from_pod(a, ipv4(a.ip, b.ip, udp()), source_mac=mac)
    )


def test_a_pods_packet_to_a_tunnel_port_is_refused_on_every_address_of_a_node(made):
    here, there = made.nodes
    a = here.pods[0]
    packet = udp(destination=DEFAULT_TUNNEL_PORT)
    for target in (here.ip, there.ip, made.outside_ip):
        assert counted(here, Reason.DROP_TUNNEL_PORT, from_pod(a, ipv4(a.ip, target, packet)))


def refused_in_metrics(node):
    """What the agent's metrics say that the firewall refused, in packets."""
    registry = CollectorRegistry()
    registry.register(PacketCollector(node.datapath.counters, node.datapath.refused_by_firewall))
    labels = {"reason": "drop_tunnel_port_translated", "direction": "from_pod", "verdict": "drop"}
    return node.call(registry.get_sample_value, "fast_packets_total", labels)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pods_packet_that_is_translated_to_a_tunnel_port_is_refused_by_the_firewall_and_in_the_metrics(
    made, version
):
    here, family = made.nodes[0], socket.AF_INET if version == 4 else socket.AF_INET6
    services = [
        Service(vip(90 + number, version), ip_of(node, version), backend_port=DEFAULT_TUNNEL_PORT)
        for number, node in enumerate(made.nodes)
    ]
    before = refused_in_metrics(here)
    install(here, services, "nft")
    try:
        for count, service in enumerate(services, 1):
            with here.pods[0].call(socket.socket, family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", (str(service.vip), SERVICE_PORT))
            eventually(lambda expected=before + count: refused_in_metrics(here) == expected)
    finally:
        here.run("nft delete table inet kube_proxy")


def test_an_ethertype_that_is_neither_ip_nor_arp_is_dropped(made):
    a = made.nodes[0].pods[0]
    assert counted(made.nodes[0], Reason.DROP_UNSUPPORTED_ETHERTYPE, from_pod(a, bytes(50), ethertype=0x88CC))


def test_a_header_that_is_cut_off_is_dropped(made):
    a, b = made.nodes[0].pods
    whole = ipv4(a.ip, b.ip, udp())
    assert counted(made.nodes[0], Reason.DROP_TRUNCATED, from_pod(a, whole[:22]))


def test_a_router_advertisement_from_a_pod_is_dropped(made):
    a = made.nodes[0].pods[0]
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    source, everybody = b"\xfe\x80" + bytes(13) + b"\x01", b"\xff\x02" + bytes(13) + b"\x01"
    packet = struct.pack("!IHBB", 6 << 28, len(advertisement), 58, 255) + source + everybody + advertisement
    assert counted(made.nodes[0], Reason.DROP_ROGUE_ROUTER, from_pod(a, packet, ethertype=0x86DD))


def test_an_address_of_the_pod_subnets_that_nobody_has_is_counted(made):
    here = made.nodes[0]
    a = here.pods[0]
    nobody = a.ip + 200
    action = from_pod(a, ipv4(a.ip, nobody, udp()))
    assert counted(here, Reason.DROP_UNKNOWN_DESTINATION, action, PacketDirection.TO_OVERLAY)


def vxlan(inner, vni=1):
    return struct.pack("!II", 1 << 27, vni << 8) + inner


def encapsulated(sender, target, inner, vni=1):
    def action():
        with sender.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(vxlan(inner, vni), (str(target.ip), DEFAULT_TUNNEL_PORT))

    return action


@pytest.fixture
def inner(made):
    """A packet for a pod of the first node, as its source's node would send it: give the source's address."""
    here = made.nodes[0]
    tunnel = Mac.derived(f"{here.config.node_name} {here.config.node_ip}")
    return lambda source: frame(Mac.derived("peer"), tunnel, ipv4(source, here.pods[0].ip, udp()))


def test_a_vxlan_packet_from_somebody_who_is_no_node_is_refused(made, inner):
    here, there = made.nodes
    action = encapsulated(made.outside, here, inner(there.pods[0].ip))
    assert counted(here, Reason.DROP_UNKNOWN_SENDER, action)


def test_a_vxlan_packet_from_a_node_whose_inner_source_lives_elsewhere_is_refused(made, inner):
    here, there = made.nodes
    for source in (here.pods[1].ip, here.ip, made.outside_ip):
        assert counted(here, Reason.DROP_INNER_SOURCE, encapsulated(there, here, inner(source)))


def test_a_vxlan_packet_of_another_network_is_refused(made, inner):
    here, there = made.nodes
    # The device itself takes any identifier: it is in collect-metadata mode.
    assert counted(here, Reason.DROP_WRONG_VNI, encapsulated(there, here, inner(there.pods[0].ip), vni=9))


def test_the_same_packet_from_the_right_node_arrives(made, inner):
    here, there = made.nodes
    action = encapsulated(there, here, inner(there.pods[0].ip))
    assert counted(here, Reason.FORWARD_LOCAL_POD, action, PacketDirection.FROM_OVERLAY)


def test_what_came_out_of_the_tunnel_does_not_go_back_into_it(made):
    here, there = made.nodes
    tunnel = Mac.derived(f"{here.config.node_name} {here.config.node_ip}")
    raw = frame(Mac.derived("peer"), tunnel, ipv4(there.pods[0].ip, there.pods[1].ip, udp()))
    assert counted(here, Reason.DROP_UNKNOWN_DESTINATION, encapsulated(there, here, raw))


def test_a_multicast_of_a_pod_does_not_leave_its_node(made):
    here, there = made.nodes
    a = here.pods[0]
    # Only what arrives: the kernel's own MLD reports want to leave by the tunnel device at any time.
    arrived = (Reason.DROP_NOT_UNICAST, PacketDirection.FROM_OVERLAY)
    before = there.count(*arrived)
    assert counted(here, Reason.STACK_LINK_LOCAL, from_pod(a, ipv4(a.ip, ip_address("239.1.1.1"), udp())))
    assert there.count(*arrived) == before


def test_after_all_of_that_the_pods_still_talk(made):
    here, there = made.nodes
    traffic.ping(here.pods[0], there.pods[0].ip)
    traffic.ping(here.pods[0], here.pods[1].ip6)


def test_pods_may_use_the_tunnels_port_among_themselves_also_over_the_stack(made):
    a, _, c, _ = made.pods
    for address in (c.ip, c.ip6):
        with traffic.server(c, DEFAULT_TUNNEL_PORT):
            for size in (100, traffic.FRAGMENTED_BYTES):
                traffic.udp(a, address, DEFAULT_TUNNEL_PORT, size, attempts=3)  # IPv6 learns its path
