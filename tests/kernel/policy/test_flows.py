"""What the program makes of flows: replies, policy that comes and goes, reused ports, ICMP errors, fragments."""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address

import msgspec
import pytest

from fast.datapath.bpf import FlowKey, FlowLimit, Interface
from fast.datapath.bpf.layout import Flow, FlowFlag
from fast.net import Mac
from fast.net.address import map_key
from fast.policy import PodFlag
from kernel.bpf.packets import ICMP, ICMPV6, TCP, UDP, Ip, discovery, echo, icmp, udp
from kernel.policy import policies
from kernel.policy.judged_node import JudgedNode
from unit.policy.node import Node

SYN, SYN_ACK, ACK, RST = 0x02, 0x12, 0x10, 0x04
SERVER, CLIENT, STRANGER, NODE = "10.0.0.1", "10.0.1.1", "10.0.1.2", "192.168.0.2"
SERVER6, CLIENT6 = "fd00::1", "fd00::1:1"


@pytest.fixture(scope="module")
def judged():
    node = JudgedNode()
    yield node
    node.close()


@pytest.fixture
def world(judged):
    """A server here, a client and a stranger elsewhere; no policy, no flows."""
    judged.forget_flows()
    node = Node()
    node.namespace("x")
    node.local("server", "x", {"app": "server"}, (SERVER, SERVER6))
    for address in (CLIENT, CLIENT6):
        node.remote(address, "x", {"app": "client"})
    node.remote(STRANGER, "x", {"app": "stranger"})
    node.node(NODE, "n2", {})
    return Laid(judged, node)


class Laid:
    """The simulated node and the kernel's maps, which follow it."""

    def __init__(self, judged, node) -> None:
        self.judged, self.node = judged, node
        self.apply()

    def apply(self, *added, removed=()) -> None:
        """Add and remove policies; flows stay."""
        for policy in removed:
            self.node.unpolicy(policy)
        for policy in added:
            self.node.policy(policy)
        self.node.plan(after=20 * 10**9)
        flows = self.judged.raw("fast_flow_table")
        with flows:
            kept = flows.snapshot_raw()
            self.judged.fill(self.node.maps)
            flows.put_many_raw(kept)

    def tcp(self, source, destination, flags, source_port=40_000, port=80) -> bool:
        return self.judged.passes(tcp(source, destination, flags, source_port, port))

    def isolated_for(self, seconds: float) -> None:
        """Say since when the server is isolated, and forget flows."""
        key = map_key(ip_address(SERVER))
        since = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(seconds * 10**9)
        self.node.maps.pods[key] = msgspec.structs.replace(
            self.node.maps.pods[key], isolated_since_ns=max(1, since)
        )
        self.judged.fill(self.node.maps)


def tcp(source, destination, flags, source_port, port) -> Ip:
    body = struct.pack("!HHIIBBHHH", source_port, port, 1, 1, 5 << 4, flags, 1024, 0, 0)
    return Ip.of(source, destination, TCP, body)


def datagram(source, destination, source_port, port, **more) -> Ip:
    return Ip.of(source, destination, UDP, udp(source_port, port, bytes(8)), **more)


ALLOW_CLIENT = policies.ingress("x", {"app": "server"}, [policies.pods({"app": "client"})], [("TCP", 80)])
DENY_ALL = policies.deny("x", "Ingress", "Egress")


@pytest.mark.parametrize(("server", "client"), [(SERVER, CLIENT), (SERVER6, CLIENT6)], ids=["ipv4", "ipv6"])
def test_the_replies_of_an_allowed_flow_pass_and_nothing_else_does(world, server, client):
    world.apply(ALLOW_CLIENT, DENY_ALL)
    assert world.tcp(client, server, SYN)
    assert world.tcp(server, client, SYN_ACK, 80, 40_000)
    assert world.tcp(server, client, ACK, 80, 40_000)
    assert not world.tcp(client, server, SYN, port=81)
    assert not world.tcp(server, client, SYN, 41_000, 80)
    assert not world.tcp(server, STRANGER if client == CLIENT else "fd00::9", SYN)


def test_without_policy_nothing_is_written_down(world):
    assert world.tcp(STRANGER, SERVER, SYN)
    assert len(world.judged.flows) == 0


def test_a_policy_that_is_laid_on_ends_the_flows_it_denies_in_both_directions(world):
    allow_all = policies.ingress("x", {}, [], [])
    world.apply(allow_all)
    for source in (CLIENT, STRANGER):
        assert world.tcp(source, SERVER, SYN)
        assert world.tcp(SERVER, source, SYN_ACK, 80, 40_000)
    world.apply(ALLOW_CLIENT, removed=[allow_all])
    assert world.tcp(CLIENT, SERVER, ACK)
    assert world.tcp(SERVER, CLIENT, ACK, 80, 40_000)
    assert not world.tcp(SERVER, STRANGER, ACK, 80, 40_000)
    assert not world.tcp(STRANGER, SERVER, ACK)
    reasons = {reason.name for reason, _ in world.judged.metrics.read()}
    assert "DROP_POLICY_REVOKED" in reasons
    assert not world.tcp(SERVER, STRANGER, ACK, 80, 40_000)


def test_a_policy_that_is_taken_off_lets_the_flow_go_on(world):
    world.apply(ALLOW_CLIENT)
    assert not world.tcp(STRANGER, SERVER, SYN)
    world.apply(removed=[ALLOW_CLIENT])
    assert world.tcp(STRANGER, SERVER, SYN)


def test_a_flow_older_than_its_policy_goes_on_if_its_opener_may_open_it(world):
    world.apply(ALLOW_CLIENT, policies.deny("x", "Egress"))
    assert world.tcp(SERVER, CLIENT, ACK, 80, 40_000), "the client opened it, by the ports"
    assert not world.tcp(SERVER, STRANGER, ACK, 80, 40_000)
    assert not world.tcp(STRANGER, SERVER, ACK)


def test_a_server_that_may_send_does_not_keep_a_flow_alive_that_its_client_may_not_open(world):
    world.apply(ALLOW_CLIENT)
    assert not world.tcp(SERVER, STRANGER, ACK, 80, 40_000)
    assert not world.tcp(STRANGER, SERVER, ACK)
    assert not world.tcp(SERVER, STRANGER, SYN_ACK, 80, 40_000)
    assert world.tcp(SERVER, STRANGER, ACK, 40_001, 80), "a flow of its own goes on"
    assert world.tcp(STRANGER, SERVER, ACK, 80, 40_001)


def test_if_the_ports_do_not_tell_the_opener_both_must_be_allowed(world):
    world.apply(ALLOW_CLIENT)
    assert not world.tcp(SERVER, STRANGER, ACK, 50_000, 50_001)
    assert not world.tcp(STRANGER, SERVER, ACK, 79, 80)


def test_datagrams_just_after_isolation_are_judged_by_their_ports(world):
    allow = policies.ingress("x", {"app": "server"}, [policies.pods({"app": "client"})], [("UDP", 53)])
    world.apply(allow, policies.deny("x", "Egress"))
    world.isolated_for(1)
    assert world.judged.passes(datagram(SERVER, CLIENT, 53, 40_000))
    assert not world.judged.passes(datagram(SERVER, STRANGER, 53, 40_000))
    world.judged.forget_flows()
    world.isolated_for(60)
    assert not world.judged.passes(datagram(SERVER, CLIENT, 53, 40_000))


def test_a_syn_from_the_other_end_of_a_flow_is_judged_by_itself(world):
    world.apply(ALLOW_CLIENT, DENY_ALL)
    assert world.tcp(CLIENT, SERVER, SYN)
    assert not world.tcp(SERVER, CLIENT, SYN, 80, 40_000)
    assert world.tcp(SERVER, CLIENT, SYN_ACK, 80, 40_000), "the flow itself goes on"


def test_another_pod_with_the_address_does_not_inherit_flows(world):
    world.apply(policies.ingress("x", {}, [], []))
    assert world.tcp(STRANGER, SERVER, SYN)
    pod = world.node.world.pods[0]
    world.node.local_gone(pod)
    world.node.local("other", "x", {"app": "server"}, (SERVER,))
    world.apply(ALLOW_CLIENT, removed=list(world.node.world.policies))
    assert not world.tcp(STRANGER, SERVER, ACK)


def test_packets_of_a_pod_whose_rules_are_not_known_are_dropped(world):
    for key, entry in world.node.maps.pods.items():
        world.node.maps.pods[key] = msgspec.structs.replace(entry, flags=PodFlag.POLICY_PENDING)
    world.judged.fill(world.node.maps)
    assert not world.tcp(CLIENT, SERVER, SYN)
    assert not world.tcp(SERVER, CLIENT, SYN)


def test_the_own_nodes_packets_pass_and_so_do_the_replies(world):
    world.apply(DENY_ALL)
    probe = tcp(NODE, SERVER, SYN, 40_000, 8080)
    assert not world.judged.passes(probe)
    assert world.judged.passes(probe, from_own_node=True)
    assert world.tcp(SERVER, NODE, SYN_ACK, 8080, 40_000)
    assert not world.tcp(SERVER, NODE, SYN, 40_001, 8080)


def test_an_echo_is_judged_by_who_asked(world):
    world.apply(
        policies.ingress("x", {}, [policies.pods({"app": "client"})], []), policies.deny("x", "Egress")
    )
    assert world.judged.passes(Ip.of(CLIENT, SERVER, ICMP, echo(8, 7)))
    assert world.judged.passes(Ip.of(SERVER, CLIENT, ICMP, echo(0, 7)))
    assert world.judged.passes(Ip.of(SERVER, CLIENT, ICMP, echo(0, 9))), "a reply to what was asked before"
    assert not world.judged.passes(Ip.of(SERVER, STRANGER, ICMP, echo(0, 7)))
    assert not world.judged.passes(Ip.of(SERVER, CLIENT, ICMP, echo(8, 8)))


def test_an_icmp_error_passes_with_the_flow_it_quotes(world):
    world.apply(ALLOW_CLIENT, DENY_ALL)
    assert world.tcp(CLIENT, SERVER, SYN)
    sent = bytes(tcp(SERVER, CLIENT, ACK, 80, 40_000))[:28]
    other = bytes(tcp(SERVER, CLIENT, ACK, 81, 40_000))[:28]
    router = "198.51.100.1"
    assert world.judged.passes(Ip.of(router, SERVER, ICMP, icmp(3, 4, payload=sent)))
    assert not world.judged.passes(Ip.of(router, SERVER, ICMP, icmp(3, 4, payload=other)))
    assert not world.judged.passes(Ip.of(router, SERVER, ICMP, icmp(3, 4, payload=b"\0" * 3)))


def test_an_icmpv6_error_passes_with_the_flow_it_quotes(world):
    world.apply(ALLOW_CLIENT, DENY_ALL)
    assert world.tcp(CLIENT6, SERVER6, SYN)
    sent = bytes(tcp(SERVER6, CLIENT6, ACK, 80, 40_000))[:48]
    assert world.judged.passes(Ip.of("2001:db8::1", SERVER6, ICMPV6, icmp(2, payload=sent)))
    assert not world.judged.passes(Ip.of("2001:db8::1", SERVER6, ICMPV6, icmp(2, payload=bytes(48))))


def test_neighbour_discovery_is_not_judged(world):
    world.apply(DENY_ALL)
    assert world.judged.passes(
        Ip.of(SERVER6, "ff02::1:ff00:1", ICMPV6, discovery(135, ip_address("fe80::1")))
    )


def test_a_later_fragment_passes_only_where_all_ports_do(world):
    world.apply(ALLOW_CLIENT)
    fragment = datagram(CLIENT, SERVER, 1, 1, fragment=(1480, False))
    assert not world.judged.passes(fragment)
    world.apply(policies.ingress("x", {}, [policies.pods({"app": "client"})], []))
    assert world.judged.passes(fragment)
    assert len(world.judged.flows) == 0


@pytest.mark.parametrize("extensions", [(0,), (60,), (0, 43)], ids=str)
def test_ports_behind_ipv6_extension_headers_are_found(world, extensions):
    world.apply(ALLOW_CLIENT)
    assert world.judged.passes(tcp(CLIENT6, SERVER6, SYN, 40_000, 80).with_(extensions=extensions))
    assert not world.judged.passes(tcp(CLIENT6, SERVER6, SYN, 40_000, 81).with_(extensions=extensions))


def test_a_header_that_cannot_be_read_is_dropped(world):
    world.apply(ALLOW_CLIENT)
    assert not world.judged.passes(Ip.of(CLIENT, SERVER, TCP, b"\0" * 2))


def test_a_pod_that_has_as_many_flows_as_it_may_opens_no_more(world):
    world.apply(ALLOW_CLIENT)
    ifindex = world.judged.local_pods.get(ip_address(SERVER)).ifindex
    with world.judged.object.interfaces as interfaces, world.judged.object.flow_limits as limits:
        interfaces.put(ifindex, Interface(Mac.derived("s"), inbound_opened=5))
        limits.put(ifindex, FlowLimit(5, 5))
        assert not world.tcp(CLIENT, SERVER, SYN)
        limits.put(ifindex, FlowLimit(6, 6))
        assert world.tcp(CLIENT, SERVER, SYN)
        assert interfaces.get(ifindex).inbound_opened == 6
        interfaces.delete(ifindex)
        limits.delete(ifindex)


def test_an_entry_of_the_stack_path_is_judged_too_and_keeps_its_marks(world):
    world.apply(ALLOW_CLIENT)
    key = FlowKey.of((ip_address(CLIENT), 40_000), (ip_address(SERVER), 80), TCP)
    opened = FlowFlag.OPENED_BY_LOW if key.low == ip_address(CLIENT) else FlowFlag.OPENED_BY_HIGH
    world.judged.flows.put(key, Flow(1, FlowFlag.STACK | opened, owner=3))
    assert world.tcp(CLIENT, SERVER, SYN)
    flow = world.judged.flows.get(key)
    assert flow.flags & (FlowFlag.STACK | FlowFlag.JUDGED) == FlowFlag.STACK | FlowFlag.JUDGED
    assert flow.owner == 3
