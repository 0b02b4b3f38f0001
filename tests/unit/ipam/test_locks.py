"""Calls for one attachment take turns."""

import asyncio

import pytest

from fakes.store import a_pool
from fast.ipam import AttachmentLocks, Ipam, finish
from unit.ipam.nodes import SMALL, Nodes, sandbox


async def test_calls_for_one_attachment_take_turns_and_others_do_not_wait():
    locks, order = AttachmentLocks(), []
    release = asyncio.Event()

    async def call(key, name, wait):
        async with locks.hold(key):
            order.append(f"{name} begins")
            if wait:
                await release.wait()
            order.append(f"{name} ends")

    async def let_go():
        await asyncio.sleep(0)
        release.set()

    async with asyncio.TaskGroup() as group:
        for key, name, wait in (("a", "first", True), ("a", "second", False), ("b", "other", False)):
            group.create_task(call((key, "eth0"), name, wait))
        group.create_task(let_go())
    assert order == [
        "first begins",
        "other begins",
        "other ends",
        "first ends",
        "second begins",
        "second ends",
    ]


async def test_an_attachment_is_in_flight_while_a_call_works_on_it_or_waits_and_forgotten_afterwards():
    locks = AttachmentLocks()
    async with locks.hold(("a", "eth0")):
        waiting = asyncio.create_task(locks.hold(("a", "eth0")).__aenter__())
        await asyncio.sleep(0)
        assert locks.in_flight == {("a", "eth0")}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert locks.in_flight == frozenset()


async def test_work_that_must_finish_does_so_however_often_its_caller_is_cancelled():
    gate, done = asyncio.Event(), []

    async def work():
        await gate.wait()
        done.append(True)

    caller = asyncio.create_task(finish(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    gate.set()
    await asyncio.gather(caller, return_exceptions=True)
    assert done == [True]


@pytest.mark.parametrize(
    "call",
    [
        lambda ipam: Ipam.claim(ipam, sandbox(1), SMALL),
        lambda ipam: Ipam.release(ipam, "c1", "eth0"),
        lambda ipam: Ipam.unclaim(ipam, "c1", "eth0"),
    ],
    ids=["claim", "release", "unclaim"],
)
async def test_a_call_without_the_attachments_lock_is_a_bug_that_is_seen(call):
    ipam = Nodes(a_pool("small", "10.244.10.0-10.244.10.9")).agent()
    with pytest.raises(AssertionError, match="lock of attachment"):
        await call(ipam)
