"""The work queue: each key once, never two workers on one, growing waits for keys that fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise

import pytest

from fast.errors import Forbidden, Unavailable
from fast.kube import ShutDown, WorkQueue


async def test_keys_come_in_the_order_of_their_first_addition_each_once():
    queue: WorkQueue[str] = WorkQueue()
    for key in "abcab":
        queue.add(key)
    assert len(queue) == 3
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_added_while_it_is_worked_on_comes_again_when_that_is_done():
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_waiting_worker_gets_the_key_that_is_added():
    queue: WorkQueue[str] = WorkQueue()
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await worker == "a"


async def test_a_worker_cancelled_after_it_was_woken_leaves_the_key_to_another():
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_delayed_key_comes_after_its_time_and_the_earliest_time_counts():
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    began = loop.time()
    queue.add_after("a", 30)
    queue.add_after("a", 0.05)
    queue.add_after("a", 30)
    assert await queue.get() == "a"
    assert 0.04 <= loop.time() - began < 10


async def test_a_key_delayed_by_nothing_comes_at_once():
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_waits_double_to_a_longest_and_begin_anew_when_forgotten():
    queue: WorkQueue[str] = WorkQueue(backoff_seconds=(1, 5))
    assert [queue._next_wait("a") for _ in range(5)] == [1, 2, 4, 5, 5]
    queue.forget("a")
    assert queue._next_wait("a") == 1
    assert queue._next_wait("b") == 1


async def test_shut_down_hands_out_what_is_queued_and_then_ends_the_workers():
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    queue.add_after("later", 0.01)
    queue.shut_down()
    queue.add("too late")
    assert await waiting == "a"
    assert await queue.get() == "b"
    with pytest.raises(ShutDown):
        await queue.get()


async def test_run_works_on_keys_until_shut_down():
    queue: WorkQueue[int] = WorkQueue()
    seen = []

    async def reconcile(key: int) -> None:
        seen.append(key)
        if len(seen) == 3:
            queue.shut_down()

    for key in range(3):
        queue.add(key)
    async with asyncio.timeout(5):
        await queue.run(reconcile, workers=2)
    assert sorted(seen) == [0, 1, 2]


async def test_run_never_has_two_workers_on_one_key():
    queue: WorkQueue[int] = WorkQueue()
    busy: Counter[int] = Counter()
    most, rounds = 0, 0

    async def reconcile(key: int) -> None:
        nonlocal most, rounds
        busy[key] += 1
        most = max(most, busy[key])
        await asyncio.sleep(0.001)
        busy[key] -= 1
        rounds += 1
        queue.add(rounds % 3)
        if rounds >= 100:
            queue.shut_down()

    for key in range(3):
        queue.add(key)
    async with asyncio.timeout(20):
        await queue.run(reconcile, workers=8)
    assert most == 1


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_run_tries_a_key_again_that_failed(error):
    queue: WorkQueue[str] = WorkQueue(backoff_seconds=(0.001, 0.01))
    tries = 0

    async def reconcile(key: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise error
        queue.shut_down()

    queue.add("a")
    async with asyncio.timeout(5):
        await queue.run(reconcile)
    assert tries == 4


async def test_run_tries_what_somebody_must_mend_again_after_the_longest_wait():
    queue: WorkQueue[str] = WorkQueue(backoff_seconds=(0.001, 0.2))
    times = []

    async def reconcile(_: str) -> None:
        times.append(time.monotonic())
        if len(times) < 3:
            raise Forbidden("not yet")
        queue.shut_down()

    queue.add("a")
    async with asyncio.timeout(5):
        await queue.run(reconcile)
    assert [later - earlier >= 0.19 for earlier, later in pairwise(times)] == [True, True]
