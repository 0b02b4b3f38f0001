"""fast_to_pod, what the stack sends to a pod: it passes, and flows whose replies could take the fast path are kept."""

from dataclasses import replace

import pytest

from fast.datapath.bpf import FlowKey, PacketDirection, Reason
from kernel.bpf.node import PASS, REDIRECT, SHOT, only
from kernel.bpf.packets import GRE, ICMP, ICMPV6, TCP, UDP, Ip, echo, icmp, tcp, udp

TO_POD = PacketDirection.TO_POD


def flow_keys(node):
    return {key for key, _ in node.flows.items()}


@pytest.mark.parametrize(("protocol", "payload"), [(TCP, tcp(80, 1000)), (UDP, udp(80, 1000))])
@pytest.mark.parametrize("place", ["b", "r", "other_node"])
def test_a_flow_from_a_pod_or_another_node_is_remembered(node, ip, place, protocol, payload):
    peer = getattr(ip, place)
    result, grew = node.to_pod(Ip(peer, ip.a, protocol, payload))
    assert (result.verdict, grew) == (PASS, only(Reason.STACK_TO_POD, TO_POD))
    assert flow_keys(node) == {FlowKey.of((peer, 80), (ip.a, 1000), protocol)}


@pytest.mark.parametrize("place", ["node", "outside", "vip", "nobody"])
def test_a_flow_whose_replies_go_to_the_stack_anyway_takes_no_entry(node, ip, place):
    assert node.to_pod(Ip(getattr(ip, place), ip.a, TCP, tcp(80, 1000)))[0].verdict == PASS
    assert flow_keys(node) == set()


def test_the_reply_of_a_remembered_flow_goes_to_the_stack(node, ip):
    for peer in (ip.b, ip.r):
        assert node.from_pod(Ip(ip.a, peer, TCP, tcp(1000, 80)))[0].verdict == REDIRECT
        node.to_pod(Ip(peer, ip.a, TCP, tcp(80, 1000)))
        result, grew = node.from_pod(Ip(ip.a, peer, TCP, tcp(1000, 80)))
        assert (result.verdict, grew) == (PASS, only(Reason.STACK_FLOW, PacketDirection.FROM_POD))


def test_a_ping_is_remembered_by_its_identifier_and_other_protocols_by_their_addresses(node, ip):
    protocol, kind = (ICMP, 8) if ip.a.version == 4 else (ICMPV6, 128)
    node.to_pod(Ip(ip.b, ip.a, protocol, echo(kind, 77)))
    node.to_pod(Ip(ip.b, ip.a, GRE, bytes(8)))
    assert flow_keys(node) == {
        FlowKey.of((ip.a, 77), (ip.b, 77), protocol),
        FlowKey.of((ip.a, 0), (ip.b, 0), GRE),
    }


def test_the_first_fragment_is_remembered_by_its_ports_and_later_ones_are_not(node, ip):
    later = Ip(ip.b, ip.a, UDP, bytes(64), fragment=(1200, False))
    node.to_pod(later)
    assert flow_keys(node) == set()
    node.to_pod(later.with_(payload=udp(80, 1000, bytes(64)), fragment=(0, True)))
    assert flow_keys(node) == {FlowKey.of((ip.b, 80), (ip.a, 1000), UDP)}


def test_an_icmp_error_is_no_flow(node, ip):
    protocol, kind = (ICMP, 3) if ip.a.version == 4 else (ICMPV6, 1)
    quoted = bytes(Ip(ip.a, ip.b, TCP, tcp(1000, 80)))
    assert node.to_pod(Ip(ip.b, ip.a, protocol, icmp(kind, 4, payload=quoted)))[0].verdict == PASS
    assert flow_keys(node) == set()


def test_an_entry_is_touched_at_most_once_a_second(node, ip):
    packet = Ip(ip.b, ip.a, TCP, tcp(80, 1000))
    key = FlowKey.of((ip.b, 80), (ip.a, 1000), TCP)
    node.to_pod(packet)
    first = node.flows.get(key)
    assert first is not None
    half_a_second_old = replace(first, last_seen_ns=first.last_seen_ns - 500_000_000)
    node.flows.put(key, half_a_second_old)
    node.to_pod(packet)
    assert node.flows.get(key) == half_a_second_old
    node.flows.put(key, replace(first, last_seen_ns=1))
    node.to_pod(packet)
    touched = node.flows.get(key)
    assert touched is not None
    assert touched.last_seen_ns > first.last_seen_ns


@pytest.mark.parametrize(
    "raw",
    [
        Ip.of("fe80::1", "ff02::1:ff00:10", ICMPV6, icmp(135) + bytes(20)),
        Ip.of("10.244.1.11", "10.244.1.10", TCP, b""),
    ],
)
def test_nothing_from_the_stack_is_refused(node, raw):
    result, grew = node.to_pod(raw)
    assert result.verdict == PASS != SHOT
    assert grew == only(Reason.STACK_TO_POD, TO_POD)
    assert flow_keys(node) == set()
