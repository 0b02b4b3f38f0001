"""fast_from_pod, what a pod sends: packet in → verdict, packet out, counter."""

from ipaddress import ip_address

import pytest

from fast.datapath.bpf import (
    ClusterPod,
    DevFlag,
    Device,
    Flow,
    FlowKey,
    Kind,
    LocalDev,
    LocalPodFlag,
    PacketDirection,
    Reason,
)
from fast.net import Mac
from kernel.bpf.node import (
    ENCAP_BYTES,
    HOST_MAC,
    MAC_B,
    OTHER_NODE,
    PASS,
    REDIRECT,
    SHOT,
    TUNNEL_MTU,
    TUNNEL_PORT,
    V4,
    V6,
    only,
)
from kernel.bpf.packets import (
    AUTHENTICATION,
    DESTINATION_OPTIONS,
    ETH_IPV4,
    ETH_IPV6,
    ETH_VLAN,
    GRE,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    Ip,
    echo,
    icmp,
    tcp,
    udp,
)

FROM_POD = PacketDirection.FROM_POD
ECHO_REQUEST = {4: (ICMP, 8), 6: (ICMPV6, 128)}
UNREACHABLE = {4: (ICMP, 3), 6: (ICMPV6, 1)}


def counted(reason):
    return only(reason, FROM_POD)


def ping(source, destination, identifier=77):
    protocol, kind = ECHO_REQUEST[source.version]
    return Ip(source, destination, protocol, echo(kind, identifier))


# The fast path.


@pytest.mark.parametrize(
    ("protocol", "payload"),
    [(TCP, tcp(1000, 80)), (UDP, udp(1000, 53)), (SCTP, udp(1000, 53)), (GRE, b""), (GRE, b"anything")],
)
def test_a_packet_for_a_pod_of_this_node_goes_straight_to_it_with_its_macs(node, ip, protocol, payload):
    result, grew = node.from_pod(Ip(ip.a, ip.b, protocol, payload), mark=5, priority=6)
    assert result.verdict == REDIRECT
    assert (result.packet[:6], result.packet[6:12]) == (MAC_B, HOST_MAC)
    assert (result.mark, result.priority) == (0, 0)
    assert grew == counted(Reason.FORWARD_LOCAL_POD)


@pytest.mark.parametrize("payload", [tcp(1000, 80)])
def test_a_packet_for_a_pod_of_another_node_goes_into_the_tunnel_unchanged(node, ip, payload):
    packet = Ip(ip.a, ip.r, TCP, payload)
    result, grew = node.from_pod(packet)
    assert (result.verdict, result.packet[14 + ENCAP_BYTES :]) == (REDIRECT, bytes(packet))
    assert grew == counted(Reason.FORWARD_TUNNEL)


def test_pings_take_the_fast_paths(node, ip):
    assert node.from_pod(ping(ip.a, ip.b))[1] == counted(Reason.FORWARD_LOCAL_POD)
    assert node.from_pod(ping(ip.a, ip.r))[1] == counted(Reason.FORWARD_TUNNEL)


def test_a_packet_for_another_node_itself_goes_into_the_tunnel(node, ip):
    assert node.from_pod(ping(ip.a, ip.other_node))[1] == counted(Reason.FORWARD_TUNNEL)


def test_with_native_routing_ipv4_goes_to_the_node_directly_and_ipv6_still_through_the_tunnel(native):
    result, grew = native.from_pod(ping(V4.a, V4.r))
    assert (result.verdict, grew) == (REDIRECT, counted(Reason.FORWARD_NATIVE))
    result, grew = native.from_pod(ping(V6.a, V6.r))
    assert (result.verdict, grew) == (REDIRECT, counted(Reason.FORWARD_TUNNEL))


def test_a_header_with_options_or_extensions_takes_the_fast_path_too(node):
    with_options = Ip(V4.a, V4.b, TCP, tcp(1, 2), options=b"\x01" * 8)
    extensions = (HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS)
    with_extensions = Ip(V6.a, V6.b, TCP, tcp(1, 2), extensions=extensions)
    for packet in (with_options, with_extensions):
        assert node.from_pod(packet)[1] == counted(Reason.FORWARD_LOCAL_POD)


# The stack.


def test_what_is_for_this_node_itself_goes_to_the_stack(node, ip):
    result, grew = node.from_pod(ping(ip.a, ip.node))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_NODE))


@pytest.mark.parametrize("place", ["outside", "vip", "nobody"])
def test_what_is_for_neither_pod_nor_node_goes_to_the_stack(node, ip, place):
    result, grew = node.from_pod(Ip(ip.a, getattr(ip, place), TCP, tcp(1000, 80)))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_NOT_POD))


def test_a_pod_that_this_node_has_no_longer_is_looked_for_by_the_stack(node, ip):
    node.local_pods.delete(ip.b)
    assert node.from_pod(ping(ip.a, ip.b))[1] == counted(Reason.STACK_NODE)


@pytest.mark.parametrize("place", ["b", "r"])
@pytest.mark.parametrize("fragment", [(0, True), (1200, True), (1200, False)])
def test_every_fragment_goes_to_the_stack(node, ip, place, fragment):
    result, grew = node.from_pod(Ip(ip.a, getattr(ip, place), UDP, udp(1, 2, bytes(64)), fragment=fragment))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_FRAGMENT))


@pytest.mark.parametrize("place", ["b", "r"])
def test_a_flow_that_came_through_the_stack_stays_on_it_and_others_do_not(node, ip, place):
    peer = getattr(ip, place)
    node.flows.put(FlowKey.of((ip.a, 1000), (peer, 80), TCP), Flow(1))
    result, grew = node.from_pod(Ip(ip.a, peer, TCP, tcp(1000, 80)))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_FLOW))
    for other in (
        Ip(ip.a, peer, TCP, tcp(1001, 80)),
        Ip(ip.a, peer, TCP, tcp(80, 1000)),
        Ip(ip.a, peer, UDP, udp(1000, 80)),
    ):
        assert node.from_pod(other)[0].verdict == REDIRECT


def test_a_ping_through_the_stack_keeps_only_its_own_identifier_on_it(node, ip):
    protocol, _ = ECHO_REQUEST[ip.a.version]
    node.flows.put(FlowKey.of((ip.a, 77), (ip.b, 77), protocol), Flow(1))
    assert node.from_pod(ping(ip.a, ip.b, 77))[1] == counted(Reason.STACK_FLOW)
    assert node.from_pod(ping(ip.a, ip.b, 78))[1] == counted(Reason.FORWARD_LOCAL_POD)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_an_icmp_error_goes_the_way_of_the_flow_that_it_quotes(node, ip, protocol):
    refused = Ip(ip.b, ip.a, protocol, (tcp if protocol == TCP else udp)(1000, 80))
    kind = UNREACHABLE[ip.a.version]
    error = Ip(ip.a, ip.b, kind[0], icmp(kind[1], 3, payload=bytes(refused)[:60]))
    assert node.from_pod(error)[1] == counted(Reason.FORWARD_LOCAL_POD)
    node.flows.put(FlowKey.of((ip.b, 1000), (ip.a, 80), protocol), Flow(1))
    assert node.from_pod(error)[1] == counted(Reason.STACK_FLOW)


def test_an_icmp_error_of_a_ping_goes_the_way_of_that_ping(node, ip):
    protocol, _ = ECHO_REQUEST[ip.a.version]
    error = Ip(
        ip.a, ip.b, protocol, icmp(UNREACHABLE[ip.a.version][1], 1, payload=bytes(ping(ip.b, ip.a, 9)))
    )
    assert node.from_pod(error)[1] == counted(Reason.FORWARD_LOCAL_POD)
    node.flows.put(FlowKey.of((ip.a, 9), (ip.b, 9), protocol), Flow(1))
    assert node.from_pod(error)[1] == counted(Reason.STACK_FLOW)


def test_an_icmp_error_that_quotes_no_ports_goes_to_the_stack(node, ip):
    kind = UNREACHABLE[ip.a.version]
    quoted = bytes(Ip(ip.b, ip.a, TCP, b""))
    assert node.from_pod(Ip(ip.a, ip.b, kind[0], icmp(kind[1], 3, payload=quoted)))[1] == counted(
        Reason.STACK_FLOW
    )


def sized(ip, total):
    """Make a UDP packet of ``total`` bytes from the IP header on."""
    header = 20 if ip.a.version == 4 else 40
    return Ip(ip.a, ip.r, UDP, udp(1, 2, bytes(total - header - 8)))


def test_a_packet_just_as_large_as_the_tunnel_carries_goes_into_it_and_one_byte_more_to_the_stack(node, ip):
    assert node.from_pod(sized(ip, TUNNEL_MTU))[1] == counted(Reason.FORWARD_TUNNEL)
    result, grew = node.from_pod(sized(ip, TUNNEL_MTU + 1))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_TOO_BIG))


def test_a_segmented_packet_is_measured_by_its_segments(node, ip):
    node.set_tunnel(DevFlag.NONE)  # which BPF_PROG_RUN's segments would take anyway: test_encap.py
    header = (20 if ip.a.version == 4 else 40) + 20
    packet = Ip(ip.a, ip.r, TCP, tcp(1, 2, bytes(3000)))
    assert node.from_pod(packet, gso_size=TUNNEL_MTU - header)[1] == counted(Reason.FORWARD_TUNNEL_DEVICE)
    assert node.from_pod(packet, gso_size=TUNNEL_MTU - header + 1)[1] == counted(Reason.STACK_TOO_BIG)
    datagrams = Ip(ip.a, ip.r, UDP, udp(1, 2, bytes(3000)))
    assert node.from_pod(datagrams, gso_size=TUNNEL_MTU - header + 12)[1] == counted(
        Reason.FORWARD_TUNNEL_DEVICE
    )
    assert node.from_pod(datagrams, gso_size=TUNNEL_MTU - header + 13)[1] == counted(Reason.STACK_TOO_BIG)


def test_between_pods_of_one_node_size_does_not_matter(node, ip):
    packet = Ip(ip.a, ip.b, TCP, tcp(1, 2, bytes(3000)))
    assert node.from_pod(packet)[1] == counted(Reason.FORWARD_LOCAL_POD)


@pytest.mark.parametrize("marked", ["a", "b"])
def test_a_pod_marked_so_is_reached_and_left_through_the_stack(node, ip, marked):
    node.shape(getattr(ip, marked), LocalPodFlag.VIA_STACK)
    result, grew = node.from_pod(ping(ip.a, ip.b))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_REQUESTED))


@pytest.mark.parametrize(
    ("source", "destination"),
    [("0.0.0.0", "255.255.255.255"), ("0.0.0.0", "224.0.0.22"), ("10.244.1.10", "224.0.0.251")],
)
def test_ipv4_of_link_scope_goes_to_the_stack(node, source, destination):
    result, grew = node.from_pod(Ip.of(source, destination, UDP, udp(68, 67)))
    assert (result.verdict, grew) == (PASS, counted(Reason.STACK_LINK_LOCAL))


# Refused.


@pytest.mark.parametrize("place", ["b", "r", "node", "other_node", "outside", "nobody"])
def test_a_source_address_that_is_not_the_pods_is_refused(node, ip, place):
    for destination in (ip.b, ip.r, ip.outside, ip.node):
        result, grew = node.from_pod(Ip(getattr(ip, place), destination, TCP, tcp(1, 2)))
        assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_SPOOFED_ADDRESS))


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("0.0.0.0", "10.244.1.11"),
        ("169.254.169.254", "10.244.1.11"),
        ("169.254.3.4", "169.254.1.1"),
        ("169.254.3.4", "224.0.0.251"),
        ("127.0.0.1", "10.244.1.11"),
        ("::", "fd00:244::1:11"),
        ("fe80::5", "fd00:244::1:11"),
        ("fe80::5", "fe80::1"),
        ("fe80::5", "ff02::1"),
        ("fe80::5", "2001:db8::8"),
        ("::1", "fd00:244::1:11"),
    ],
)
def test_a_source_that_means_something_on_its_link_only_does_not_leave_it(node, source, destination):
    result, grew = node.from_pod(Ip.of(source, destination, UDP, udp(68, 67)))
    assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_SPOOFED_ADDRESS))


@pytest.mark.parametrize("fragment", [None, (1200, False)])
def test_a_source_mac_that_is_not_the_pods_is_refused(node, ip, fragment):
    packet = Ip(ip.a, ip.b, UDP, udp(1, 2), fragment=fragment)
    for mac in (MAC_B, Mac(MAC_B[:2] + packet_mac_tail()), Mac.derived("other")):
        result, grew = node.from_pod(packet, mac=mac)
        assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_SPOOFED_MAC))


def packet_mac_tail():
    """Give the last four bytes of pod A's MAC: one that differs in its first two bytes only is to be refused too."""
    return Mac.derived("a")[2:]


@pytest.mark.parametrize("place", ["node", "other_node", "outside", "nobody"])
@pytest.mark.parametrize("fragment", [None, (0, True)])
def test_udp_to_the_tunnels_port_is_refused_wherever_a_node_might_be(node, ip, place, fragment):
    packet = Ip(ip.a, getattr(ip, place), UDP, udp(1, TUNNEL_PORT, bytes(80)), fragment=fragment)
    result, grew = node.from_pod(packet)
    assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_TUNNEL_PORT))


def test_the_tunnels_port_is_refused_behind_options_and_extension_headers_too(node):
    behind_options = Ip(V4.a, V4.other_node, UDP, udp(1, TUNNEL_PORT), options=b"\x01" * 40)
    behind_extensions = Ip(
        V6.a, V6.node, UDP, udp(1, TUNNEL_PORT), extensions=(HOP_BY_HOP, DESTINATION_OPTIONS)
    )
    for packet in (behind_options, behind_extensions):
        assert node.from_pod(packet)[1] == counted(Reason.DROP_TUNNEL_PORT)


def test_pods_may_use_the_tunnels_port_among_themselves_and_for_tcp(node, ip):
    for place in ("b", "r"):
        assert node.from_pod(Ip(ip.a, getattr(ip, place), UDP, udp(1, TUNNEL_PORT)))[0].verdict == REDIRECT
    assert node.from_pod(Ip(ip.a, ip.outside, TCP, tcp(1, TUNNEL_PORT)))[0].verdict == PASS


@pytest.mark.parametrize(
    ("family", "protocol", "kind"), [(V4, ICMP, 5), (V6, ICMPV6, 134), (V6, ICMPV6, 137)]
)
def test_a_pod_that_plays_router_is_refused(node, family, protocol, kind):
    for destination in (
        family.b,
        family.r,
        family.node,
        ip_address("ff02::1") if family is V6 else family.outside,
    ):
        result, grew = node.from_pod(Ip(family.a, destination, protocol, icmp(kind) + bytes(40)))
        assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_ROGUE_ROUTER))


def test_a_router_advertisement_from_a_link_local_address_is_refused(node):
    packet = Ip.of("fe80::5", "ff02::1", ICMPV6, icmp(134) + bytes(8))
    assert node.from_pod(packet)[1] == counted(Reason.DROP_ROGUE_ROUTER)


def test_an_ethertype_that_is_not_ip_is_refused(node):
    for ethertype in (0x88CC, 0x8847, 0x8864, 0x0001):
        result, grew = node.from_pod(bytes(60), ethertype=ethertype)
        assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_UNSUPPORTED_ETHERTYPE))


def test_a_vlan_tag_is_refused(node):
    tagged = b"\0\x05\x08\x00" + bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2)))
    result, grew = node.from_pod(tagged, ethertype=ETH_VLAN)
    assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_VLAN_TAGGED))


@pytest.mark.parametrize(
    ("ethertype", "raw"),
    [
        (ETH_IPV4, bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2)[:3]))),
        (ETH_IPV4, bytes(Ip(V4.a, V4.b, UDP, b""))),
        (ETH_IPV4, bytes(Ip(V4.a, V4.b, ICMP, icmp(8)[:7]))),
        (ETH_IPV4, b"\x44" + bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2)))[1:]),
        (ETH_IPV4, b"\x65" + bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2)))[1:]),
        (ETH_IPV4, b"\x4f" + bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2)))[1:]),
        (ETH_IPV6, bytes(Ip(V6.a, V6.b, TCP, tcp(1, 2)[:3]))),
        (ETH_IPV6, bytes(Ip(V6.a, V6.b, ICMPV6, b"\x80\0"))),
        (ETH_IPV6, bytes(Ip(V6.a, V6.b, TCP, b"", extensions=(HOP_BY_HOP,)))[:44]),
        (ETH_IPV6, b"\x40" + bytes(Ip(V6.a, V6.b, TCP, tcp(1, 2)))[1:]),
    ],
)
def test_headers_that_are_cut_off_or_lie_about_their_length_are_refused(node, ethertype, raw):
    result, grew = node.from_pod(raw, ethertype=ethertype)
    assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_TRUNCATED))


def test_more_extension_headers_than_are_looked_through_are_refused(node):
    packet = Ip(V6.a, V6.b, TCP, tcp(1, 2), extensions=(HOP_BY_HOP,) + (DESTINATION_OPTIONS,) * 4)
    result, grew = node.from_pod(packet)
    assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_IPV6_EXTENSIONS))


def test_without_a_tunnel_device_what_needs_it_is_refused(node, ip):
    node.local_devices.put(Device.TUNNEL, LocalDev(0, 0))
    result, grew = node.from_pod(ping(ip.a, ip.r))
    assert (result.verdict, grew) == (SHOT, counted(Reason.DROP_NO_DEVICE))
    assert node.from_pod(ping(ip.a, ip.b))[0].verdict == REDIRECT


def test_an_address_that_moves_to_another_node_is_sent_there_at_once(node, ip):
    node.local_pods.delete(ip.b)
    node.cluster_pods.put(ip.b, ClusterPod(OTHER_NODE, Kind.POD))
    assert node.from_pod(ping(ip.a, ip.b))[1] == counted(Reason.FORWARD_TUNNEL)


def test_bytes_are_counted_with_the_ethernet_header(node):
    before = node.metrics.get(Reason.FORWARD_LOCAL_POD, FROM_POD)
    packet = Ip(V4.a, V4.b, TCP, tcp(1, 2, bytes(100)))
    node.from_pod(packet)
    after = node.metrics.get(Reason.FORWARD_LOCAL_POD, FROM_POD)
    assert after.byte_count - before.byte_count == 14 + len(bytes(packet))
