"""fast_from_overlay and fast_to_overlay: packet in → verdict, packet out, counter, flows."""

from ipaddress import IPv4Address, ip_address

import pytest

from fast.datapath.bpf import TO_OVERLAY as PROGRAM_TO_OVERLAY
from fast.datapath.bpf import (
    ClusterPod,
    Device,
    Flow,
    FlowKey,
    Kind,
    LocalDev,
    LocalPodFlag,
    PacketDirection,
    Reason,
)
from kernel.bpf.node import (
    HOST_MAC,
    MAC_A,
    NODE,
    OTHER_NODE,
    PASS,
    REDIRECT,
    SHOT,
    TUNNEL_PORT,
    V4,
    V6,
    VNI,
    only,
)
from kernel.bpf.packets import ETH_ARP, ETH_IPV4, ETH_VLAN, ICMP, ICMPV6, TCP, UDP, Ip, echo, icmp, tcp, udp

FROM_OVERLAY, TO_OVERLAY = PacketDirection.FROM_OVERLAY, PacketDirection.TO_OVERLAY


def came(reason):
    return only(reason, FROM_OVERLAY)


def went(reason):
    return only(reason, TO_OVERLAY)


# From the overlay.


@pytest.mark.parametrize("place", ["r", "other_node"])
def test_what_another_node_sends_for_a_pod_goes_straight_to_it_with_its_macs(tunnel, ip, place):
    packet = Ip(getattr(ip, place), ip.a, TCP, tcp(1000, 80))
    result, grew = tunnel.brings(packet, mark=5, priority=6)
    assert (result.verdict, grew) == (REDIRECT, came(Reason.FORWARD_LOCAL_POD))
    assert result.packet == MAC_A + HOST_MAC + packet.ethertype.to_bytes(2, "big") + bytes(packet)
    assert (result.mark, result.priority) == (0, 0)


@pytest.mark.parametrize("place", ["r", "other_node"])
def test_what_is_for_the_node_itself_goes_to_the_stack(tunnel, ip, place):
    result, grew = tunnel.brings(Ip(getattr(ip, place), ip.node, TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (PASS, came(Reason.STACK_NODE))


def test_an_address_of_the_node_that_only_the_map_knows_is_the_nodes_too(tunnel):
    other = ip_address("10.9.9.1")
    tunnel.node.cluster_pods.put(other, ClusterPod(NODE, Kind.NODE))
    assert tunnel.brings(Ip(V4.r, other, TCP, tcp(1, 2)))[1] == came(Reason.STACK_NODE)
    tunnel.node.cluster_pods.delete(other)
    assert tunnel.brings(Ip(V4.r, other, TCP, tcp(1, 2)))[1] == came(Reason.DROP_UNKNOWN_DESTINATION)


def test_a_flow_that_came_through_the_stack_stays_on_it(tunnel, ip):
    tunnel.node.flows.put(FlowKey.of((ip.a, 1000), (ip.r, 80), TCP), Flow(1))
    result, grew = tunnel.brings(Ip(ip.r, ip.a, TCP, tcp(80, 1000)))
    assert (result.verdict, grew) == (PASS, came(Reason.STACK_FLOW))


def test_an_icmp_error_goes_the_way_of_the_flow_that_it_quotes(tunnel, ip):
    protocol, kind = (ICMP, 3) if ip.a.version == 4 else (ICMPV6, 1)
    quoted = bytes(Ip(ip.a, ip.r, UDP, udp(1000, 53)))
    refused = Ip(ip.r, ip.a, protocol, icmp(kind, 3, payload=quoted))
    assert tunnel.brings(refused)[1] == came(Reason.FORWARD_LOCAL_POD)
    tunnel.node.flows.put(FlowKey.of((ip.a, 1000), (ip.r, 53), UDP), Flow(1))
    assert tunnel.brings(refused)[1] == came(Reason.STACK_FLOW)


@pytest.mark.parametrize("fragment", [(0, True), (1200, False)])
def test_every_fragment_goes_to_the_stack(tunnel, ip, fragment):
    result, grew = tunnel.brings(Ip(ip.r, ip.a, UDP, udp(1, 2, bytes(64)), fragment=fragment))
    assert (result.verdict, grew) == (PASS, came(Reason.STACK_FRAGMENT))


def test_a_pod_marked_so_is_reached_through_the_stack(tunnel, ip):
    tunnel.node.shape(ip.a, LocalPodFlag.VIA_STACK)
    result, grew = tunnel.brings(Ip(ip.r, ip.a, TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (PASS, came(Reason.STACK_REQUESTED))


@pytest.mark.parametrize("sender", ["192.168.77.3", "8.8.8.8", "10.244.2.12"])
@pytest.mark.parametrize("place", ["r", "outside", "b"])
def test_a_sender_that_is_no_node_is_refused(tunnel, ip, sender, place):
    packet = Ip(getattr(ip, place), ip.a, TCP, tcp(1, 2))
    result, grew = tunnel.brings(packet, sender=IPv4Address(sender))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_UNKNOWN_SENDER))


@pytest.mark.parametrize("place", ["a", "b", "node", "outside", "nobody"])
def test_an_inner_source_that_does_not_live_on_the_senders_node_is_refused(tunnel, ip, place):
    result, grew = tunnel.brings(Ip(getattr(ip, place), ip.a, TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_INNER_SOURCE))


def test_a_source_that_moved_to_a_third_node_is_refused_from_its_old_one(tunnel, ip):
    tunnel.node.cluster_pods.put(ip.r, ClusterPod(IPv4Address("192.168.77.3")))
    assert tunnel.brings(Ip(ip.r, ip.a, TCP, tcp(1, 2)))[1] == came(Reason.DROP_INNER_SOURCE)


def test_another_vni_is_refused(tunnel, ip):
    result, grew = tunnel.brings(Ip(ip.r, ip.a, TCP, tcp(1, 2)), vni=VNI + 1)
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_WRONG_VNI))


def test_a_packet_without_a_tunnel_key_is_refused(node, ip):
    packet = Ip(ip.r, ip.a, TCP, tcp(1, 2))
    result, grew = node.run(
        "fast_from_overlay", bytes(12) + packet.ethertype.to_bytes(2, "big") + bytes(packet), "tunnel"
    )
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_NO_TUNNEL_KEY))


@pytest.mark.parametrize("place", ["nobody", "r", "outside", "other_node"])
def test_what_is_for_nobody_here_is_refused_and_never_sent_on(tunnel, ip, place):
    result, grew = tunnel.brings(Ip(ip.r, getattr(ip, place), TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_UNKNOWN_DESTINATION))


@pytest.mark.parametrize("destination", ["224.0.0.251", "255.255.255.255", "ff02::1"])
def test_multicast_from_the_overlay_is_refused(tunnel, destination):
    family = V4 if "." in destination else V6
    result, grew = tunnel.brings(Ip(family.r, ip_address(destination), UDP, udp(1, 2)))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_NOT_UNICAST))


def test_a_tunnel_packet_inside_the_tunnel_is_refused(tunnel, ip):
    result, grew = tunnel.brings(Ip(ip.r, ip.node, UDP, udp(1, TUNNEL_PORT, bytes(50))))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_TUNNEL_PORT))


@pytest.mark.parametrize(
    ("ethertype", "raw", "reason"),
    [
        (ETH_ARP, bytes(28), Reason.DROP_UNSUPPORTED_ETHERTYPE),
        (0x88CC, bytes(28), Reason.DROP_UNSUPPORTED_ETHERTYPE),
        (ETH_VLAN, bytes(28), Reason.DROP_VLAN_TAGGED),
        (ETH_IPV4, bytes(Ip(V4.r, V4.a, TCP, b"\0")), Reason.DROP_TRUNCATED),
    ],
)
def test_what_no_pod_can_have_sent_is_refused(tunnel, ethertype, raw, reason):
    result, grew = tunnel.brings(raw, ethertype=ethertype)
    assert (result.verdict, grew) == (SHOT, came(reason))


# To the overlay.


@pytest.mark.parametrize("source", ["a", "node"])
@pytest.mark.parametrize("place", ["r", "other_node"])
def test_what_the_stack_sends_to_another_node_is_let_through_and_counted(node, ip, source, place):
    result, grew = node.to_overlay(Ip(getattr(ip, source), getattr(ip, place), TCP, tcp(1000, 80)))
    assert (result.verdict, grew) == (PASS, went(Reason.FORWARD_TUNNEL))


def test_with_native_routing_ipv4_from_the_stack_leaves_by_the_underlay_and_ipv6_by_the_tunnel(native):
    result, grew = native.to_overlay(Ip(V4.a, V4.r, TCP, tcp(1000, 80)))
    assert (result.verdict, grew) == (REDIRECT, went(Reason.FORWARD_NATIVE))
    result, grew = native.to_overlay(Ip(V6.a, V6.r, TCP, tcp(1000, 80)))
    assert (result.verdict, grew) == (PASS, went(Reason.FORWARD_TUNNEL))


def test_with_native_routing_and_no_underlay_device_what_needs_it_is_refused(native):
    native.local_devices.put(Device.UNDERLAY, LocalDev(0, 0))
    result, grew = native.to_overlay(Ip(V4.a, V4.r, TCP, tcp(1000, 80)))
    assert (result.verdict, grew) == (SHOT, went(Reason.DROP_NO_DEVICE))


def test_a_local_pods_flow_through_the_stack_is_remembered_and_the_nodes_own_is_not(node, ip):
    node.to_overlay(Ip(ip.node, ip.r, TCP, tcp(1000, 80)))
    assert list(node.flows.items()) == []
    node.to_overlay(Ip(ip.a, ip.r, TCP, tcp(1000, 80)))
    assert [key for key, _ in node.flows.items()] == [FlowKey.of((ip.r, 80), (ip.a, 1000), TCP)]


def test_a_packet_that_has_a_key_passes_uncounted_because_its_sender_counted_it(tunnel, ip):
    result, grew = tunnel.brings(Ip(ip.a, ip.r, TCP, tcp(1, 2)), program=PROGRAM_TO_OVERLAY)
    assert (result.verdict, grew) == (PASS, {})


@pytest.mark.parametrize("place", ["nobody", "outside", "b", "node"])
def test_a_destination_that_lives_on_no_other_node_is_refused(node, ip, place):
    result, grew = node.to_overlay(Ip(ip.a, getattr(ip, place), TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (SHOT, went(Reason.DROP_UNKNOWN_DESTINATION))


@pytest.mark.parametrize("place", ["outside", "nobody", "r", "other_node"])
def test_a_source_that_is_not_of_this_node_is_refused(node, ip, place):
    result, grew = node.to_overlay(
        Ip(getattr(ip, place), ip.r, TCP, tcp(1, 2)), ingress_ifindex=node.devices["nic"]
    )
    assert (result.verdict, grew) == (SHOT, went(Reason.DROP_SOURCE_ELSEWHERE))


@pytest.mark.parametrize("place", ["r", "other_node", "outside"])
def test_nothing_goes_from_tunnel_to_tunnel(node, ip, place):
    packet = Ip(getattr(ip, place), ip.r, TCP, tcp(1, 2))
    result, grew = node.to_overlay(packet, ingress_ifindex=node.devices["tunnel"])
    assert (result.verdict, grew) == (SHOT, went(Reason.DROP_TUNNEL_TO_TUNNEL))


def test_what_came_by_the_tunnel_and_was_masqueraded_here_may_leave_by_it(node, ip):
    packet = Ip(ip.node, ip.r, TCP, tcp(1, 2))
    assert node.to_overlay(packet, ingress_ifindex=node.devices["tunnel"])[1] == went(Reason.FORWARD_TUNNEL)


@pytest.mark.parametrize("destination", ["224.0.0.22", "255.255.255.255", "ff02::16", "fe80::1"])
def test_what_the_kernel_tells_its_link_is_refused(node, destination):
    family = V4 if "." in destination else V6
    result, grew = node.to_overlay(Ip(family.node, ip_address(destination), UDP, udp(1, 2)))
    assert (result.verdict, grew) == (SHOT, went(Reason.DROP_NOT_UNICAST))


def test_what_is_not_ip_is_refused(node):
    frame = bytes(12) + ETH_ARP.to_bytes(2, "big") + bytes(28)
    result, grew = node.run("fast_to_overlay", frame, "tunnel")
    assert (result.verdict, grew) == (SHOT, went(Reason.DROP_UNSUPPORTED_ETHERTYPE))


# Round trips.


def test_a_reply_to_a_translated_request_goes_to_the_stack_and_a_direct_one_does_not(tunnel, ip):
    tunnel.node.to_overlay(Ip(ip.a, ip.r, TCP, tcp(1000, 8080)))  # DNAT in the stack made it so
    assert tunnel.brings(Ip(ip.r, ip.a, TCP, tcp(8080, 1000)))[1] == came(Reason.STACK_FLOW)
    assert tunnel.brings(Ip(ip.r, ip.a, TCP, tcp(8080, 1001)))[1] == came(Reason.FORWARD_LOCAL_POD)


def test_pings_between_nodes_and_pods_keep_their_own_ways(tunnel, ip):
    protocol, request, reply = (ICMP, 8, 0) if ip.a.version == 4 else (ICMPV6, 128, 129)
    tunnel.node.to_overlay(Ip(ip.a, ip.r, protocol, echo(request, 7)))
    assert tunnel.brings(Ip(ip.r, ip.a, protocol, echo(reply, 7)))[1] == came(Reason.STACK_FLOW)
    assert tunnel.brings(Ip(ip.r, ip.a, protocol, echo(reply, 8)))[1] == came(Reason.FORWARD_LOCAL_POD)


def test_the_sender_is_judged_by_its_address_in_network_order(tunnel):
    swapped = IPv4Address(bytes(reversed(OTHER_NODE.packed)))
    assert tunnel.brings(Ip(V4.r, V4.a, TCP, tcp(1, 2)), sender=swapped)[1] == came(
        Reason.DROP_UNKNOWN_SENDER
    )
