"""Calls for one attachment take turns."""

import asyncio

from fast.ipam import AttachmentLocks


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
