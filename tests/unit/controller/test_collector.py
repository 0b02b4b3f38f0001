"""The controller's sweeps: what they free, what they say, what wakes them, and the breaker."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.core import Node, StatefulSet
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.controller import cluster_gc as module
from fast.controller.cluster_gc import ClusterCollector
from fast.errors import Unavailable
from fast.ipam.ipam_metrics import IpamMetrics
from fast.kube import Change, WorkQueue


class Reader:
    """A cluster without pods; its nodes, pools and StatefulSets are as set."""

    def __init__(self):
        self.there: dict[str, Node] = {}
        self.live_pools: dict[str, ObjectMeta] = {}
        self.sets: dict[str, StatefulSet] = {}
        self.away = False

    async def nodes(self):
        if self.away:
            raise Unavailable("the API server is away")
        return self.there

    async def node(self, name):
        return self.there.get(name)

    async def pod(self, _namespace, _name):
        return None

    async def stateful_sets(self):
        return self.sets

    async def pools(self):
        return self.live_pools


class Recorder:
    """Keeps what was told."""

    def __init__(self):
        self.told = []

    def event(self, about, kind, reason, message):
        self.told.append((about.metadata.name, kind, reason, message))


class Setting:
    """A collector with everything around it."""

    def __init__(self):
        self.cluster, self.reader, self.events = FakeCluster(), Reader(), Recorder()
        self.cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.99"))
        self.store = FakeStore(self.cluster)
        self.registry = CollectorRegistry()
        self.queue: WorkQueue[str] = WorkQueue()
        metrics = IpamMetrics(self.registry)
        self.collector = ClusterCollector(self.store, self.reader, self.events, self.queue, metrics, 3600.0)
        self.store.subscribe(self.collector.record_changed, self.collector.pool_changed)

    def put(self, number, *, node="n1", container="c", pool="a"):
        pod = PodRef(namespace="default", name=f"p{number}", uid=f"u{number}")
        spec = IpEndpointSpec(
            pool=pool, pod=pod, node=node, container_id=container, sticky_key="" if container else "s/0"
        )
        return self.cluster.create(IpEndpoint(metadata=ObjectMeta(name=f"10.244.1.{number}"), spec=spec))

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def setting():
    return Setting()


async def test_records_of_a_node_that_is_gone_are_freed_with_an_event_and_a_count(setting):
    setting.put(1, node="gone")
    setting.put(2, node="n1")
    setting.reader.there = {"n1": Node(metadata=ObjectMeta(name="n1"))}
    await setting.collector.sweep()
    assert list(setting.cluster.endpoints) == ["10.244.1.2"]
    ((pool, kind, reason, message),) = setting.events.told
    assert (pool, kind, reason) == ("a", "Normal", "AddressReleased")
    assert "10.244.1.1 of pod default/p1" in message
    assert setting.value("fast_ipam_released_total", pool="a", rule="node-gone") == 1


async def test_a_sweep_that_would_free_very_many_frees_none_and_says_so_once(setting):
    for number in range(30):
        setting.put(number, node="gone")
    for _ in range(2):
        plan = await setting.collector.sweep()
    assert "nothing was freed" in plan.stopped
    assert len(setting.cluster.endpoints) == 30
    assert [reason for _, _, reason, _ in setting.events.told] == ["GCStopped"]
    assert setting.collector.stopped("a") == plan.stopped
    assert setting.value("fast_ipam_gc_stopped") == 1


async def test_a_former_leader_says_nothing_of_the_breaker(setting):
    for number in range(30):
        setting.put(number, node="gone")
    running = asyncio.create_task(setting.collector.run())
    while not setting.collector.stopped("a"):  # noqa: ASYNC110 -- plain state of the collector
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not setting.collector.stopped("a")
    assert setting.value("fast_ipam_gc_stopped") == 0


async def test_the_breaker_closes_by_itself_once_the_nodes_are_back(setting):
    for number in range(30):
        setting.put(number)
    await setting.collector.sweep()
    assert setting.collector.stopped("a")
    setting.reader.there = {"n1": Node(metadata=ObjectMeta(name="n1"))}
    await setting.collector.sweep()
    assert not setting.collector.stopped("a")
    assert setting.value("fast_ipam_gc_stopped") == 0
    assert len(setting.cluster.endpoints) == 30


async def test_an_address_retained_in_a_pool_that_the_watch_does_not_show_yet_stays(setting):
    setting.put(1, node="", container="", pool="new")
    setting.reader.sets = {"s": StatefulSet(metadata=ObjectMeta(name="web", namespace="default", uid="s"))}
    setting.reader.live_pools = {"new": ObjectMeta(name="new")}
    await setting.collector.sweep()
    assert list(setting.cluster.endpoints) == ["10.244.1.1"]


@pytest.mark.parametrize("live", [{}, {"a": ObjectMeta(name="a", deletion_timestamp="2026-01-01T00:00:00Z")}])
async def test_an_address_retained_in_a_pool_that_is_gone_by_now_is_freed_though_the_watch_shows_it(
    setting, live
):
    setting.put(1, node="", container="")
    setting.reader.sets = {"s": StatefulSet(metadata=ObjectMeta(name="web", namespace="default", uid="s"))}
    setting.reader.live_pools = live
    await setting.collector.sweep()
    assert not setting.cluster.endpoints
    assert setting.value("fast_ipam_released_total", pool="a", rule="pool-deleted") == 1


async def swept(setting, cause, monkeypatch):
    """Whether the cause makes the collector sweep long before its interval is over."""
    monkeypatch.setattr(module, "_SOON_SECONDS", 0.0)
    first, again = asyncio.Event(), asyncio.Event()

    async def sweep():
        (again if first.is_set() else first).set()

    monkeypatch.setattr(setting.collector, "sweep", sweep)
    running = asyncio.create_task(setting.collector.run())
    try:
        await asyncio.wait_for(first.wait(), 5)
        await asyncio.sleep(0)
        cause()
        await asyncio.wait_for(again.wait(), 0.5)
    except TimeoutError:
        return False
    finally:
        running.cancel()
    return True


async def test_a_retained_address_is_looked_at_soon(setting, monkeypatch):
    assert await swept(setting, lambda: setting.put(1, container=""), monkeypatch)


async def test_a_bound_address_wakes_nobody(setting, monkeypatch):
    assert not await swept(setting, lambda: setting.put(1), monkeypatch)


async def test_a_pool_that_goes_is_looked_at_soon(setting, monkeypatch):
    assert await swept(setting, lambda: setting.cluster.drop_pool("a"), monkeypatch)


async def test_a_node_that_goes_is_looked_at_soon(setting, monkeypatch):
    gone = Change(Node(metadata=ObjectMeta(name="n1")), None)
    assert await swept(setting, lambda: setting.collector.node_changed(gone), monkeypatch)


async def test_a_sweep_that_fails_is_tried_again(setting, monkeypatch):
    setting.put(1, node="gone")
    setting.reader.away = True
    monkeypatch.setattr(module, "_SOON_SECONDS", 0.0)
    freed = asyncio.Event()
    setting.store.subscribe(lambda change: freed.set() if change.new is None else None, lambda _: None)
    running = asyncio.create_task(setting.collector.run())
    await asyncio.sleep(0.01)
    assert not freed.is_set()
    setting.reader.away = False
    setting.cluster.drop_pool("a")  # wakes it
    await asyncio.wait_for(freed.wait(), 5)
    running.cancel()
