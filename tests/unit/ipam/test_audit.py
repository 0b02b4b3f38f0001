"""What the audit calls drift: each kind by one difference planted into a node on which all agrees."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from fakes.store import a_pool
from fast.api.core import Pod, PodSpec, PodStatus
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.ipam.explain.drift import Drift, DriftKind, audit_cluster, audit_node, lasting
from fast.net import parse_address
from fast.net.node_state import NodeState

ONE, TWO = parse_address("10.244.0.1"), parse_address("10.244.0.2")
STRANGER = parse_address("10.244.0.9")


def record(address: str, container_id: str, node: str, uid: str = "") -> IpEndpoint:
    pod = PodRef(namespace="default", name=f"pod-{container_id}", uid=uid)
    spec = IpEndpointSpec(pool="p", node=node, container_id=container_id, interface="eth0", pod=pod)
    return IpEndpoint(metadata=ObjectMeta(name=address), spec=spec)


RECORDS = (record("10.244.0.1", "c1", "n1"), record("10.244.0.2", "c2", "n2"))
UNDERLAYS = {"n1": "192.0.2.1", "n2": "192.0.2.2"}
AGREEING = NodeState(
    sandboxes={ONE: (("c1", "eth0"), 7)},
    local={ONE: 7},
    cluster={ONE: "192.0.2.1", TWO: "192.0.2.2"},
)


def test_a_node_on_which_everything_agrees_has_no_drift():
    assert audit_node(RECORDS, "n1", AGREEING, UNDERLAYS) == []


@pytest.mark.parametrize(
    ("change", "kind", "address"),
    [
        ({"sandboxes": {}, "local": {}}, DriftKind.RECORD_WITHOUT_SANDBOX, ONE),
        ({"sandboxes": {ONE: (("c9", "eth0"), 7)}}, DriftKind.RECORD_OF_ANOTHER_SANDBOX, ONE),
        ({"sandboxes": {ONE: (("c1", "net1"), 7)}}, DriftKind.RECORD_OF_ANOTHER_SANDBOX, ONE),
        (
            {
                "sandboxes": {**AGREEING.sandboxes, STRANGER: (("c3", "eth0"), 8)},
                "local": {ONE: 7, STRANGER: 8},
            },
            DriftKind.SANDBOX_WITHOUT_RECORD,
            STRANGER,
        ),
        ({"local": {}}, DriftKind.SANDBOX_NOT_IN_LOCAL_MAP, ONE),
        ({"local": {ONE: 8}}, DriftKind.LOCAL_ENTRY_OF_ANOTHER_DEVICE, ONE),
        ({"local": {ONE: 7, STRANGER: 8}}, DriftKind.LOCAL_ENTRY_WITHOUT_SANDBOX, STRANGER),
        ({"cluster": {ONE: "192.0.2.1"}}, DriftKind.RECORD_NOT_IN_CLUSTER_MAP, TWO),
        ({"cluster": {ONE: "192.0.2.1", TWO: "192.0.2.1"}}, DriftKind.CLUSTER_ENTRY_OF_ANOTHER_NODE, TWO),
        (
            {"cluster": {**AGREEING.cluster, STRANGER: "192.0.2.2"}},
            DriftKind.CLUSTER_ENTRY_WITHOUT_RECORD,
            STRANGER,
        ),
    ],
)
def test_one_difference_is_one_drift_of_its_kind(change, kind, address):
    (drift,) = audit_node(RECORDS, "n1", replace(AGREEING, **change), UNDERLAYS)
    assert (drift.kind, drift.address) == (kind, str(address))


def test_a_retained_record_belongs_on_no_sandbox_and_in_no_map():
    kept = IpEndpoint(
        metadata=ObjectMeta(name="10.244.0.3"),
        spec=IpEndpointSpec(pool="p", interface="eth0", sticky_key="set/0"),
    )
    assert audit_node((*RECORDS, kept), "n1", AGREEING, UNDERLAYS) == []


def test_a_record_whose_name_is_no_address_is_told():
    odd = IpEndpoint(metadata=ObjectMeta(name="nonsense"), spec=RECORDS[0].spec)
    (drift,) = audit_node((*RECORDS, odd), "n1", AGREEING, UNDERLAYS)
    assert (drift.kind, drift.address) == (DriftKind.UNREADABLE_RECORD, "nonsense")


def pod(uid: str, address: str, **spec: object) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=f"pod-{uid}", namespace="default", uid=uid),
        spec=msgspec.convert(spec, PodSpec),
        status=PodStatus(phase="Running", pod_ip=address),
    )


def kinds(pods: list[Pod], *records: IpEndpoint) -> list[tuple[str, str]]:
    pools = [a_pool("p", "10.244.0.1-10.244.0.9")]
    return [(drift.kind.value, drift.address) for drift in audit_cluster(records, pools, pods)]


def test_records_are_compared_with_pods_by_uid():
    ours = record("10.244.0.1", "c1", "n1", uid="u1")
    assert kinds([pod("u1", "10.244.0.1")], ours) == []
    assert kinds([], ours) == [("record-without-pod", "10.244.0.1")]
    assert kinds([pod("u1", "10.244.0.1"), pod("u2", "10.244.0.1")], ours) == [
        ("pod-without-record", "10.244.0.1")
    ]
    assert kinds([pod("u3", "10.244.0.5")]) == [("pod-without-record", "10.244.0.5")]


def test_pods_of_the_hosts_network_and_of_other_networks_are_nobodys_business():
    assert kinds([pod("u1", "10.244.0.5", hostNetwork=True), pod("u2", "203.0.113.7")]) == []


def test_only_what_two_looks_found_lasts_in_the_words_of_the_second():
    first = [
        Drift(DriftKind.SANDBOX_NOT_IN_LOCAL_MAP, "a", "1"),
        Drift(DriftKind.RECORD_WITHOUT_POD, "b", "1"),
    ]
    second = [Drift(DriftKind.RECORD_WITHOUT_POD, "b", "2"), Drift(DriftKind.RECORD_WITHOUT_POD, "c", "2")]
    assert [(drift.address, drift.text) for drift in lasting(first, second)] == [("b", "2")]


def test_a_node_that_changed_its_address_is_drift_until_the_map_follows():
    (drift,) = audit_node(RECORDS, "n1", AGREEING, UNDERLAYS | {"n2": "192.0.2.22"})
    assert drift.kind is DriftKind.CLUSTER_ENTRY_OF_ANOTHER_NODE
    assert "192.0.2.2, node n2 has 192.0.2.22" in drift.text


def test_pods_of_a_node_without_a_fastnode_are_no_drift_wherever_the_map_has_them():
    for seen in (AGREEING, replace(AGREEING, cluster={ONE: "192.0.2.1"})):
        assert audit_node(RECORDS, "n1", seen, {"n1": "192.0.2.1"}) == []
