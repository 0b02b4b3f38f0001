"""Calls of one node that come between the steps of each other, and writes whose answers never come."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fakes.store import FakeStore, Fate, a_pool
from fast.api.ipendpoint import IpEndpoint
from fast.errors import PoolExhausted, Unavailable
from fast.ipam import ClaimRequest
from fast.ipam.store.record_writes import Writes
from unit.ipam.nodes import SMALL, Gate, Nodes, names, sandbox, settle_down


@pytest.fixture
def nodes():
    return Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))


@pytest.fixture
def gate():
    return Gate()


async def none_alive():
    return set()


# ── an ADD is repeated while the garbage collection is about to free its record ──


async def test_a_repeated_add_waits_for_the_sweep_that_frees_its_record_and_then_has_another(nodes, gate):
    agent = nodes.agent(gate=gate)
    await agent.claim(sandbox(1), SMALL)
    await agent.gc(none_alive)
    nodes.clock.now += 31
    gate.held["delete"] = asyncio.Event()
    sweep = asyncio.create_task(agent.gc(none_alive))
    await settle_down()
    claim = asyncio.create_task(agent.claim(sandbox(1), SMALL))
    await settle_down()
    gate.held["delete"].set()
    (record,) = await claim
    assert len((await sweep).freed) == 1
    assert record.metadata.name in nodes.cluster.endpoints


async def test_a_sweep_leaves_what_was_added_since_it_looked(nodes, gate):
    agent = nodes.agent(gate=gate)
    await agent.claim(sandbox(1), SMALL)
    await agent.claim(sandbox(2), SMALL)
    await agent.gc(none_alive)
    nodes.clock.now += 31
    gate.held["delete"] = asyncio.Event()
    sweep = asyncio.create_task(agent.gc(none_alive))
    await settle_down()
    (record,) = await agent.claim(sandbox(2), SMALL)
    gate.held["delete"].set()
    assert [freed.spec.container_id for freed, _ in (await sweep).freed] == ["c1"]
    assert list(nodes.cluster.endpoints) == [record.metadata.name]


async def test_a_sweep_leaves_what_an_add_made_between_the_look_and_the_decision(nodes):
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.gc(none_alive)
    nodes.clock.now += 31

    async def none_alive_yet():
        await agent.claim(sandbox(1), SMALL)
        return set()

    assert (await agent.gc(none_alive_yet)).freed == []


async def test_a_sweep_whose_delete_got_no_answer_is_looked_up_before_the_same_sandbox_is_added_again(
    nodes, gate
):
    agent = nodes.agent(gate=gate, lagging=True)
    await agent.claim(sandbox(1), SMALL)
    await agent.gc(none_alive)
    nodes.clock.now += 31
    gate.fates["delete"] = [Fate.ANSWER_LOST]
    assert len((await agent.gc(none_alive)).refused) == 1
    (record,) = await agent.claim(sandbox(1), SMALL)
    assert record.metadata.name in nodes.cluster.endpoints


async def test_a_sandbox_missed_once_is_not_missing_since_before_its_add_was_repeated(nodes):
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    await agent.gc(none_alive)
    nodes.clock.now += 31
    await agent.claim(sandbox(1), SMALL)
    assert (await agent.gc(none_alive)).freed == []
    nodes.clock.now += 31
    assert len((await agent.gc(none_alive)).freed) == 1


# ── a claim is taken back ──


async def test_what_was_taken_over_goes_back_to_the_sandbox_it_was_taken_from(nodes):
    agent, old, new = nodes.agent(), sandbox(1, "web"), sandbox(2, "web")
    (before,) = await agent.claim(old, SMALL)
    with agent.attaching(*new.key):
        await agent.claim(new, SMALL)
        await agent.unclaim(*new.key)
    (record,) = agent.records_of(*old.key)
    assert (record.metadata.name, record.spec) == (before.metadata.name, before.spec)
    assert nodes.cluster.endpoints == {record.metadata.name: record}


@pytest.mark.parametrize(("key", "left"), [("", 0), ("set-uid/0", 1)])
async def test_it_does_not_go_back_where_that_sandbox_was_deleted_meanwhile(nodes, key, left):
    agent, old, new = nodes.agent(), sandbox(1, "web"), sandbox(2, "web")
    request = ClaimRequest(pools=("small",), sticky_key=key)
    await agent.claim(old, request)
    with agent.attaching(*new.key):
        await agent.claim(new, request)
        assert await agent.release(*old.key) == ()
        await agent.unclaim(*new.key)
    assert [record.spec.container_id for record in nodes.cluster.endpoints.values()] == [""] * left


async def test_it_does_not_stay_where_that_sandbox_is_deleted_while_it_goes_back(nodes, gate):
    agent, old, new = nodes.agent(gate=gate), sandbox(1, "web"), sandbox(2, "web")
    await agent.claim(old, SMALL)
    with agent.attaching(*new.key):
        await agent.claim(new, SMALL)
        gate.held["replace"] = asyncio.Event()
        undoing = asyncio.create_task(agent.unclaim(*new.key))
        await settle_down()
        assert await agent.release(*old.key) == ()
        gate.held["replace"].set()
        await undoing
    assert nodes.cluster.endpoints == {}


async def test_what_the_sandbox_held_before_stays_and_so_does_what_another_has_taken_over(nodes):
    agent, first, second = nodes.agent(), sandbox(1, "web"), sandbox(2, "web")
    await agent.claim(first, SMALL)
    with agent.attaching(*first.key):
        await agent.claim(first, SMALL)
        await agent.unclaim(*first.key)
    assert len(agent.records_of(*first.key)) == 1
    third = sandbox(3, "db")
    with agent.attaching(*third.key):
        await agent.claim(third, SMALL)
        await agent.claim(sandbox(4, "db"), SMALL)
        await agent.unclaim(*third.key)
    assert len(agent.records_of("c4", "eth0")) == 1
    assert second.key not in agent.ledger._by_attachment


async def test_nothing_is_remembered_of_a_claim_once_its_add_has_ended(nodes):
    agent = nodes.agent()
    with agent.attaching("c1", "eth0"):
        await agent.claim(sandbox(1), SMALL)
    await agent.unclaim("c1", "eth0")
    assert len(agent.records_of("c1", "eth0")) == 1
    assert not agent._claiming._claims


async def test_an_address_that_somebody_else_has_by_now_is_not_believed_to_be_the_sandboxs_own(nodes):
    agent = nodes.agent(lagging=True)
    with agent.attaching("c1", "eth0"):
        (record,) = await agent.claim(sandbox(1), SMALL)
        spec = msgspec.structs.replace(record.spec, container_id="other", node="n2")
        nodes.cluster.replace(IpEndpoint(metadata=record.metadata, spec=spec))
        await agent.unclaim("c1", "eth0")
    (another,) = await agent.claim(sandbox(1), SMALL)
    assert another.metadata.name != record.metadata.name


# ── a takeover whose answer got lost ──


async def test_a_takeover_whose_answer_got_lost_is_found_by_asking_once(nodes, gate):
    agent, new = nodes.agent(gate=gate, lagging=True), sandbox(2, "web")
    await agent.claim(sandbox(1, "web"), SMALL)
    gate.fates["replace"] = [Fate.ANSWER_LOST]
    (record,) = await agent.claim(new, SMALL)
    assert agent.records_of(*new.key) == (record,)


@pytest.mark.parametrize("first", [1, 2])
async def test_one_whose_outcome_stays_unknown_is_looked_up_before_either_sandbox_is_served(
    nodes, gate, first
):
    agent, old, new = nodes.agent(gate=gate, lagging=True), sandbox(1, "web"), sandbox(2, "web")
    await agent.claim(old, SMALL)
    gate.fates |= {"replace": [Fate.ANSWER_LOST], "get": [Fate.LOST]}
    with pytest.raises(Unavailable):
        await agent.claim(new, SMALL)
    if first == 1:  # its ADD is repeated: it must not believe that it still has the address
        (record,) = await agent.claim(old, SMALL)
        assert nodes.cluster.endpoints[record.metadata.name].spec.container_id == "c1"
    else:
        assert names(await agent.release(*new.key)) == ["10.244.10.0"]
        assert nodes.cluster.endpoints == {}


async def test_a_write_that_goes_unanswered_while_an_earlier_one_is_looked_up_is_looked_up_too(nodes):
    (record,) = await nodes.agent().claim(sandbox(1), SMALL)
    looked_up = 0

    async def gate(verb, name):
        nonlocal looked_up
        if verb == "delete":
            return Fate.LOST
        looked_up += 1
        if looked_up == 1:
            await delete()
        return Fate.ANSWERED

    writes = Writes(FakeStore(nodes.cluster, gate=gate))

    async def delete():
        with pytest.raises(Unavailable):
            await writes.delete(record)

    await delete()
    for _ in range(2):
        await writes.look_up_unanswered(("c1", "eth0"))
        assert looked_up == 2


# ── a view that does not keep up ──


async def test_a_claim_ends_though_the_view_never_shows_what_is_taken():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.1"))
    calls = 0

    async def slow(verb, name):
        nonlocal calls
        calls += 1
        assert calls < 50, "it goes round in circles"
        nodes.clock.now += 6
        return Fate.ANSWERED

    late = nodes.agent("n2", lagging=True, gate=slow)
    early = nodes.agent("n1")
    for number in range(2):
        await early.claim(sandbox(number), SMALL)
    with pytest.raises(PoolExhausted):
        await late.claim(sandbox(9), SMALL)


async def test_a_claim_gets_the_address_that_became_free_while_it_searched():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.1"))

    async def slow(verb, name):
        nodes.clock.now += 6
        if verb == "get":
            await early.release("c0", "eth0")
        return Fate.ANSWERED

    late = nodes.agent("n2", lagging=True, gate=slow)
    early = nodes.agent("n1")
    for number in range(2):
        await early.claim(sandbox(number), SMALL)
    assert names(await late.claim(sandbox(9), SMALL)) == ["10.244.10.0"]
