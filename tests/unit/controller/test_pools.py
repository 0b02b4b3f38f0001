"""Reconciling a pool: its status, its finalizer and its events follow from the records, and from nothing else."""

from types import SimpleNamespace

import msgspec
import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.ips import FINALIZER_IN_USE, Ips, IpsStatus
from fast.api.meta import ObjectMeta
from fast.controller.census import Census
from fast.controller.pool_reconciler import PoolReconciler
from fast.errors import Conflict


class Client:
    """Takes merge patches of pools, as an API server does; its watch is the FakeCluster's."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.unseen = []

        self.patches = []
        self.refuses = False

    async def list(self, _resource, *, field_selector):
        pool = field_selector.removeprefix("spec.pool=")
        found = [item for item in self._cluster.endpoints.values() if item.spec.pool == pool]
        return SimpleNamespace(items=[*found, *self.unseen], undecodable={})

    async def patch(self, _resource, name, patch, *, subresource=""):
        if self.refuses:
            raise Conflict("changed since", status=409, reason="Conflict")
        self.patches.append((subresource, patch))
        pool = msgspec.convert(msgspec.to_builtins(self._cluster.pools[name]), Ips)
        if subresource == "status":
            pool.status = msgspec.convert(patch["status"], IpsStatus)
        else:
            pool.metadata.finalizers = patch["metadata"]["finalizers"]
        if pool.metadata.deletion_timestamp and not pool.metadata.finalizers:
            self._cluster.drop_pool(name)
        else:
            self._cluster.put_pool(pool)
        return pool


class Queue:
    """Notes what is to be looked at again, and when."""

    def __init__(self):
        self.later = []

    def add_after(self, key, seconds):
        self.later.append((key, seconds))


class Setting:
    """A reconciler with everything around it."""

    def __init__(self):
        self.cluster, self.queue, self.told, self.now = FakeCluster(), Queue(), [], 100.0
        self.client = Client(self.cluster)
        store = FakeStore(self.cluster)
        census = Census(store, lambda _: None)
        self.reconciler = PoolReconciler(
            self.client, store, census, self, self.queue, lambda _: "", clock=lambda: self.now
        )

    def event(self, _about, _kind, reason, _message):
        self.told.append(reason)

    def claim(self, *numbers):
        pod = PodRef(namespace="default", name="p", uid="u")
        spec = IpEndpointSpec(pool="a", pod=pod, node="n1", container_id="c")
        for number in numbers:
            self.cluster.create(IpEndpoint(metadata=ObjectMeta(name=f"10.244.1.{number}"), spec=spec))

    def free(self, *numbers):
        for number in numbers:
            self.cluster.delete(self.cluster.endpoints[f"10.244.1.{number}"])

    async def reconcile(self):
        """Reconcile until there is nothing more to write, a second and a half apart."""
        for _ in range(3):
            self.now += 1.5
            await self.reconciler.reconcile("a")

    @property
    def pool(self):
        return self.cluster.pools["a"]


@pytest.fixture
def setting():
    made = Setting()
    made.cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.19"))
    return made


async def test_a_pool_gets_its_counts_and_is_not_written_again_while_nothing_changes(setting):
    setting.claim(0, 1)
    await setting.reconcile()
    assert (setting.pool.status.total_ip_count, setting.pool.status.allocated_ip_count) == (20, 2)
    written = len(setting.client.patches)
    await setting.reconcile()
    assert len(setting.client.patches) == written


async def test_status_is_written_once_a_second_at_most_and_the_rest_is_put_off(setting):
    await setting.reconciler.reconcile("a")
    setting.claim(0)
    setting.now += 0.25
    await setting.reconciler.reconcile("a")
    assert [subresource for subresource, _ in setting.client.patches].count("status") == 1
    assert setting.queue.later[-1] == ("a", 0.75)


async def test_a_pool_is_held_from_the_first_look_on_and_let_go_with_its_last_address(setting):
    await setting.reconcile()
    assert setting.pool.metadata.finalizers == [FINALIZER_IN_USE]
    setting.claim(0)
    await setting.reconcile()
    assert setting.pool.metadata.finalizers == [FINALIZER_IN_USE]
    deleted = msgspec.convert(msgspec.to_builtins(setting.pool), Ips)
    deleted.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
    setting.cluster.put_pool(deleted)
    await setting.reconcile()
    assert setting.pool.status.conditions[0].reason == "BeingDeleted"
    setting.free(0)
    await setting.reconcile()
    assert "a" not in setting.cluster.pools


async def test_a_pool_that_is_low_says_so_once_until_a_fifth_was_free_again(setting):
    setting.claim(*range(19))
    await setting.reconcile()
    setting.free(18)
    await setting.reconcile()
    setting.claim(18)
    await setting.reconcile()
    assert setting.told == ["PoolLow"]
    setting.free(*range(15, 19))
    await setting.reconcile()
    setting.claim(*range(15, 19))
    await setting.reconcile()
    assert setting.told == ["PoolLow", "PoolLow"]


async def test_the_last_address_taken_is_an_event_each_time(setting):
    for _ in range(2):
        setting.claim(*range(20))
        await setting.reconcile()
        setting.free(*range(20))
        await setting.reconcile()
    assert setting.told == ["PoolExhausted", "PoolExhausted"]


async def test_a_pool_that_changed_meanwhile_is_looked_at_again(setting):
    setting.client.refuses = True
    await setting.reconciler.reconcile("a")
    assert setting.queue.later == [("a", 0.2)]


async def test_a_pool_that_is_gone_is_no_error(setting):
    setting.cluster.drop_pool("a")
    await setting.reconciler.reconcile("a")
    assert not setting.client.patches


async def test_a_deleted_pool_is_not_let_go_while_a_record_lives_that_the_watch_does_not_show_yet(setting):
    await setting.reconcile()
    deleted = msgspec.convert(msgspec.to_builtins(setting.pool), Ips)
    deleted.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
    setting.cluster.put_pool(deleted)
    setting.client.unseen = ["a record just made"]
    await setting.reconcile()
    assert "a" in setting.cluster.pools
    assert setting.queue.later[-1][0] == "a"
    setting.client.unseen = []
    await setting.reconcile()
    assert "a" not in setting.cluster.pools
