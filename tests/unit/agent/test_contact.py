"""Whether the API server counts as reachable."""

import asyncio

import pytest

from fast.agent.contact import CONDITION, Contact
from fast.agent.readiness import Readiness


class Informer:
    def __init__(self):
        self.failures, self.last_contact = 0, 0.0
        self.synced = asyncio.Event()

    async def wait_synced(self):
        await self.synced.wait()


class Watched:
    """A contact with two informers and a clock of the test's own."""

    def __init__(self):
        self.now = 0.0
        self.informers = [Informer(), Informer()]
        self.readiness = Readiness(CONDITION)
        self.synced = 0
        self.contact = Contact(self.informers, self.readiness, synced=self.count, clock=lambda: self.now)

    def count(self):
        self.synced += 1

    def judge(self, at):
        self.now = at
        self.contact._judge()
        return self.readiness.blocker()


async def turns():
    """Let everything run that can, without waiting for a clock."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def watched():
    return Watched()


async def test_nothing_is_decided_before_every_informer_has_its_first_list(watched):
    running = asyncio.create_task(watched.contact.run())
    watched.informers[0].synced.set()
    await turns()
    assert (watched.synced, watched.readiness.blocker() is None) == (0, False)
    watched.informers[1].synced.set()
    await turns()
    assert (watched.synced, watched.readiness.blocker()) == (1, None)
    running.cancel()


def test_a_watch_that_breaks_for_a_moment_is_nothing(watched):
    watched.judge(0)
    watched.informers[0].failures = 1
    assert watched.judge(1) is None
    assert watched.judge(3) is None
    watched.informers[1].last_contact = 3.5
    assert watched.judge(60) is None


def test_a_server_that_stays_away_is_told_and_adds_are_still_tried(watched):
    watched.judge(0)
    watched.informers[0].failures = 1
    watched.judge(1)
    blocker = watched.judge(10)
    assert blocker.passing
    assert "cannot be reached" in blocker.reason
    watched.informers[0].last_contact = 10.5
    assert watched.judge(11) is None
