"""Which addresses of the cluster count: each rule by what breaks it; changes against a judgement of everything."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast.agent.sync.cluster_judge import MOST_PODS, ClusterJudge, Refusal, World
from fast.api.fastnode import FastNode, FastNodeSpec
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.ips import Ips, IpsSpec, IpsStatus
from fast.api.meta import Condition, ObjectMeta
from fast.datapath.bpf.layout import ClusterPod, Kind

OWN, N1, N2 = (ip_address(f"192.168.77.{host}") for host in (9, 1, 2))
POD = ip_address("10.244.0.5")


def pool(name="p", subnet="10.244.0.0/16", *ips, ready=None):
    status = IpsStatus(conditions=[Condition(type="Ready", status=ready, reason="R")]) if ready else None
    made = Ips(metadata=ObjectMeta(name=name), spec=IpsSpec(subnet=subnet, ips=ips))
    if status:
        made.status = status
    return made


def node(name, *addresses, created=""):
    return FastNode(
        metadata=ObjectMeta(name=name, creation_timestamp=created or None),
        spec=FastNodeSpec(addresses=tuple(map(str, addresses))),
    )


def record(address, on="n1", of="p", container="c"):
    spec = IpEndpointSpec(pool=of, node=on, container_id=container)
    return IpEndpoint(metadata=ObjectMeta(name=str(address)), spec=spec)


class Cluster:
    """A judge fed change by change, with the map that its changes make."""

    def __init__(self, services=()):
        self.records, self.nodes, self.pools = {}, {}, {}
        self.map = {}
        self.judge = ClusterJudge("own", (OWN,), self.records.get, services)
        self.everything()

    def world(self, held=None):
        return World(self.pools.values(), self.nodes.values(), self.records.values(), held or {})

    def everything(self, held=None):
        self.judge, self.map = self.judge.judge_everything(self.world(held))

    def _apply(self, changes):
        for address, entry in changes.items():
            if entry is None:
                self.map.pop(address, None)
            else:
                self.map[address] = entry

    def _put(self, objects, name, new, judge):
        old = objects.pop(name, None)
        if new is not None:
            objects[name] = new
        if old is not None or new is not None:
            self._apply(judge(old, new))

    def record(self, new=None, *, gone=None):
        name = str(gone) if new is None else new.metadata.name
        self._put(self.records, name, new, self.judge.record_changed)

    def node(self, new=None, *, gone=None):
        name = gone if new is None else new.metadata.name
        self._put(self.nodes, name, new, self.judge.node_changed)

    def pool(self, new=None, *, gone=None):
        name = gone if new is None else new.metadata.name
        self._put(self.pools, name, new, lambda _, now: self.judge.pool_changed(name, now))

    def refused(self):
        return {why: found.count for why, found in self.judge.refusals().items()}


@pytest.fixture
def cluster():
    made = Cluster()
    made.pool(pool())
    made.node(node("n1", N1))
    made.node(node("n2", N2))
    return made


def pod_on(underlay):
    return ClusterPod(underlay, Kind.POD)


def test_a_record_inside_its_pool_leads_to_its_node_and_its_node_to_itself(cluster):
    cluster.record(record(POD))
    assert cluster.map[POD] == pod_on(N1)
    assert cluster.map[N1] == ClusterPod(N1, Kind.NODE)


@pytest.mark.parametrize("address", ["10.96.0.1", "8.8.8.8", "10.243.255.255"])
def test_a_record_outside_its_pool_does_not_count(cluster, address):
    cluster.record(record(address))
    assert ip_address(address) not in cluster.map
    assert cluster.refused() == {Refusal.OUTSIDE_POOL: 1}


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "224.0.0.1"])
def test_a_record_of_a_special_address_never_counts(cluster, address):
    cluster.pool(pool("p", "0.0.0.0/0"))
    cluster.record(record(address))
    assert ip_address(address) not in cluster.map
    assert cluster.refused() == {Refusal.SPECIAL_ADDRESS: 1}


def test_a_record_of_a_pool_that_is_not_known_yet_counts_when_the_pool_comes(cluster):
    cluster.record(record("10.9.0.1", of="late"))
    assert cluster.refused() == {Refusal.OUTSIDE_POOL: 1}
    cluster.pool(pool("late", "10.9.0.0/24"))
    assert cluster.map[ip_address("10.9.0.1")] == pod_on(N1)
    assert cluster.refused() == {}


def test_a_record_that_counts_is_not_cut_off_when_its_pool_is_edited_or_goes(cluster):
    cluster.record(record(POD))
    for edit in (pool("p", "10.9.0.0/24"), None):
        cluster.pool(edit, gone="p")
        cluster.everything()
        assert cluster.map[POD] == pod_on(N1)
    cluster.record(record(POD, on="", container=""))  # retained for a StatefulSet
    assert POD not in cluster.map
    cluster.record(record(POD, on="n2"))
    assert cluster.map[POD] == pod_on(N2)
    cluster.record(gone=POD)
    cluster.record(record(POD))
    assert POD not in cluster.map, "another record of the address has to pass the check"


def test_a_node_has_at_most_as_many_records_as_it_can_hold(cluster):
    for number in range(MOST_PODS + 2):
        cluster.record(record(ip_address("10.244.0.1") + number))
    cluster.record(record("10.244.255.1", on="n2"))
    assert cluster.refused() == {Refusal.TOO_MANY: 2}
    assert cluster.map[ip_address("10.244.255.1")] == pod_on(N2), "other nodes are not concerned"
    cluster.record(gone="10.244.0.7")
    assert cluster.refused() == {Refusal.TOO_MANY: 1}
    assert sum(entry == pod_on(N1) for entry in cluster.map.values()) == MOST_PODS


def test_a_node_without_a_fastnode_is_no_tunnel_endpoint_and_neither_are_its_pods(cluster):
    cluster.record(record(POD, on="windows"))
    assert POD not in cluster.map
    cluster.node(node("windows", "192.168.77.3"))
    assert cluster.map[POD] == pod_on(ip_address("192.168.77.3"))
    cluster.node(gone="windows")
    assert POD not in cluster.map


def test_a_changed_address_moves_every_pod_of_the_node(cluster):
    cluster.record(record(POD))
    moved = ip_address("192.168.77.11")
    cluster.node(node("n1", moved, "fd77::1"))
    assert cluster.map[POD] == pod_on(moved)
    assert N1 not in cluster.map
    assert cluster.map[ip_address("fd77::1")] == ClusterPod(moved, Kind.NODE)


def test_a_node_that_claims_a_pods_address_does_not_get_its_traffic(cluster):
    cluster.record(record(POD, on="n2"))
    cluster.node(node("n1", POD))
    assert cluster.map[POD] == pod_on(N2)
    assert Refusal.POD_ADDRESS in cluster.refused()
    cluster.everything()
    assert cluster.map[POD] == pod_on(N2)


def test_a_node_that_claims_a_free_address_of_a_pool_does_not_count(cluster):
    cluster.node(node("n1", "10.244.7.7"))
    assert cluster.refused() == {Refusal.IN_POOL: 1}
    assert ip_address("10.244.7.7") not in cluster.map
    cluster.pool(pool("p", "10.9.0.0/24"))
    assert cluster.map[ip_address("10.244.7.7")].kind is Kind.NODE


@pytest.mark.parametrize("ready", [None, "False"])
def test_a_pool_laid_over_nodes_that_count_cuts_none_of_them_off(cluster, ready):
    cluster.pool(pool("lan", "192.168.77.0/24", ready=ready))
    cluster.everything()
    assert cluster.map[N1].kind is cluster.map[N2].kind is Kind.NODE
    cluster.record(record(N1, on="n2", of="lan"))
    assert cluster.map[N1] == ClusterPod(N1, Kind.NODE)
    assert cluster.refused() == {Refusal.NODE_ADDRESS: 1}


@pytest.mark.parametrize(
    ("pool_created", "counts"), [("2026-01-02T00:00:00Z", True), ("2025-12-31T00:00:00Z", False)]
)
def test_who_came_first_has_the_address_when_a_fresh_node_sees_both(pool_created, counts):
    """A node that boots has an empty map: it must not lose all the others to a pool laid over their LAN later."""
    cluster = Cluster()
    lan = pool("lan", "192.168.77.0/24")
    lan.metadata.creation_timestamp = pool_created
    cluster.pools["lan"] = lan
    cluster.nodes["n1"] = node("n1", N1, created="2026-01-01T00:00:00Z")
    cluster.everything()
    assert (N1 in cluster.map) is counts


def test_the_node_objects_age_counts_as_fastnodes_are_younger_after_an_upgrade():
    cluster = Cluster()
    cluster.judge = ClusterJudge("own", (OWN,), cluster.records.get, (), lambda _: "2025-01-01T00:00:00Z")
    lan = pool("lan", "192.168.77.0/24")
    lan.metadata.creation_timestamp = "2025-06-01T00:00:00Z"
    cluster.pools["lan"] = lan
    cluster.nodes["n1"] = node("n1", N1, created="2026-01-01T00:00:00Z")
    cluster.everything()
    assert N1 in cluster.map


def test_a_pool_that_the_controller_refused_keeps_no_node_out(cluster):
    cluster.pool(pool("lan", "192.168.0.0/16", ready="False"))
    cluster.node(node("n3", "192.168.77.3"))
    assert cluster.map[ip_address("192.168.77.3")].kind is Kind.NODE


def test_a_node_cannot_take_anothers_address_or_this_nodes_own(cluster):
    cluster.node(node("evil", "192.168.66.6", created="2026-01-01"))
    for taken in ("192.168.77.2", str(OWN)):
        evil = FastNode(
            metadata=ObjectMeta(name="evil"),
            spec=FastNodeSpec(addresses=("192.168.66.6", taken)),
        )
        cluster.node(evil)
        assert cluster.map[ip_address(taken)].node_ip == ip_address(taken)
        assert cluster.refused() == {Refusal.TAKEN: 1}
        cluster.everything()
        assert cluster.map[ip_address(taken)].node_ip == ip_address(taken)


def test_an_address_that_another_node_had_counts_when_that_one_goes(cluster):
    cluster.node(node("n3", "192.168.77.3", "fd77::1"))
    cluster.node(node("n4", "192.168.77.4", "fd77::1"))
    assert cluster.refused() == {Refusal.TAKEN: 1}
    cluster.node(gone="n3")
    assert cluster.map[ip_address("fd77::1")].node_ip == ip_address("192.168.77.4")
    assert cluster.refused() == {}


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.5", "255.255.255.255"]
)
def test_a_node_of_a_special_address_does_not_count(cluster, address):
    cluster.node(node("n1", address))
    assert ip_address(address) not in cluster.map
    assert cluster.refused() == {Refusal.SPECIAL_ADDRESS: 1}


def test_a_node_cannot_take_a_services_address():
    cluster = Cluster(services=(ip_network("10.96.0.0/12"),))
    cluster.node(node("n1", "10.96.0.1"))
    assert ip_address("10.96.0.1") not in cluster.map
    assert cluster.refused() == {Refusal.SERVICE_ADDRESS: 1}


def test_what_a_map_held_before_counts_and_leads_where_it_led_until_the_nodes_fastnode_comes():
    cluster = Cluster()
    cluster.judge = ClusterJudge("own", (OWN,), cluster.records.get)
    cluster.records["10.244.0.5"] = record(POD)
    cluster.everything({POD: pod_on(N1), N1: ClusterPod(N1, Kind.NODE)})
    assert cluster.map == {OWN: ClusterPod(OWN, Kind.NODE), POD: pod_on(N1)}
    cluster.everything()
    assert cluster.map[POD] == pod_on(N1)
    cluster.node(node("n1", N2))
    assert cluster.map[POD] == pod_on(N2)


ADDRESSES = [
    ip_address(text) for text in ("10.244.0.1", "10.244.0.2", "10.9.0.1", "192.168.77.1", "192.168.77.2")
]
POOLS = [
    pool("p", "10.244.0.0/30"),
    pool("p", "10.9.0.0/24"),
    pool("p", "192.168.77.0/24", ready="False"),
    None,
]
RECORDS = st.builds(record, st.sampled_from(ADDRESSES), on=st.sampled_from(["n1", "n2", "own"]))
NODES = st.builds(node, st.sampled_from(["n1", "n2"]), st.sampled_from([N1, N2, ADDRESSES[0]]))
STEPS = st.one_of(
    st.tuples(st.just("record"), RECORDS),
    st.tuples(st.just("record gone"), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("node"), NODES),
    st.tuples(st.just("node gone"), st.sampled_from(["n1", "n2"])),
    st.tuples(st.just("pool"), st.sampled_from(POOLS)),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_after_any_changes_the_map_is_what_judging_everything_again_gives(steps):
    cluster = Cluster()
    for what, value in steps:
        match what:
            case "record":
                cluster.record(value)
            case "record gone":
                cluster.record(gone=value)
            case "node":
                cluster.node(value)
            case "node gone":
                cluster.node(gone=value)
            case "pool":
                cluster.pool(value, gone="p")
        for address, entry in cluster.map.items():
            holder = cluster.records.get(str(address))
            claimants = [one for one in cluster.nodes.values() if address in one.find_addresses()]
            if entry.kind is Kind.POD:
                assert holder is not None, "nothing leads to a pod that has no record"
                home = cluster.nodes.get(holder.spec.node)
                assert entry.node_ip == (OWN if holder.spec.node == "own" else home.find_underlay())
            else:
                assert address == OWN or claimants
        incremental = dict(cluster.map)
        cluster.everything()
        assert cluster.map == incremental
