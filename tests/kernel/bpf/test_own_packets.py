"""fast_from_pod: what a pod may say of neighbours, of others' packets, and where it may not send at all."""

import struct
from ipaddress import ip_address

import pytest

from fast.datapath.bpf import Config, ConfigFlag, LocalPodFlag, PacketDirection, Reason
from fast.net import Mac
from kernel.bpf.node import (
    A6,
    MAC_A,
    MAC_B,
    NODE,
    NODE6,
    OUTSIDE,
    PASS,
    SHOT,
    TUNNEL_PORT,
    V4,
    V6,
    VNI,
    A,
    B,
    LoadedNode,
    only,
)
from kernel.bpf.packets import (
    ETH_ARP,
    ETH_IPV6,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Ip,
    arp,
    discovery,
    icmp,
    link_local_of,
    tcp,
    udp,
)

FROM_POD = PacketDirection.FROM_POD
REQUEST, REPLY = 1, 2
SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_MAC, TARGET_MAC, NONCE = 1, 2, 14
UNSPECIFIED, UNSPECIFIED6 = ip_address("0.0.0.0"), ip_address("::")
LL_A, LL_B = link_local_of(MAC_A), link_local_of(MAC_B)
GATEWAY, GATEWAY6 = ip_address("169.254.1.1"), ip_address("fe80::1")
ALL_NODES, SOLICITED = ip_address("ff02::1"), ip_address("ff02::1:ff00:10")
OTHER_MAC = Mac.derived("other")


def counted(reason):
    return only(reason, FROM_POD)


def passes(found, reason=Reason.STACK_LINK_LOCAL):
    result, grew = found
    assert (result.verdict, grew) == (PASS, counted(reason))


def refused(found, reason):
    result, grew = found
    assert (result.verdict, grew) == (SHOT, counted(reason))


# ARP.


@pytest.mark.parametrize("operation", [REQUEST, REPLY])
@pytest.mark.parametrize(("sender", "target"), [(A, GATEWAY), (A, A), (UNSPECIFIED, A), (A, NODE)])
def test_arp_of_the_pods_own_address_and_mac_goes_to_the_stack(node, operation, sender, target):
    passes(node.from_pod(arp(operation, MAC_A, sender, target), ethertype=ETH_ARP), Reason.STACK_NEIGHBOUR)


@pytest.mark.parametrize("operation", [REQUEST, REPLY])
@pytest.mark.parametrize("sender", [B, NODE, GATEWAY, OUTSIDE, V4.r, V4.nobody])
def test_arp_in_the_name_of_another_address_is_dropped(node, operation, sender):
    found = node.from_pod(arp(operation, MAC_A, sender, GATEWAY), ethertype=ETH_ARP)
    refused(found, Reason.DROP_NEIGHBOUR)


@pytest.mark.parametrize("sender", [A, UNSPECIFIED])
def test_arp_with_another_mac_inside_or_outside_is_dropped(node, sender):
    for outer, inner in ((MAC_A, MAC_B), (MAC_B, MAC_A), (OTHER_MAC, OTHER_MAC)):
        found = node.from_pod(arp(REQUEST, inner, sender, GATEWAY), mac=outer, ethertype=ETH_ARP)
        refused(found, Reason.DROP_NEIGHBOUR)


@pytest.mark.parametrize("odd", [{"hardware": 6}, {"protocol": ETH_IPV6}, {"lengths": 8 << 8 | 4}])
def test_arp_of_another_kind_or_cut_off_is_dropped(node, odd):
    refused(node.from_pod(arp(REQUEST, MAC_A, A, GATEWAY, **odd), ethertype=ETH_ARP), Reason.DROP_NEIGHBOUR)
    whole = arp(REQUEST, MAC_A, A, GATEWAY)
    refused(node.from_pod(whole[:27], ethertype=ETH_ARP), Reason.DROP_NEIGHBOUR)


# Neighbour discovery.


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        (LL_A, GATEWAY6, discovery(SOLICITATION, GATEWAY6, (SOURCE_MAC, MAC_A))),
        (A6, GATEWAY6, discovery(SOLICITATION, GATEWAY6, (SOURCE_MAC, MAC_A))),
        (A6, SOLICITED, discovery(SOLICITATION, V6.nobody, (SOURCE_MAC, MAC_A))),
        (UNSPECIFIED6, SOLICITED, discovery(SOLICITATION, A6)),
        (UNSPECIFIED6, SOLICITED, discovery(SOLICITATION, A6, (NONCE, b"123456"))),
        (A6, ALL_NODES, discovery(ADVERTISEMENT, A6, (TARGET_MAC, MAC_A))),
        (LL_A, GATEWAY6, discovery(ADVERTISEMENT, LL_A, (TARGET_MAC, MAC_A))),
        (LL_A, GATEWAY6, discovery(ADVERTISEMENT, A6)),
        (LL_A, ip_address("ff02::16"), icmp(143) + bytes(20)),
        (UNSPECIFIED6, ip_address("ff02::16"), icmp(143) + bytes(20)),
        (LL_A, ip_address("ff02::2"), icmp(133)),
    ],
)
def test_discovery_and_memberships_of_the_pods_own_go_to_the_stack(node, source, destination, message):
    passes(node.from_pod(Ip(source, destination, ICMPV6, message)))


@pytest.mark.parametrize("source", [LL_A, A6])
@pytest.mark.parametrize("destination", [GATEWAY6, ALL_NODES, NODE6, V6.b, V6.r])
@pytest.mark.parametrize(
    "message",
    [
        discovery(ADVERTISEMENT, V6.b, (TARGET_MAC, MAC_A)),
        discovery(ADVERTISEMENT, NODE6, (TARGET_MAC, MAC_A)),
        discovery(ADVERTISEMENT, GATEWAY6),
        discovery(ADVERTISEMENT, LL_B, (TARGET_MAC, MAC_A)),
        discovery(ADVERTISEMENT, A6, (TARGET_MAC, MAC_B)),
        discovery(SOLICITATION, GATEWAY6, (SOURCE_MAC, MAC_B)),
        discovery(SOLICITATION, GATEWAY6, (SOURCE_MAC, MAC_A), (SOURCE_MAC, MAC_B)),
        discovery(SOLICITATION, GATEWAY6, (NONCE, b"123456"), (SOURCE_MAC, MAC_B)),
        discovery(SOLICITATION, GATEWAY6, (SOURCE_MAC, bytes(MAC_A) + bytes(8))),
        discovery(SOLICITATION, GATEWAY6, *[(NONCE, b"123456")] * 5),
        discovery(SOLICITATION, GATEWAY6) + b"\1\0" + MAC_A,
        discovery(SOLICITATION, GATEWAY6)[:-4],
    ],
)
def test_discovery_about_another_address_or_mac_is_dropped(node, source, destination, message):
    found = node.from_pod(Ip(source, destination, ICMPV6, message))
    if source == LL_A and not (destination.is_multicast or destination.is_link_local):
        refused(found, Reason.DROP_SPOOFED_ADDRESS)
    else:
        refused(found, Reason.DROP_NEIGHBOUR)


def test_discovery_behind_extension_headers_is_checked_and_in_fragments_dropped(node):
    forged = discovery(ADVERTISEMENT, V6.b, (TARGET_MAC, MAC_A))
    hidden = Ip(A6, ALL_NODES, ICMPV6, forged, extensions=(HOP_BY_HOP,))
    refused(node.from_pod(hidden), Reason.DROP_NEIGHBOUR)
    own = discovery(SOLICITATION, GATEWAY6, (SOURCE_MAC, MAC_A))
    refused(node.from_pod(Ip(A6, GATEWAY6, ICMPV6, own, fragment=(0, True))), Reason.DROP_NEIGHBOUR)


@pytest.mark.parametrize("source", ["fe80::5", str(LL_B), "fe80::1"])
def test_a_link_local_address_that_is_not_of_the_pods_mac_is_refused(node, source):
    for destination in (GATEWAY6, ALL_NODES):
        packet = Ip(ip_address(source), destination, ICMPV6, discovery(SOLICITATION, GATEWAY6))
        refused(node.from_pod(packet), Reason.DROP_SPOOFED_ADDRESS)


def test_the_pods_link_local_and_the_unspecified_address_need_the_pods_mac(node):
    for source, destination in ((LL_A, GATEWAY6), (UNSPECIFIED6, SOLICITED)):
        packet = Ip(source, destination, ICMPV6, discovery(SOLICITATION, GATEWAY6))
        refused(node.from_pod(packet, mac=OTHER_MAC), Reason.DROP_SPOOFED_MAC)
    packet = Ip.of("0.0.0.0", "255.255.255.255", UDP, udp(68, 67))
    refused(node.from_pod(packet, mac=OTHER_MAC), Reason.DROP_SPOOFED_MAC)


@pytest.mark.parametrize("message", [(UDP, udp(1, 2)), (ICMPV6, icmp(128)), (ICMPV6, icmp(136))])
def test_from_the_unspecified_address_only_address_setup_leaves(node, message):
    refused(node.from_pod(Ip(UNSPECIFIED6, ALL_NODES, *message)), Reason.DROP_SPOOFED_ADDRESS)
    refused(node.from_pod(Ip.of("0.0.0.0", "169.254.1.1", UDP, udp(1, 2))), Reason.DROP_SPOOFED_ADDRESS)


@pytest.mark.parametrize("source", [A6, LL_A])
@pytest.mark.parametrize("kind", [134, 137])
def test_a_router_advertisement_or_redirect_is_refused(node, source, kind):
    packet = Ip(source, ALL_NODES, ICMPV6, icmp(kind) + bytes(20))
    refused(node.from_pod(packet), Reason.DROP_ROGUE_ROUTER)


# ICMP errors.

ERRORS = [(4, ICMP, 3, 4), (4, ICMP, 11, 0), (4, ICMP, 12, 0), (6, ICMPV6, 2, 0), (6, ICMPV6, 1, 4)]


@pytest.mark.parametrize(("version", "protocol", "kind", "code"), ERRORS)
def test_an_icmp_error_is_only_about_a_packet_that_was_sent_to_the_pod(node, version, protocol, kind, code):
    ip = V4 if version == 4 else V6
    for receiver in (ip.b, ip.r, ip.node, ip.other_node, ip.outside):
        own = bytes(Ip(receiver, ip.a, TCP, tcp(80, 1000)))
        assert node.from_pod(Ip(ip.a, receiver, protocol, icmp(kind, code, payload=own)))[0].verdict != SHOT
        for source, destination in (
            (receiver, ip.nobody),
            (receiver, ip.b if receiver != ip.b else ip.r),
            (ip.node if receiver != ip.node else ip.b, ip.a),
            (ip.a, receiver),
        ):
            quoted = bytes(Ip(source, destination, TCP, tcp(80, 1000)))
            packet = Ip(ip.a, receiver, protocol, icmp(kind, code, payload=quoted))
            refused(node.from_pod(packet), Reason.DROP_ICMP_QUOTE)


def test_an_icmp_error_that_quotes_less_than_a_header_is_dropped(node, ip):
    protocol, kind = (ICMP, 3) if ip.a.version == 4 else (ICMPV6, 1)
    quoted = bytes(Ip(ip.b, ip.a, TCP, b""))
    packet = Ip(ip.a, ip.b, protocol, icmp(kind, 4, payload=quoted[:-1]))
    refused(node.from_pod(packet), Reason.DROP_ICMP_QUOTE)
    split = Ip(ip.a, ip.b, protocol, icmp(kind, 4), fragment=(0, True))
    refused(node.from_pod(split), Reason.DROP_ICMP_QUOTE)


def test_an_icmp_error_from_a_link_local_address_is_only_about_its_own(node):
    forged = bytes(Ip(NODE6, V6.other_node, TCP, tcp(80, 1000)))
    packet = Ip(LL_A, GATEWAY6, ICMPV6, icmp(2, rest=struct.pack("!I", 1280), payload=forged))
    refused(node.from_pod(packet), Reason.DROP_ICMP_QUOTE)


# Destinations and forms of addresses.


@pytest.mark.parametrize("destination", ["127.0.0.1", "127.255.255.254", "::1"])
def test_a_loopback_destination_is_dropped(node, destination):
    source = A if ":" not in destination else A6
    packet = Ip(source, ip_address(destination), TCP, tcp(1000, 10250))
    refused(node.from_pod(packet), Reason.DROP_LOOPBACK)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("::ffff:10.244.1.10", "fd00:244::1:11"),
        ("::ffff:10.244.1.10", "::ffff:10.244.1.11"),
        ("fd00:244::1:10", "::ffff:10.244.1.11"),
        ("fd00:244::1:10", "::ffff:127.0.0.1"),
    ],
)
def test_ipv6_with_an_ipv4_mapped_address_is_dropped(node, source, destination):
    packet = Ip(ip_address(source), ip_address(destination), TCP, tcp(1, 2))
    refused(node.from_pod(packet), Reason.DROP_MAPPED_ADDRESS)


@pytest.fixture(scope="module")
def guarded(machine, devices):
    """A node that lets only pods marked so reach cloud metadata."""
    config = Config(
        node_ip=NODE, node_ip6=NODE6, tunnel_port=TUNNEL_PORT, vni=VNI, flags=ConfigFlag.BLOCK_METADATA
    )
    made = LoadedNode(machine, devices, config)
    yield made
    made.close()


METADATA = [(A, "169.254.169.254"), (A6, "fd00:ec2::254")]
BESIDE = ["169.254.169.253", "169.254.20.10", "fd00:ec2::255", "fd00:ec2:0:0:1::254"]


@pytest.mark.parametrize("fragment", [None, (0, True), (1200, False)])
@pytest.mark.parametrize(("source", "destination"), METADATA)
def test_cloud_metadata_is_blocked_unless_the_pod_is_allowed(guarded, node, source, destination, fragment):
    packet = Ip(source, ip_address(destination), TCP, tcp(1000, 80), fragment=fragment)
    guarded.fill()
    refused(guarded.from_pod(packet), Reason.DROP_METADATA)
    guarded.shape(source, LocalPodFlag.METADATA_ALLOWED)
    assert guarded.from_pod(packet)[0].verdict == PASS
    assert node.from_pod(packet)[0].verdict == PASS


@pytest.mark.parametrize("destination", BESIDE)
def test_addresses_beside_cloud_metadata_are_not_blocked(guarded, destination):
    guarded.fill()
    source = A if ":" not in destination else A6
    assert guarded.from_pod(Ip(source, ip_address(destination), TCP, tcp(1, 80)))[0].verdict == PASS


# Elements of the map that the kernel recycles.


def test_an_entry_that_is_of_another_address_by_now_is_not_delivered_to(node, ip):
    entry = node.local_pods.get(ip.b)
    tail = int.from_bytes(ip.b.packed[-4:], "big")
    for written, reason in ((tail, Reason.FORWARD_LOCAL_POD), (tail + 1, Reason.DROP_UNKNOWN_DESTINATION)):
        node.local_pods.put(
            ip.b, type(entry)(entry.ifindex, entry.pod_mac, entry.host_mac, address_tail=written)
        )
        assert node.from_pod(Ip(ip.a, ip.b, UDP, udp(1, 2)))[1] == counted(reason)
