"""The controller's sweeps: what they free, what they say, what wakes them, and the breaker."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.core import Node, StatefulSet, StatefulSetSpec
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.controller import cluster_gc as module
from fast.controller.cluster_gc import ClusterCollector
from fast.errors import Forbidden, Unavailable
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.rules.breaker import SWEEPS_TO_AGREE
from fast.kube import Change, WorkQueue


class Reader:
    """A cluster without pods; its nodes, pools and StatefulSets are as set."""

    def __init__(self):
        self.there: dict[str, Node] = {}
        self.live_pools: dict[str, ObjectMeta] = {}
        self.sets: dict[str, StatefulSet] = {}
        self.away = False
        self.silent: dict[str, float] = {}
        self.unreadable: set[str] = set()

    async def nodes(self):
        if self.away:
            raise Unavailable("the API server is away")
        return self.there

    def silent_seconds(self, node):
        return self.silent.get(node, 1000.0)

    async def node(self, name):
        return self.there.get(name)

    async def pod(self, _namespace, name):
        if name in self.unreadable:
            raise Forbidden("no")

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

    def put(self, number, *, node="n1", container="c", pool="a", key="s/0"):
        pod = PodRef(namespace="default", name=f"p{number}", uid=f"u{number}")
        spec = IpEndpointSpec(
            pool=pool, pod=pod, node=node, container_id=container, sticky_key="" if container else key
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


def nodes(*numbers):
    return {f"n{number}": Node(metadata=ObjectMeta(name=f"n{number}")) for number in numbers}


async def test_one_dead_node_is_one_cause_however_many_pods_it_ran(setting):
    for number in range(90):
        setting.put(number, node=f"n{number % 3}")
    setting.reader.there = nodes(1, 2)
    plan = await setting.collector.sweep()
    assert not plan.held
    assert len(setting.cluster.endpoints) == 60


async def test_one_deleted_set_is_one_cause_however_many_pods_it_had(setting):
    setting.reader.there = nodes(1)
    setting.reader.live_pools = {"a": ObjectMeta(name="a")}
    for number in range(30):
        setting.put(number, node="", container="", key=f"StatefulSet/shop/db/{number}")
    assert not (await setting.collector.sweep()).held
    assert not setting.cluster.endpoints


async def test_many_nodes_gone_at_once_are_held_until_several_sweeps_agree_and_then_freed_slowly(setting):
    setting.reader.there = nodes(0)
    for number in range(1, 91):
        setting.put(number, node=f"n{number % 10}")
    for sweep in range(1, SWEEPS_TO_AGREE):
        plan = await setting.collector.sweep()
        assert f"({sweep} so far)" in setting.collector.stopped("a")
        assert len(plan.held) == 81
    assert "9 of 10 nodes are gone at once (n1, n2, n3, n4, n5 and 4 more)" in setting.collector.stopped("a")
    assert len(setting.cluster.endpoints) == 90
    assert [reason for _, _, reason, _ in setting.events.told] == ["GCStopped"]
    assert setting.value("fast_ipam_gc_stopped") == 1
    left = []
    while len(setting.cluster.endpoints) > 9:
        await setting.collector.sweep()
        left.append(len(setting.cluster.endpoints))
    assert left[0] == 90 - 18  # two nodes: no more than 20 addresses
    assert len(left) < SWEEPS_TO_AGREE * 3
    await setting.collector.sweep()
    assert not setting.collector.stopped("a")
    assert setting.value("fast_ipam_gc_stopped") == 0


async def test_a_suspicious_group_holds_nothing_else_back(setting):
    setting.reader.live_pools = {"a": ObjectMeta(name="a")}
    for number in range(8):
        setting.put(number, node=f"n{number}")
    setting.put(50, node="", container="", key="StatefulSet/shop/db/0")
    plan = await setting.collector.sweep()
    assert len(plan.held) == 8
    assert "10.244.1.50" not in setting.cluster.endpoints


async def test_an_answer_without_any_node_is_never_believed_at_once(setting):
    setting.put(1, node="n1")
    plan = await setting.collector.sweep()
    assert (len(plan.held), len(setting.cluster.endpoints)) == (1, 1)


async def test_what_is_back_before_the_sweeps_agree_begins_again(setting):
    for number in range(1, 9):
        setting.put(number, node=f"n{number}")
    for _ in range(3):
        for _ in range(SWEEPS_TO_AGREE - 1):
            setting.reader.there = nodes(0)
            assert len((await setting.collector.sweep()).held) == 8
        setting.reader.there = nodes(*range(9))
        assert not (await setting.collector.sweep()).held
    assert len(setting.cluster.endpoints) == 8


async def test_a_former_leader_says_nothing_of_the_breaker(setting):
    setting.put(1)
    running = asyncio.create_task(setting.collector.run())
    while not setting.collector.stopped("a"):  # noqa: ASYNC110 -- plain state of the collector
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not setting.collector.stopped("a")
    assert setting.value("fast_ipam_gc_stopped") == 0


async def test_a_node_whose_agent_still_beats_keeps_its_addresses_though_its_object_is_gone(setting):
    setting.put(1, node="n1")
    setting.reader.there = nodes(0)
    setting.reader.silent = {"n1": 20.0}
    plan = await setting.collector.sweep()
    assert [finding.decision.rule for finding in plan.kept] == ["node-beats"]
    assert plan.look_again_seconds == 40.0
    setting.reader.silent = {"n1": 60.0}
    await setting.collector.sweep()
    assert not setting.cluster.endpoints


async def test_a_record_that_makes_no_sense_or_cannot_be_judged_stops_no_other(setting):
    setting.reader.there = nodes(0)
    for name, spec in {
        "10.244.1.1": IpEndpointSpec(pool="a", node="gone", container_id="c", pod=PodRef(name="x")),
        "no-address": IpEndpointSpec(pool="a", node="gone", container_id="c"),
        "10.244.1.2": IpEndpointSpec(pool="a", sticky_key="odd"),
        "10.244.1.3": IpEndpointSpec(pool="", node="gone", container_id="c", sticky_key="///"),
    }.items():
        setting.cluster.create(IpEndpoint(metadata=ObjectMeta(name=name), spec=spec))
    setting.put(4, node="gone")
    setting.put(5, node="gone")
    setting.reader.unreadable = {"p4"}
    await setting.collector.sweep()
    await setting.collector.sweep()
    assert list(setting.cluster.endpoints) == ["10.244.1.4"]


async def test_one_refused_delete_stops_no_other_and_is_told(setting):
    setting.reader.there = nodes(0)
    for number in (1, 2, 3):
        setting.put(number, node="gone")
    setting.store._admission = lambda _operation, _new, old: (
        "no" if old["metadata"]["name"].endswith(".1") else ""
    )
    await setting.collector.sweep()
    assert list(setting.cluster.endpoints) == ["10.244.1.1"]
    assert ("a", "Warning", "ReleaseRefused", "10.244.1.1: no") in setting.events.told


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
    rule = "pool-deleted" if live else "pool-gone"
    assert setting.value("fast_ipam_released_total", pool="a", rule=rule) == 1


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
    setting.reader.there = nodes(0)
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


async def test_what_a_pool_keeps_beyond_its_limits_is_freed_in_a_sweep(setting):
    setting.reader.there = nodes(0)
    setting.reader.live_pools = {"a": ObjectMeta(name="a")}
    spec = StatefulSetSpec(replicas=100)
    meta = ObjectMeta(name="db", namespace="shop", uid="s")
    setting.reader.sets = {"s": StatefulSet(metadata=meta, spec=spec)}
    for number in range(5):
        setting.put(number, node="", container="", key=f"StatefulSet/shop/db/{number}")
    await setting.collector.sweep()
    assert len(setting.cluster.endpoints) == 5
    setting.cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.99", retention={"maxPerNamespace": 2}))
    await setting.collector.sweep()
    assert sorted(setting.cluster.endpoints) == ["10.244.1.3", "10.244.1.4"]
    assert setting.value("fast_ipam_released_total", pool="a", rule="retention-limit") == 3
