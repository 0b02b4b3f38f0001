"""Claims and releases of a node, on a store without an API server."""

from __future__ import annotations

import asyncio

import pytest

from fakes.store import Fate, a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.errors import (
    AddressConflict,
    InvalidConfig,
    KubeError,
    PoolExhausted,
    PoolNotAllowed,
    PoolNotFound,
    Unavailable,
)
from fast.ipam import ClaimRequest
from fast.net import parse_address
from unit.ipam.nodes import SMALL, Gate, Nodes, names, sandbox


async def test_the_first_pods_of_a_fresh_pool_get_the_lowest_addresses_even_from_two_nodes_at_once():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.90.0"))
    one, two = nodes.agent("n1", lagging=True), nodes.agent("n2", lagging=True)
    claims = await asyncio.gather(one.claim(sandbox(1), SMALL), two.claim(sandbox(2), SMALL))
    assert sorted(names(record for records in claims for record in records)) == ["10.244.10.0", "10.244.10.1"]


async def test_a_claim_writes_who_holds_the_address():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    (record,) = await nodes.agent().claim(sandbox(1), SMALL)
    assert record.spec == IpEndpointSpec(
        pool="small",
        node="n1",
        boot_id="boot-1",
        pod=PodRef(namespace="default", name="pod-1", uid="uid-of-pod-1"),
        container_id="c1",
        interface="eth0",
    )
    assert nodes.cluster.calls == 1


async def test_the_same_attachment_gets_the_same_address_again_without_a_write():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    first = await agent.claim(sandbox(1), SMALL)
    again = await asyncio.gather(*(agent.claim(sandbox(1), SMALL) for _ in range(3)))
    assert again == [first] * 3
    assert nodes.cluster.calls == 1


async def test_a_new_sandbox_of_the_same_pod_takes_the_address_over_and_a_late_del_of_the_old_one_does_nothing():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    (old,) = await agent.claim(sandbox(1, "web"), SMALL)
    (new,) = await agent.claim(sandbox(2, "web"), SMALL)
    assert new.metadata.name == old.metadata.name
    assert new.spec.container_id == "c2"
    assert await agent.release("c1", "eth0") == ()
    assert agent.records_of("c2", "eth0") == (new,)


async def test_a_recreated_pod_of_the_same_name_does_not_get_the_old_ones_record():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    (old,) = await agent.claim(sandbox(1, "web", uid="first"), SMALL)
    (new,) = await agent.claim(sandbox(2, "web", uid="second"), SMALL)
    assert new.metadata.name != old.metadata.name


async def test_release_frees_exactly_the_interface_it_names():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.claim(sandbox(1, ifname="net1"), SMALL)
    assert names(await agent.release("c1", "eth0")) == ["10.244.10.0"]
    assert list(nodes.cluster.endpoints) == ["10.244.10.1"]
    assert await agent.release("c1", "eth0") == ()


async def test_a_pool_of_exactly_n_serves_n_to_many_agents_with_stale_views():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.63"))
    agents = [nodes.agent(f"n{number}", lagging=True) for number in range(1, 9)]
    await asyncio.gather(
        *(
            agent.claim(sandbox(number * 8 + index), SMALL)
            for index, agent in enumerate(agents)
            for number in range(8)
        )
    )
    assert len(nodes.cluster.endpoints) == 64
    with pytest.raises(PoolExhausted, match=r"pool small is exhausted \(64 addresses: "):
        await agents[0].claim(sandbox(999), SMALL)


async def test_a_released_address_goes_last_until_it_has_cooled():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.2", releaseDelaySeconds=30))
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.release("c1", "eth0")
    assert names(await agent.claim(sandbox(2), SMALL)) == ["10.244.10.1"]
    nodes.clock.now += 31
    assert names(await agent.claim(sandbox(3), SMALL)) == ["10.244.10.0"]


async def test_cooling_addresses_are_used_when_nothing_else_is_left_the_oldest_first():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.1"))
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.claim(sandbox(2), SMALL)
    await agent.release("c2", "eth0")
    nodes.clock.now += 1
    await agent.release("c1", "eth0")
    assert names(await agent.claim(sandbox(3), SMALL)) == ["10.244.10.1"]


async def test_the_next_pool_serves_where_the_first_is_exhausted():
    nodes = Nodes(a_pool("a", "10.244.1.0"), a_pool("b", "10.244.2.0-10.244.2.9"))
    agent, request = nodes.agent(), ClaimRequest(pools=("a", "b"))
    claimed = [names(await agent.claim(sandbox(number), request))[0] for number in range(3)]
    assert claimed == ["10.244.1.0", "10.244.2.0", "10.244.2.1"]


async def test_a_pool_of_each_family_gives_an_address_of_each_and_both_go_with_the_release():
    nodes = Nodes(a_pool("four", "10.244.1.0-10.244.1.9"), a_pool("six", subnet="fd00:10::/64"))
    agent = nodes.agent()
    claimed = await agent.claim(sandbox(1), ClaimRequest(pools=("four", "six")))
    assert names(claimed) == ["10.244.1.0", "fd00-0010-0000-0000-0000-0000-0000-0001"]
    assert len(await agent.release("c1", "eth0")) == 2
    assert nodes.cluster.endpoints == {}


async def test_an_exhausted_second_family_gives_the_first_familys_address_back():
    nodes = Nodes(a_pool("four", "10.244.1.0-10.244.1.9"), a_pool("six", "fd00:10::1", subnet="fd00:10::/64"))
    agent, request = nodes.agent(), ClaimRequest(pools=("four", "six"))
    await agent.claim(sandbox(1), request)
    with pytest.raises(PoolExhausted, match="pool six is exhausted"):
        await agent.claim(sandbox(2), request)
    assert agent.records_of("c2", "eth0") == ()
    assert len(nodes.cluster.endpoints) == 2


async def test_an_unknown_pool_is_named_in_the_error():
    with pytest.raises(PoolNotFound, match="no Ips named 'smal'"):
        await Nodes(a_pool("small")).agent().claim(sandbox(1), ClaimRequest(pools=("smal",)))


async def test_affinities_refuse_pods_namespaces_and_nodes_that_do_not_match():
    team = {"matchLabels": {"team": "red"}}
    nodes = Nodes(
        a_pool("pod", podAffinity=team),
        a_pool("ns", namespaceAffinity=team),
        a_pool("node", nodeAffinity=team),
    )
    agent = nodes.agent()
    for pool, what in (("pod", "podAffinity"), ("ns", "namespaceAffinity"), ("node", "nodeAffinity")):
        with pytest.raises(PoolNotAllowed, match=what):
            await agent.claim(sandbox(1), ClaimRequest(pools=(pool,)))
    red = {"team": "red"}
    request = ClaimRequest(pools=("pod", "ns", "node"), pod_labels=red, namespace_labels=red)
    assert len(await nodes.agent("n2", team="red").claim(sandbox(2), request)) == 1


async def test_a_pool_whose_affinity_refuses_is_passed_over_for_the_next():
    nodes = Nodes(
        a_pool("red", "10.244.1.0", podAffinity={"matchLabels": {"team": "red"}}), a_pool("b", "10.244.2.0")
    )
    assert names(await nodes.agent().claim(sandbox(1), ClaimRequest(pools=("red", "b")))) == ["10.244.2.0"]


async def test_one_address_asked_for_is_given_or_refused_naming_its_holder():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"), a_pool())
    agent = nodes.agent()
    request = ClaimRequest(pools_named=False, addresses=(parse_address("10.244.10.7"),))
    assert names(await agent.claim(sandbox(1), request)) == ["10.244.10.7"]
    with pytest.raises(AddressConflict, match=r"10.244.10.7 belongs to pod pod-1 on node n1"):
        await nodes.agent("n2").claim(sandbox(2), request)


async def test_an_address_outside_the_pools_named_is_refused():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    request = ClaimRequest(pools=("small",), addresses=(parse_address("10.244.11.7"),))
    with pytest.raises(InvalidConfig, match="in none of the pools"):
        await nodes.agent().claim(sandbox(1), request)


async def test_a_stateful_sets_pod_finds_its_address_again_on_another_node():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    one, two = nodes.agent("n1"), nodes.agent("n2")
    request = ClaimRequest(pools=("small",), sticky_key="set-uid/0")
    await two.claim(sandbox(9), SMALL)
    (before,) = await one.claim(sandbox(1, "db-0", uid="a"), request)
    await one.release("c1", "eth0")
    kept = nodes.cluster.endpoints[before.metadata.name]
    assert (kept.spec.container_id, kept.spec.node) == ("", "")
    (after,) = await two.claim(sandbox(2, "db-0", uid="b"), request)
    assert after.metadata.name == before.metadata.name
    assert (after.spec.node, after.spec.pod.uid) == ("n2", "b")


async def test_a_stateful_sets_pod_waits_while_its_predecessor_still_holds_the_address():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    request = ClaimRequest(pools=("small",), sticky_key="set-uid/0")
    await nodes.agent("n1").claim(sandbox(1, "db-0", uid="a"), request)
    with pytest.raises(AddressConflict, match="still holds it on node n1"):
        await nodes.agent("n2").claim(sandbox(2, "db-0", uid="b"), request)
    assert len(nodes.cluster.endpoints) == 1


async def test_a_create_whose_answer_got_lost_is_found_by_asking_once():
    async def lose_the_answer(verb, name):
        return Fate.ANSWER_LOST if verb == "create" else Fate.ANSWERED

    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent(gate=lose_the_answer)
    (record,) = await agent.claim(sandbox(1), SMALL)
    assert agent.records_of("c1", "eth0") == (record,)


async def test_a_lost_request_fails_the_claim_and_leaves_nothing():
    async def lose(verb, name):
        return Fate.LOST if verb == "create" else Fate.ANSWERED

    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    with pytest.raises(Unavailable):
        await nodes.agent(gate=lose).claim(sandbox(1), SMALL)
    assert nodes.cluster.endpoints == {}


async def test_a_cancelled_claim_lets_its_request_end_and_undoes_it():
    go = asyncio.Event()

    async def wait(verb, name):
        if verb == "create":
            await go.wait()
        return Fate.ANSWERED

    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    claim = asyncio.create_task(nodes.agent(gate=wait).claim(sandbox(1), SMALL))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    claim.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await claim
    assert nodes.cluster.calls == 2
    assert nodes.cluster.endpoints == {}


async def test_gc_frees_a_record_without_a_sandbox_only_when_seen_twice_thirty_seconds_apart():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.claim(sandbox(2), SMALL)

    async def alive():
        return {("c2", "eth0")}

    assert (await agent.gc(alive)).freed == []
    nodes.clock.now += 29
    assert (await agent.gc(alive)).freed == []
    nodes.clock.now += 1
    ((record, decision),) = (await agent.gc(alive)).freed
    assert (record.metadata.name, decision.rule) == ("10.244.10.0", "no-sandbox")
    assert list(nodes.cluster.endpoints) == ["10.244.10.1"]


async def test_gc_leaves_alone_what_is_being_attached():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()

    async def none_alive():
        return set()

    with agent.attaching("c1", "eth0"):
        await agent.claim(sandbox(1), SMALL)
        await agent.gc(none_alive)
        nodes.clock.now += 60
        assert (await agent.gc(none_alive)).freed == []
    assert len(nodes.cluster.endpoints) == 1


async def test_gc_frees_records_of_an_earlier_boot_at_once():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    await nodes.agent(boot="boot-1").claim(sandbox(1), SMALL)

    async def none_alive():
        return set()

    ((_, decision),) = (await nodes.agent(boot="boot-2").gc(none_alive)).freed
    assert decision.rule == "rebooted-node"
    assert nodes.cluster.endpoints == {}


async def test_gc_never_frees_another_nodes_record():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    await nodes.agent("n1").claim(sandbox(1), SMALL)
    agent = nodes.agent("n2", boot="boot-9")

    async def none_alive():
        return set()

    await agent.gc(none_alive)
    nodes.clock.now += 60
    assert (await agent.gc(none_alive)).freed == []


async def test_an_overlapping_pool_never_gives_an_address_that_the_other_one_gave():
    nodes = Nodes(a_pool("a", "10.244.1.0-10.244.1.1"), a_pool("b", "10.244.1.0-10.244.1.3"))
    agent = nodes.agent()
    assert names(await agent.claim(sandbox(1), ClaimRequest(pools=("a",)))) == ["10.244.1.0"]
    assert names(await agent.claim(sandbox(2), ClaimRequest(pools=("b",)))) == ["10.244.1.1"]
    with pytest.raises(
        PoolExhausted,
        match="2 addresses: 1 bound, 0 retained, 0 cooling, 1 recorded for other pools, 0 available",
    ):
        await agent.claim(sandbox(3), ClaimRequest(pools=("a",)))


async def test_a_record_that_somebody_made_by_hand_blocks_its_address():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    nodes.cluster.create(
        IpEndpoint(metadata=ObjectMeta(name="10.244.10.0"), spec=IpEndpointSpec(pool="small"))
    )
    assert names(await nodes.agent().claim(sandbox(1), SMALL)) == ["10.244.10.1"]


async def test_growing_a_pool_takes_effect_at_once_and_keeps_what_cools():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.1"))
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.claim(sandbox(2), SMALL)
    await agent.release("c1", "eth0")
    nodes.cluster.put_pool(a_pool("small", "10.244.10.0-10.244.10.5"))
    assert names(await agent.claim(sandbox(3), SMALL)) == ["10.244.10.2"]


async def test_an_add_that_took_long_does_not_take_the_address_from_the_pods_newer_sandbox():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    old, new = sandbox(1, pod="a"), sandbox(2, pod="a")
    with agent.attaching(*old.key):
        (record,) = await agent.claim(new, SMALL)
        with pytest.raises(AddressConflict, match="newer sandbox c2"):
            await agent.claim(old, SMALL)
    assert agent.records_of(*new.key) == (record,)
    (moved,) = await agent.claim(old, SMALL)
    assert moved.spec.container_id == "c1"


async def test_a_create_whose_outcome_stayed_unknown_is_looked_up_before_the_next_add_and_the_del():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    fates = iter([Fate.ANSWER_LOST, Fate.LOST])

    async def gate(verb: str, name: str) -> Fate:
        return next(fates, Fate.ANSWERED)

    agent = nodes.agent(lagging=True, gate=gate)
    with pytest.raises(Unavailable):
        await agent.claim(sandbox(1), SMALL)
    assert names(await agent.claim(sandbox(1), SMALL)) == ["10.244.10.0"]

    fates = iter([Fate.ANSWER_LOST, Fate.LOST])
    with pytest.raises(Unavailable):
        await agent.claim(sandbox(2), SMALL)
    assert names(await agent.release("c2", "eth0")) == ["10.244.10.1"]


async def test_a_claim_whose_undoing_got_no_answer_is_looked_up_before_the_next_add():
    nodes = Nodes(
        a_pool("four", "10.244.10.0-10.244.10.9"), a_pool("six", "fd00::1-fd00::8", subnet="fd00::/64")
    )
    fates = iter([Fate.ANSWERED, Fate.LOST, Fate.LOST, Fate.ANSWER_LOST])

    async def gate(verb: str, name: str) -> Fate:
        return next(fates, Fate.ANSWERED)

    agent = nodes.agent(lagging=True, gate=gate)
    both = ClaimRequest(pools=("four", "six"))
    with pytest.raises(Unavailable):
        await agent.claim(sandbox(1), both)
    assert not nodes.cluster.endpoints
    assert {record.metadata.name for record in await agent.claim(sandbox(1), both)} == set(
        nodes.cluster.endpoints
    )


async def test_a_release_that_got_no_answer_is_looked_up_before_the_same_sandbox_gets_an_address_again():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    fates = iter([Fate.ANSWERED, Fate.ANSWER_LOST])

    async def gate(verb: str, name: str) -> Fate:
        return next(fates, Fate.ANSWERED)

    agent = nodes.agent(lagging=True, gate=gate)
    await agent.claim(sandbox(1), SMALL)
    with pytest.raises(Unavailable):
        await agent.release("c1", "eth0")
    (record,) = await agent.claim(sandbox(1), SMALL)
    assert record.metadata.name in nodes.cluster.endpoints


async def test_a_pool_that_is_gone_is_in_no_gauge():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent = nodes.agent()
    agent.update_gauges()
    (gauge,) = agent.metrics.addresses.collect()
    assert {sample.labels["pool"] for sample in gauge.samples} == {"small"}
    nodes.cluster.drop_pool("small")
    agent.update_gauges()
    (gauge,) = agent.metrics.addresses.collect()
    assert not gauge.samples


@pytest.mark.parametrize("fate", [Fate.THROTTLED, Fate.LOST])
async def test_only_a_create_of_unknown_fate_keeps_its_address_from_others_for_a_while(fate):
    gate = Gate()
    nodes = Nodes(a_pool("small", "10.244.10.0"))
    agent = nodes.agent(gate=gate)
    gate.fates["create"] = [fate]
    with pytest.raises(KubeError):
        await agent.claim(sandbox(1), SMALL)
    if fate is Fate.THROTTLED:
        assert names(await agent.claim(sandbox(2), SMALL)) == ["10.244.10.0"]
        return
    with pytest.raises(PoolExhausted):
        await agent.claim(sandbox(2), SMALL)
    nodes.clock.now += 6
    assert names(await agent.claim(sandbox(2), SMALL)) == ["10.244.10.0"]


async def test_a_pool_is_looked_at_live_before_it_counts_as_exhausted_and_not_by_every_pod():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.1"))
    one, two = nodes.agent("n1"), nodes.agent("n2", lagging=True)
    await one.claim(sandbox(1), SMALL)
    await one.claim(sandbox(2), SMALL)
    two._store.deliver()
    await one.release("c2", "eth0")
    assert names(await two.claim(sandbox(3), SMALL)) == ["10.244.10.1"]
    before = nodes.cluster.calls
    for number in range(4, 9):
        with pytest.raises(PoolExhausted):
            await two.claim(sandbox(number), SMALL)
    assert nodes.cluster.calls == before
    nodes.clock.now += 6
    with pytest.raises(PoolExhausted):
        await two.claim(sandbox(9), SMALL)
    assert nodes.cluster.calls == before + 1


async def test_an_address_of_a_node_is_never_given_whenever_the_node_joins():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.3"))
    agent = nodes.agent()
    agent.reserve(
        "node n1", [parse_address("10.244.10.0"), parse_address("192.0.2.1"), parse_address("fd00::1")]
    )
    assert names(await agent.claim(sandbox(1), SMALL)) == ["10.244.10.1"]
    agent.reserve("node n2", [parse_address("10.244.10.2")])
    assert names(await agent.claim(sandbox(2), SMALL)) == ["10.244.10.3"]
    with pytest.raises(PoolExhausted, match="2 addresses: 2 bound"):
        await agent.claim(sandbox(3), SMALL)
    asked = ClaimRequest(pools=("small",), addresses=(parse_address("10.244.10.2"),))
    with pytest.raises(InvalidConfig):
        await agent.claim(sandbox(3), asked)
    agent.reserve("node n2", [])
    assert names(await agent.claim(sandbox(3), SMALL)) == ["10.244.10.2"]


async def test_a_pod_keeps_the_address_that_it_holds_when_a_node_with_it_joins():
    nodes = Nodes(a_pool("small", "10.244.10.0"))
    agent = nodes.agent()
    (before,) = await agent.claim(sandbox(1), SMALL)
    agent.reserve("node n2", [parse_address("10.244.10.0")])
    assert await agent.claim(sandbox(1), SMALL) == (before,)
    with pytest.raises(PoolNotFound, match="every address of its ranges belongs to a node"):
        await agent.claim(sandbox(2), SMALL)
