"""Counting records by pool as they change, and knowing which pools overlap."""

import msgspec
import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.controller.census import Census


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
    assert (census.facts("a").records, census.facts("a").retained) == (
        {"10.244.1.0", "10.244.1.1"},
        {"10.244.1.1"},
    )
    spec = msgspec.structs.replace(first.spec, container_id="", sticky_key="s/1")
    retained = cluster.replace(IpEndpoint(metadata=first.metadata, spec=spec))
    assert census.facts("a").retained == {"10.244.1.0", "10.244.1.1"}
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
    assert census.facts("a").addresses is None
    assert "10.244.1.9-10.244.1.0" in census.facts("a").problem


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


def test_a_change_of_one_pools_ranges_has_every_pool_looked_at_again(cluster, census, changed):
    for name, ips in (("a", "10.244.1.0"), ("b", "10.244.2.0")):
        cluster.put_pool(a_pool(name, ips))
    changed.clear()
    cluster.put_pool(a_pool("a", "10.244.2.0"))
    assert {"a", "b"} <= set(changed)


def test_a_deleted_pool_is_forgotten_once_its_last_record_is(cluster, census):
    cluster.put_pool(a_pool("a", "10.244.1.0"))
    record = cluster.create(a_record("10.244.1.0"))
    cluster.drop_pool("a")
    assert census.facts("a").records == {"10.244.1.0"}
    cluster.delete(record)
    assert not census.facts("a").records
