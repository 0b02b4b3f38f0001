"""While a plan is carried out, every packet gets the old verdict or the new one, in each of its two directions."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from fast.policy import SetPod, Step
from fast.policy.oracle import World
from unit.policy import worlds
from unit.policy.node import SECOND, Node
from unit.policy.test_meaning import SLOW

PACKETS = [
    packet
    for packet in worlds.PACKETS
    if packet.source != packet.destination
    and (packet.protocol, packet.port) in {(6, 80), (6, 8080), (17, 79), (1, 0)}
]


def restarted(node: Node, world: World) -> Node:
    """The node after a restart of its agent: new tables, the same maps, the lists read again."""
    again = Node()
    again.maps, again.now = copy.deepcopy(node.maps), node.now
    again.world = world
    again.tables.adopt(again.maps)
    for namespace in world.namespaces.values():
        again.tables.set_namespace(namespace)
    for pod in world.pods:
        again.tables.set_local_pod(pod)
    for item in world.remote:
        again.tables.set_address(item)
    for item in world.nodes:
        again.tables.set_node_address(item)
    for policy in world.policies:
        again.tables.set_policy(policy)
    return again


@SLOW
@given(worlds.nodes(), worlds.policies, st.data())
def test_no_packet_ever_gets_a_third_verdict(node, policies, data):
    for policy in policies:
        node.policy(policy)
    node.plan()
    for _ in range(data.draw(st.integers(1, 3))):
        before = {packet: node.directions(packet) for packet in PACKETS}
        what = worlds.change(data, node)
        after = {packet: node.expected(packet) for packet in PACKETS}

        def watch(write: str, before=before, after=after, what=what) -> None:
            for packet in PACKETS:
                now = node.directions(packet)
                for direction in (0, 1):
                    allowed = {before[packet][direction], after[packet][direction]}
                    assert now[direction] in allowed, (
                        what,
                        write,
                        packet,
                        before[packet],
                        after[packet],
                        now,
                    )

        node.watcher = watch
        node.plan(after=data.draw(st.sampled_from((0, SECOND, 40 * SECOND))))
        node.watcher = None
        node.check(PACKETS)


@SLOW
@given(worlds.nodes(), worlds.policies, st.data())
def test_a_restart_writes_nothing_if_nothing_changed(node, policies, data):
    for policy in policies:
        node.policy(policy)
    node.plan()
    for _ in range(data.draw(st.integers(0, 3))):
        worlds.change(data, node)
        node.plan()
    node.quiesce()
    again = restarted(node, node.world)
    assert list(again.plan()) == []
    again.quiesce()
    assert again.maps == node.maps


@SLOW
@given(worlds.nodes(), worlds.policies, st.data())
def test_an_agent_killed_during_a_plan_goes_on_from_any_write(node, policies, data):
    for policy in policies:
        node.policy(policy)
    node.plan()
    worlds.change(data, node)
    writes = list(node.tables.plan(node.now))
    for write in writes[: data.draw(st.integers(0, len(writes)))]:
        node.maps.apply(write)
    again = restarted(node, node.world)
    again.plan()
    again.check(worlds.PACKETS)
    again.quiesce()
    again.check(worlds.PACKETS)


@SLOW
@given(worlds.nodes(), worlds.policies)
def test_what_nothing_refers_to_goes_and_nothing_else(node, policies):
    empty = copy.deepcopy(node.maps)
    node.plan()
    for policy in policies:
        node.policy(policy)
    node.plan()
    for policy in policies:
        node.unpolicy(policy)
    node.plan()
    node.quiesce()
    assert (
        node.maps.rule_sets,
        node.maps.digests,
        node.maps.peer_bits,
        node.maps.port_bits,
        node.maps.blocks,
    ) == (empty.rule_sets, empty.digests, empty.peer_bits, empty.port_bits, empty.blocks)
    assert set(node.maps.classes.values()) <= {0}
    assert len(node.tables.peers) == 0


def test_both_directions_and_the_epoch_change_in_one_write_an_address():
    node = Node()
    node.namespace("x")
    node.local("a", "x", {}, ("10.0.0.1", "fd00::1"))
    node.plan()
    before = {entry.epoch for entry in node.maps.pods.values()}
    node.policy(worlds.deny_all("x"))
    plan = node.plan()
    writes = plan.steps[Step.PODS]
    assert len(writes) == 2
    assert all(
        isinstance(write, SetPod) and write.policy.ingress_rules and write.policy.egress_rules
        for write in writes
    )
    assert {write.policy.epoch - 1 for write in writes} == before
