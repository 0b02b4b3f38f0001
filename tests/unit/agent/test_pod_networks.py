"""Which networks are pods': what pools own and what is in use, never the width of a subnet."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.agent.sync.pod_networks import PodNetworks
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.ips import Ips, IpsSpec, IpsStatus
from fast.api.meta import Condition, ObjectMeta

NODE = ip_address("192.168.77.1")


def pool(subnet, *ips, exclude=(), refused=""):
    made = Ips(metadata=ObjectMeta(name="p"), spec=IpsSpec(subnet=subnet, ips=ips, exclude_ips=exclude))
    if refused:
        made.status = IpsStatus(conditions=[Condition(type="Ready", status="False", reason=refused)])
    return made


def record(address, container="c"):
    spec = IpEndpointSpec(pool="p", node="n1", container_id=container)
    return IpEndpoint(metadata=ObjectMeta(name=str(address)), spec=spec)


def networks(*pools, records=(), protected=(), counts=lambda _: True):
    told = []
    following = PodNetworks(told.append)
    following.set_pools(pools, protected)
    following.review(records, counts)
    return told[-1]


def nets(*texts):
    return frozenset(map(ip_network, texts))


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (pool("10.244.0.1/16"), nets("10.244.0.0/16")),
        (pool("10.0.0.0/8", "10.244.0.0-10.244.3.255"), nets("10.244.0.0/22")),
        (pool("172.16.0.0/12", "172.31.0.1-172.31.0.2"), nets("172.31.0.1/32", "172.31.0.2/32")),
        (pool("fd00::/64"), nets("fd00::/64")),
        (pool("10.9.0.0/30", exclude=("10.9.0.2",)), nets("10.9.0.1/32")),
        (pool("10.9.0.0/24", refused="Overlap"), nets()),
        (pool("10.9.0.0/24", refused="BeingDeleted"), nets("10.9.0.0/24")),
        (pool("garbage"), nets()),
        (pool("127.0.0.0/8"), nets()),
    ],
)
def test_a_pools_networks_are_its_ranges(made, found):
    assert networks(made) == found


def test_addresses_of_nodes_and_api_servers_are_never_pods():
    found = networks(pool("192.168.77.0/30", "192.168.77.0/30"), protected=[NODE, ip_address("10.0.0.1")])
    assert found == nets("192.168.77.0/32", "192.168.77.2/31")


def test_a_record_in_use_outside_the_ranges_is_a_network_of_its_own_while_it_counts():
    inside, outside = record("10.9.0.7"), record("10.8.0.1")
    made = pool("10.9.0.0/24")
    assert networks(made, records=[inside, outside]) == nets("10.9.0.0/24", "10.8.0.1/32")
    assert networks(made, records=[outside], counts=lambda _: False) == nets("10.9.0.0/24")
    assert networks(made, records=[record("10.8.0.1", container="")]) == nets("10.9.0.0/24")


def test_records_that_come_and_go_outside_the_ranges_are_followed():
    told = []
    following = PodNetworks(told.append)
    following.record_changed(None, record("10.8.0.1"), counts=True)
    assert told == [], "nothing is told before the pools are known"
    following.set_pools([pool("10.9.0.0/24")], [NODE])
    following.review([], lambda _: True)
    following.record_changed(None, record("10.9.0.1"), counts=True)
    following.record_changed(None, record(NODE), counts=True)
    assert told == [nets("10.9.0.0/24", "10.8.0.1/32")]
    following.record_changed(record("10.8.0.1"), None, counts=False)
    assert told[-1] == nets("10.9.0.0/24")


def test_a_pool_that_is_edited_or_refused_keeps_the_networks_of_its_pods():
    told = []
    following = PodNetworks(told.append)
    following.set_pools([pool("10.9.0.0/24")], [])
    following.review([record("10.9.0.1")], lambda _: True)
    for changed in (pool("10.8.0.0/24"), pool("10.9.0.0/24", refused="Overlap")):
        following.set_pools([changed], [])
        following.review([record("10.9.0.1")], lambda _: True)
        assert ip_network("10.9.0.1/32") in told[-1]


@given(st.integers(1, 32), st.lists(st.integers(0, 255), max_size=6))
def test_no_address_that_is_protected_is_in_any_network(prefix, hosts):
    protected = [ip_address("10.9.0.0") + host for host in hosts]
    found = networks(pool(f"10.9.0.0/{prefix}"), protected=protected)
    assert not any(address in network for address in protected for network in found)
