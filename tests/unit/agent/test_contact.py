"""Whether the API server counts as reachable."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from fakes.nasty_server import nasty_server, status
from fast.agent.readiness import Readiness
from fast.agent.sync.contact import CONDITION, Contact
from fast.api.resources import IPENDPOINTS, NODES
from fast.kube import ClusterConfig, KubeClient
from fast.kube import Informer as RealInformer
from fast.kube.informer import Timing


class Informer:
    def __init__(self, plural):
        self.resource, self.failing_since = SimpleNamespace(plural=plural), None
        self.synced = asyncio.Event()

    async def wait_synced(self):
        await self.synced.wait()


class Watched:
    """A contact with two informers and a clock of the test's own."""

    def __init__(self):
        self.now = 0.0
        self.informers = [Informer("pods"), Informer("nodes")]
        self.readiness = Readiness(CONDITION)
        self.synced = 0
        self.contact = Contact(self.informers, self.readiness, synced=self.count, clock=lambda: self.now)

    def count(self):
        self.synced += 1

    def judge(self, at):
        self.now = at
        self.contact._judge()
        return self.readiness.unmet()


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
    assert (watched.synced, watched.readiness.unmet() is None) == (0, False)
    watched.informers[1].synced.set()
    await turns()
    assert (watched.synced, watched.readiness.unmet()) == (1, None)
    running.cancel()


def test_a_watch_that_breaks_for_a_moment_is_nothing(watched):
    watched.informers[0].failing_since = 1
    assert watched.judge(1) is None
    assert watched.judge(15) is None
    watched.informers[0].failing_since = None
    assert watched.judge(60) is None


def test_a_server_that_stays_away_is_told_and_adds_are_still_tried(watched):
    for informer in watched.informers:
        informer.failing_since = 1
    assert watched.judge(3) is None
    unmet = watched.judge(5)
    assert unmet.allows_add
    assert "pods, nodes cannot be read" in unmet.reason
    for informer in watched.informers:
        informer.failing_since = None
    assert watched.judge(11) is None


async def test_one_watch_that_the_server_refuses_is_told_though_the_others_hear_from_it():
    def answer(seen):
        if "nodes" in seen.path:
            return 403, status(403, "Forbidden"), {}
        return None

    readiness = Readiness(CONDITION)
    async with nasty_server() as nasty, KubeClient(ClusterConfig(nasty.url)) as client:
        timing = Timing(backoff=(0.01, 0.05))
        informers = [RealInformer(client, resource, timing=timing) for resource in (IPENDPOINTS, NODES)]
        contact = Contact(informers, readiness, synced=lambda: None, clock=lambda: time.monotonic() + 16)
        nasty.answer = answer
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            async with asyncio.timeout(20):
                await informers[0].wait_synced()
                while informers[1].failures < 2:  # noqa: ASYNC110 -- plain state of the informer
                    await asyncio.sleep(0.005)
            nasty.put("b")  # the others go on hearing
            contact._judge()
            assert "nodes cannot be read" in readiness.unmet().reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
