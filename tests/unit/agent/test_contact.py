"""Whether the API server counts as reachable."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from fakes.nasty_server import nasty_server, status
from fast.agent.readiness import Readiness
from fast.agent.sync import contact
from fast.agent.sync.contact import CONDITION, Contact
from fast.api.resources import IPENDPOINTS, NODES
from fast.errors import Forbidden
from fast.kube import ClusterConfig, KubeClient
from fast.kube import Informer as RealInformer
from fast.kube.informer import Timing


class Informer:
    def __init__(self, plural):
        self.resource, self.failing_since = SimpleNamespace(plural=plural), None
        self.last_contact = 0.0
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
        self.asked, self.answer = 0, self.say
        self.contact = Contact(
            self.informers,
            self.readiness,
            ask=self.ask,
            synced=self.count,
            clock=lambda: self.now,
        )

    async def say(self):
        return None

    async def ask(self):
        self.asked += 1
        return await self.answer()

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
        judged = Contact(
            informers,
            readiness,
            ask=informers[0].wait_synced,
            synced=lambda: None,
            clock=lambda: time.monotonic() + 16,
        )
        nasty.answer = answer
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            async with asyncio.timeout(20):
                await informers[0].wait_synced()
                while informers[1].failures < 2:  # noqa: ASYNC110 -- plain state of the informer
                    await asyncio.sleep(0.005)
            nasty.put("b")  # the others go on hearing
            judged._judge()
            assert "nodes cannot be read" in readiness.unmet().reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def never():
    await asyncio.Event().wait()


async def test_a_server_that_hangs_is_told_within_fifteen_seconds_though_no_watch_fails(watched, monkeypatch):
    assert contact.SILENCE_SECONDS + contact.ANSWER_SECONDS + 2 * contact._POLL_SECONDS < 15
    monkeypatch.setattr(contact, "ANSWER_SECONDS", 0.01)
    watched.answer = never
    await watched.contact.ask_if_silent()
    assert watched.asked == 0  # the watches were heard a moment ago
    assert watched.judge(5) is None
    await watched.contact.ask_if_silent()
    unmet = watched.judge(5)
    assert "it hangs" in unmet.reason
    assert unmet.allows_add


@pytest.mark.parametrize("sign", ["an answer", "a refusal", "a watch"])
async def test_any_sign_of_life_ends_the_suspicion(watched, monkeypatch, sign):
    monkeypatch.setattr(contact, "ANSWER_SECONDS", 0.01)
    watched.answer, watched.now = never, 10
    await watched.contact.ask_if_silent()
    assert watched.judge(10) is not None

    async def refuse():
        raise Forbidden("no")

    watched.answer = {"an answer": watched.say, "a refusal": refuse, "a watch": never}[sign]
    if sign == "a watch":
        watched.informers[0].last_contact = 10
    await watched.contact.ask_if_silent()
    assert watched.judge(10) is None


async def test_a_server_that_is_heard_is_not_asked_and_a_silent_one_at_most_every_five_seconds(watched):
    for watched.now in range(100):
        watched.informers[1].last_contact = watched.now - 4
        await watched.contact.ask_if_silent()
    assert watched.asked == 0
    for watched.now in range(100, 200):
        await watched.contact.ask_if_silent()
    assert watched.asked <= 20


async def test_a_server_that_is_stopped_like_a_process_is_told_and_a_running_one_is_not():
    hung = asyncio.Event()

    async def accept(reader, writer):
        if hung.is_set():
            await asyncio.Event().wait()
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"metadata":{"name":"n1"}}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    watched = Watched()
    async with KubeClient(ClusterConfig(f"http://127.0.0.1:{port}")) as client:
        watched.answer = lambda: client.get(NODES, "n1")
        watched.now = 10
        await watched.contact.ask_if_silent()
        assert watched.judge(10) is None
        hung.set()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(contact, "ANSWER_SECONDS", 0.3)
            watched.now = 20
            await watched.contact.ask_if_silent()
        assert "it hangs" in watched.judge(20).reason
    server.close()
