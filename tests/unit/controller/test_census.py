"""Counting records by pool as they change, and knowing which pools overlap."""

import time

import msgspec
import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.controller.census import Census
from fast.ipam import PoolCounts
from fast.net import parse_address


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def changed():
    return []


@pytest.fixture
def census(cluster, changed):
    return Census(FakeStore(cluster), changed.append)


def a_record(address, *, container="c"):
    pod = PodRef(namespace="default", name="p", uid="u")
    spec = IpEndpointSpec(pool="a", container_id=container, pod=pod, sticky_key="" if container else "s/0")
    return IpEndpoint(metadata=ObjectMeta(name=address), spec=spec)


def aged(pool, created):
    pool.metadata.creation_timestamp = created
    return pool


def test_records_are_counted_by_pool_and_state_as_they_come_change_and_go(cluster, census, changed):
    cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.9"))
    first = cluster.create(a_record("10.244.1.0"))
    cluster.create(a_record("10.244.1.1", container=""))
    assert census.facts("a").records == {"10.244.1.0", "10.244.1.1"}
    assert census.counts("a") == PoolCounts(size=10, bound=1, retained=1, free=8)
    spec = msgspec.structs.replace(first.spec, container_id="", sticky_key="s/1")
    retained = cluster.replace(IpEndpoint(metadata=first.metadata, spec=spec))
    assert census.counts("a") == PoolCounts(size=10, bound=0, retained=2, free=8)
    changed.clear()
    cluster.delete(retained)
    assert census.facts("a").records == {"10.244.1.1"}
    assert changed == ["a"]


def test_a_shrunk_pool_knows_which_records_its_ranges_no_longer_hold(cluster, census):
    cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.9"))
    for number in range(3):
        cluster.create(a_record(f"10.244.1.{number}"))
    assert not census.facts("a").outside
    cluster.put_pool(a_pool("a", "10.244.1.2-10.244.1.9"))
    assert census.facts("a").outside == {"10.244.1.0", "10.244.1.1"}


def test_a_pool_that_cannot_be_read_has_a_problem_and_no_addresses(cluster, census):
    cluster.put_pool(a_pool("a", "10.244.1.9-10.244.1.0"))
    assert census.counts("a").size == 0
    assert "10.244.1.9-10.244.1.0" in census.problem("a")


def test_of_two_pools_that_overlap_the_younger_is_at_fault(cluster, census):
    old = aged(a_pool("z", "10.244.1.0-10.244.1.9"), "2026-01-01T00:00:00Z")
    young = aged(a_pool("a", "10.244.1.5-10.244.2.9"), "2026-01-02T00:00:00Z")
    cluster.put_pool(old)
    cluster.put_pool(young)
    found = census.overlap(young)
    assert found is not None
    assert (found[0], str(found[1])) == ("z", "10.244.1.5-10.244.1.9")
    assert census.overlap(old) is None


def test_pools_of_one_subnet_whose_ranges_are_apart_do_not_overlap(cluster, census):
    for name, ips in (("a", "10.244.1.0-10.244.1.9"), ("b", "10.244.1.10-10.244.1.19")):
        cluster.put_pool(a_pool(name, ips))
    assert census.overlap(cluster.pools["b"]) is None


def test_only_pools_that_overlap_are_looked_at_again_when_one_changes(cluster, census, changed):
    for name, ips in (("a", "10.244.1.0"), ("b", "10.244.2.0"), ("c", "10.244.3.0")):
        cluster.put_pool(a_pool(name, ips))
    changed.clear()
    cluster.put_pool(a_pool("a", "10.244.2.0"))
    assert set(changed) == {"a", "b"}
    changed.clear()
    cluster.put_pool(a_pool("a", "10.244.1.0"))
    assert set(changed) == {"a", "b"}
    assert census.overlap(cluster.pools["b"]) is None


def test_an_address_that_another_pool_recorded_is_not_free_in_this_one(cluster, census):
    cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.9"))
    cluster.put_pool(a_pool("b", "10.244.1.0-10.244.1.3"))
    cluster.create(a_record("10.244.1.0"))
    assert (census.counts("b").free, census.counts("b").bound) == (3, 0)


def test_an_edit_among_2000_pools_costs_a_small_part_of_a_millisecond_a_pool(cluster, census, changed):
    for number in range(2000):
        cluster.put_pool(a_pool(f"p{number}", f"10.{number // 250}.{number % 250}.0/24", subnet="10.0.0.0/8"))
    changed.clear()
    began = time.process_time()
    cluster.put_pool(a_pool("p7", "10.0.7.0/25", subnet="10.0.0.0/8"))
    for name in list(cluster.pools):
        census.overlap(cluster.pools[name])
    assert time.process_time() - began < 0.2
    assert changed == ["p7"]


def test_a_deleted_pool_is_forgotten_once_its_last_record_is(cluster, census):
    cluster.put_pool(a_pool("a", "10.244.1.0"))
    record = cluster.create(a_record("10.244.1.0"))
    cluster.drop_pool("a")
    assert census.facts("a").records == {"10.244.1.0"}
    cluster.delete(record)
    assert not census.facts("a").records


def test_addresses_of_nodes_are_none_of_the_pool_and_the_pool_is_looked_at_when_they_change(
    cluster, census, changed
):
    cluster.put_pool(a_pool("a", "10.244.1.0-10.244.1.9"))
    cluster.put_pool(a_pool("b", "10.244.2.0-10.244.2.9"))
    changed.clear()
    census.reserve("node n1", [parse_address("10.244.1.3")])
    assert changed == ["a"]
    assert census.counts("a").size == 9
    assert census.reserved("a") == {parse_address("10.244.1.3"): "node n1"}
    census.reserve("node n1", [])
    assert (changed, census.counts("a").size, census.reserved("a")) == (["a", "a"], 10, {})
