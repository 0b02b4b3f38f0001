"""Heartbeats: a Lease is renewed through faults, and a reader knows by its own clock how long one is silent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from fakes.nasty_server import nasty_server, status
from fast.api.core import Lease
from fast.api.meta import ObjectMeta
from fast.api.resources import LEASES
from fast.errors import NotFound, Unavailable
from fast.kube import ClusterConfig, Heartbeat, Informer, KubeClient, Silence
from fast.kube.informer import Change
from unit.apiserver.process import running

NAMESPACE, NAME = "default", "fast-node-n1"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("apiserver")) as made:
        yield made


@asynccontextmanager
async def beating(client, **options):
    heartbeat = Heartbeat(client, NAMESPACE, NAME, "n1/boot", **{"interval_seconds": 0.05, **options})
    task = asyncio.create_task(heartbeat.run())
    try:
        yield heartbeat
        assert not task.done(), "a heartbeat never ends by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_lease_is_created_renewed_and_created_again_when_somebody_deletes_it(server):
    async with KubeClient(ClusterConfig.load(server.kubeconfig)) as client, beating(client):

        async def renewed(than: str = "") -> str:
            async with asyncio.timeout(20):
                while True:
                    try:
                        lease = await client.get(LEASES, NAME, NAMESPACE)
                    except NotFound:
                        lease = Lease(metadata=ObjectMeta())
                    if lease.spec.renew_time > than:
                        assert lease.spec.holder_identity == "n1/boot"
                        assert lease.spec.lease_duration_seconds >= 1
                        return lease.spec.renew_time
                    await asyncio.sleep(0.01)

        later = await renewed(await renewed())
        await client.delete(LEASES, NAME, NAMESPACE)
        await renewed(later)


async def test_a_beat_that_fails_is_retried_sooner_than_the_next_would_come():
    times = []

    def answer(seen):
        times.append(asyncio.get_running_loop().time())
        return 500, status(500, "InternalError")

    async with nasty_server() as nasty, KubeClient(ClusterConfig(nasty.url)) as client:
        nasty.answer = answer
        async with beating(client, interval_seconds=1.0):
            async with asyncio.timeout(20):
                while len(times) < 4:  # noqa: ASYNC110 -- the server's own list
                    await asyncio.sleep(0.01)
            with pytest.raises(Unavailable):
                await Heartbeat(client, NAMESPACE, NAME, "n1", interval_seconds=1.0).beat()
    assert times[3] - times[0] < 1.0


class FakeInformer:
    """What Silence uses of an informer; held to the real one by the test below."""

    def __init__(self):
        self.synced = False
        self.handlers = []

    def add_handler(self, handler):
        self.handlers.append(handler)

    def tell(self, old, new):
        for handler in self.handlers:
            handler(Change(old, new))


def lease(version="1"):
    return Lease(metadata=ObjectMeta(name=NAME, namespace=NAMESPACE, resource_version=version))


def test_silence_is_counted_from_the_last_change_that_the_reader_saw():
    now = [1000.0]
    informer = FakeInformer()
    silence = Silence(informer, clock=lambda: now[0])
    now[0] = 2000.0
    assert silence.seconds(NAME) == 0.0, "nothing is known before the first list"
    informer.tell(None, lease())
    informer.synced = True
    now[0] += 59
    assert silence.seconds(NAME) == 59
    informer.tell(lease(), lease("2"))
    assert silence.seconds(NAME) == 0
    now[0] += 61
    assert silence.seconds(NAME) == 61


def test_a_deleted_lease_and_one_that_never_was_grow_silent_and_are_no_news():
    now = [0.0]
    informer = FakeInformer()
    silence = Silence(informer, clock=lambda: now[0])
    assert silence.seconds("fast-node-never") == 0
    informer.synced = True
    informer.tell(None, lease())
    now[0] = 30.0
    informer.tell(lease(), None)
    assert silence.seconds(NAME) == 30
    assert silence.seconds("fast-node-never") == 30


async def test_a_real_informer_tells_a_reader_of_renewals(server):
    async with KubeClient(ClusterConfig.load(server.kubeconfig)) as client:
        informer = Informer(client, LEASES, NAMESPACE)
        now = [0.0]
        silence = Silence(informer, clock=lambda: now[0])
        following = asyncio.create_task(informer.run())
        await informer.wait_synced()
        now[0] = 100.0
        assert silence.seconds(NAME) > 0
        async with beating(client, interval_seconds=0.02), asyncio.timeout(20):
            while silence.seconds(NAME):  # noqa: ASYNC110 -- plain state
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
