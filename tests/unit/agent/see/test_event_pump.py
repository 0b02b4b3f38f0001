"""Moving events from the ring buffer into the event loop."""

import asyncio
import time
from contextlib import suppress

import pytest

from fast.agent.see import event_pump
from fast.agent.see.event_pump import EventPump
from fast.errors import BPFError


class Ring:
    """A ring that gives batches, then fails or stays empty."""

    def __init__(self, *batches: object) -> None:
        self.batches = list(batches)
        self.closed = False

    def read(self, timeout_seconds: float = 0) -> list[object]:
        if not self.batches:
            time.sleep(timeout_seconds)
            return []
        batch = self.batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch

    def close(self) -> None:
        self.closed = True


async def pumped(opened, *, seconds: float = 1.0, **settings: int) -> tuple[list[object], int]:
    """Run a pump for a while over the rings that are opened in turn; gives what came, and how much was skipped."""
    came, skipped = [], []
    pump = EventPump(lambda: opened.pop(0), came.extend, skipped.append, **settings)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await pump.run()
    return came, sum(skipped)


async def test_events_arrive_in_the_order_in_which_they_were_read():
    came, skipped = await pumped([Ring([1, 2], [3])])
    assert (came, skipped) == ([1, 2, 3], 0)


async def test_a_storm_is_cut_to_the_limit_and_what_is_skipped_is_counted():
    came, skipped = await pumped([Ring(list(range(4096)))], most_per_second=100)
    assert (len(came), skipped) == (10, 4086)


async def test_a_ring_that_fails_is_closed_and_opened_again(monkeypatch):
    broken = Ring([1], BPFError("gone", 9))
    monkeypatch.setattr(event_pump, "_RETRY_SECONDS", 0.05)
    came, _ = await pumped([broken, Ring([2])])
    assert came == [1, 2]
    assert broken.closed


async def test_a_bug_in_the_reader_ends_the_pump_where_it_is_seen():
    with pytest.raises(ZeroDivisionError):
        await pumped([Ring(ZeroDivisionError())])
