"""The program gives every packet the verdict that ``fast.policy.judge`` gives, on random compiled maps."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast.policy.judge import Verdict, judge
from kernel.bpf.packets import Ip
from kernel.policy.judged_node import JudgedNode
from unit.policy import worlds

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58


@pytest.fixture(scope="module")
def judged():
    node = JudgedNode()
    yield node
    node.close()


def first_packet(packet) -> Ip:
    """The first packet of a flow: a SYN, a datagram, an echo request."""
    ports = struct.pack("!HH", 40_000, packet.port)
    if packet.protocol == TCP:
        body = ports + struct.pack("!IIBBHHH", 0, 0, 5 << 4, 2, 1024, 0, 0)
    elif packet.protocol in (UDP, SCTP):
        body = ports + bytes(12)
    else:
        body = struct.pack("!BBHHH", 8 if packet.protocol == ICMP else 128, 0, 0, 7, 1)
    return Ip(packet.source, packet.destination, packet.protocol, body)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
@given(worlds.nodes(), worlds.policies, st.data())
def test_the_program_judges_the_first_packet_of_a_flow_as_the_reference_does(judged, node, policies, data):
    for policy in policies:
        node.policy(policy)
    node.plan()
    judged.fill(node.maps)
    # Enough of them to meet every rule, few enough for many worlds.
    for packet in worlds.PACKETS[data.draw(st.integers(0, 4)) :: 5]:
        expected = judge(node.maps, packet).verdict
        judged.forget_flows()
        passed = judged.passes(first_packet(packet), from_own_node=packet.from_own_node)
        assert passed == (expected is Verdict.PASS), (packet, expected)
