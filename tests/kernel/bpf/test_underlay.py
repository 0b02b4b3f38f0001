"""fast_from_underlay, native routing's way in: it takes out what is for pods and leaves the rest of the node alone."""

import json

import pytest

from fast.datapath.bpf import Flow, FlowKey, LocalPodFlag, PacketDirection, Reason
from fast.net import Mac
from kernel.bpf.node import HOST_MAC, MAC_A, PASS, REDIRECT, SHOT, V4, V6, only
from kernel.bpf.packets import ETH_ARP, TCP, UDP, Ip, ethernet, tcp, udp

FROM_UNDERLAY = PacketDirection.FROM_UNDERLAY


def came(reason):
    return only(reason, FROM_UNDERLAY)


@pytest.fixture
def nic_mac(native):
    (link,) = json.loads(native.machine.run("ip -j link show nic"))
    return Mac.parse(link["address"])


@pytest.fixture
def arrives(native, nic_mac):
    """Run the program on a packet that the underlay brings."""

    def run(packet, mac=nic_mac):
        frame = ethernet(Mac.derived("router"), mac, packet.ethertype, bytes(packet))
        return native.run("fast_from_underlay", frame, "nic")

    return run


@pytest.mark.parametrize("place", ["r", "other_node"])
def test_what_another_node_sends_for_a_pod_goes_straight_to_it(arrives, place):
    packet = Ip(getattr(V4, place), V4.a, TCP, tcp(1, 2))
    result, grew = arrives(packet)
    assert (result.verdict, grew) == (REDIRECT, came(Reason.FORWARD_LOCAL_POD))
    assert result.packet[:12] == MAC_A + HOST_MAC


@pytest.mark.parametrize("place", ["node", "r", "outside", "nobody"])
def test_what_is_for_no_pod_of_this_node_is_left_alone_uncounted(arrives, place):
    result, grew = arrives(Ip(V4.r, getattr(V4, place), TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (PASS, {})


def test_what_is_not_ip_is_left_alone_uncounted(native, nic_mac):
    result, grew = native.run(
        "fast_from_underlay", ethernet(Mac.derived("x"), nic_mac, ETH_ARP, bytes(28)), "nic"
    )
    assert (result.verdict, grew) == (PASS, {})


def test_a_frame_for_another_machine_is_left_alone(arrives):
    result, grew = arrives(Ip(V4.r, V4.a, TCP, tcp(1, 2)), mac=Mac.derived("another"))
    assert (result.verdict, grew) == (PASS, {})


def test_what_comes_from_outside_for_a_pod_goes_to_the_stack(arrives):
    result, grew = arrives(Ip(V4.outside, V4.a, TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (PASS, came(Reason.STACK_NOT_POD))


@pytest.mark.parametrize("place", ["a", "b", "node"])
def test_a_source_of_this_very_node_is_refused(arrives, place):
    result, grew = arrives(Ip(getattr(V4, place), V4.a, TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_SPOOFED_ADDRESS))


def test_fragments_flows_of_the_stack_and_marked_pods_go_to_the_stack(native, arrives):
    assert arrives(Ip(V4.r, V4.a, UDP, udp(1, 2), fragment=(0, True)))[1] == came(Reason.STACK_FRAGMENT)
    native.flows.put(FlowKey.of((V4.r, 80), (V4.a, 1000), TCP), Flow(1))
    assert arrives(Ip(V4.r, V4.a, TCP, tcp(80, 1000)))[1] == came(Reason.STACK_FLOW)
    native.shape(V4.a, LocalPodFlag.VIA_STACK)
    assert arrives(Ip(V4.r, V4.a, TCP, tcp(1, 2)))[1] == came(Reason.STACK_REQUESTED)


@pytest.mark.parametrize("place", ["r", "other_node"])
def test_ipv6_of_the_cluster_that_came_without_the_tunnel_is_refused(arrives, place):
    result, grew = arrives(Ip(getattr(V6, place), V6.a, TCP, tcp(1, 2)))
    assert (result.verdict, grew) == (SHOT, came(Reason.DROP_UNTUNNELLED))
    assert arrives(Ip(V6.outside, V6.a, TCP, tcp(1, 2)))[1] == came(Reason.STACK_NOT_POD)
