"""What the program in service would do with a packet that is never sent."""

import re
from ipaddress import ip_address

import pytest

from fast.datapath.bpf.reasons import Reason
from fast.datapath.verdict import ICMP, TCP, UDP, PacketSpec, ask_verdict
from fast.errors import DatapathError
from kernel.fastlab import attach_pods, cluster


@pytest.fixture(scope="module")
def made():
    with cluster(nodes=2) as found:
        attach_pods(found, 2)
        yield found


def ask(node, source, destination, **more):
    return node.call(ask_verdict, node.config.bpf_dir, PacketSpec(source, ip_address(destination), **more))


@pytest.mark.parametrize("protocol", [TCP, UDP, ICMP])
def test_a_packet_to_a_pod_of_the_same_node_is_handed_over(made, protocol):
    one, two = made.nodes[0].pods
    verdict = ask(made.nodes[0], one.ip, two.ip, protocol=protocol, destination_port=80)
    assert verdict.reason is Reason.FORWARD_LOCAL_POD
    assert verdict.outer_destination is None


def test_a_packet_to_another_node_is_encapsulated_between_the_nodes_addresses(made):
    here, there = made.nodes
    verdict = ask(here, here.pods[0].ip, there.pods[0].ip, destination_port=80)
    assert verdict.reason is Reason.FORWARD_TUNNEL
    assert (verdict.outer_source, verdict.outer_destination) == (here.ip, there.ip)
    assert verdict.outer_port == here.config.tunnel_port


def test_ipv6_is_asked_about_likewise(made):
    here, there = made.nodes
    assert ask(here, here.pods[0].ip6, there.pods[0].ip6, protocol=UDP).reason is Reason.FORWARD_TUNNEL


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("10.244.7.7", Reason.STACK_NOT_POD),
        ("192.168.77.1", Reason.STACK_NODE),
        ("8.8.8.8", Reason.STACK_NOT_POD),
    ],
)
def test_what_goes_to_the_stack_says_why(made, destination, reason):
    node = made.nodes[0]
    assert ask(node, node.pods[0].ip, destination).reason is reason


def test_a_packet_larger_than_the_tunnel_carries_goes_to_the_stack(made):
    here, there = made.nodes
    verdict = ask(here, here.pods[0].ip, there.pods[0].ip, protocol=UDP, size_bytes=1490)
    assert verdict.reason is Reason.STACK_TOO_BIG


def test_nothing_is_sent(made):
    here, there = made.nodes
    target = there.pods[0]
    before = int(re.search(r"RX:.*\n\s+\d+\s+(\d+)", target.run("ip -s link show eth0")).group(1))
    ask(here, here.pods[0].ip, target.ip, protocol=ICMP)
    after = int(re.search(r"RX:.*\n\s+\d+\s+(\d+)", target.run("ip -s link show eth0")).group(1))
    assert after == before


def test_an_address_that_is_no_pod_of_the_node_cannot_be_asked_about(made):
    with pytest.raises(DatapathError, match="not in this node's map"):
        ask(made.nodes[0], made.nodes[1].pods[0].ip, "10.244.1.10")
