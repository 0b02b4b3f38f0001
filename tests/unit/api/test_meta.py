"""Metadata and label selectors mean what Kubernetes means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.api.core import Node, NodeAddress, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus, Taint
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.meta import LabelSelector, LabelSelectorRequirement, ObjectMeta
from fast.api.resources import IPENDPOINTS, LEASES, PODS, reference_to
from fast.errors import InvalidRange

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(LABELS)
def test_an_empty_selector_matches_everything(labels):
    assert LabelSelector().matches(labels)


@given(LABELS, LABELS)
def test_match_labels_wants_every_pair(wanted, labels):
    assert LabelSelector(match_labels=wanted).matches(labels) == (wanted.items() <= labels.items())


@given(LABELS, st.sampled_from("abc"), st.lists(st.sampled_from("xyz")).map(tuple))
def test_not_in_is_the_opposite_of_in_and_does_not_exist_that_of_exists(labels, key, values):
    def holds(operator: str) -> bool:
        return LabelSelectorRequirement(key, operator, values).matches(labels)

    assert holds("In") != holds("NotIn")
    assert holds("Exists") != holds("DoesNotExist")


def test_not_in_holds_where_the_key_is_absent():
    assert LabelSelectorRequirement("a", "NotIn", ("x",)).matches({})


def test_all_requirements_must_hold():
    selector = LabelSelector(
        match_labels={"a": "x"}, match_expressions=(LabelSelectorRequirement("b", "Exists"),)
    )
    assert selector.matches({"a": "x", "b": ""})
    assert not selector.matches({"a": "x"})
    assert not selector.matches({"a": "y", "b": ""})


@pytest.mark.parametrize(("namespace", "key"), [("default", "default/p"), ("", "p")])
def test_the_key_of_an_object_has_its_namespace_where_it_has_one(namespace, key):
    assert ObjectMeta(name="p", namespace=namespace).key == key


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        ((), "/api/v1/pods"),
        (("default",), "/api/v1/namespaces/default/pods"),
        (("default", "p"), "/api/v1/namespaces/default/pods/p"),
        (("default", "p", "status"), "/api/v1/namespaces/default/pods/p/status"),
    ],
)
def test_paths_of_a_core_resource(parts, path):
    assert PODS.path(*parts) == path


def test_paths_of_grouped_resources():
    assert IPENDPOINTS.path(name="10.0.0.1") == "/apis/sample.fast.io/v1alpha1/ipendpoints/10.0.0.1"
    assert (
        LEASES.path("kube-system", "fast")
        == "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/fast"
    )


def test_a_reference_names_kind_and_version_that_a_view_does_not_hold():
    pod = Pod(metadata=ObjectMeta(name="p", namespace="default", uid="u"))
    reference = reference_to(pod)
    assert (reference.kind, reference.api_version, reference.uid) == ("Pod", "v1", "u")


def test_an_endpoints_name_is_its_address():
    endpoint = IpEndpoint(metadata=ObjectMeta(name="10.0.0.1"), spec=IpEndpointSpec(pool="p"))
    assert str(endpoint.address) == "10.0.0.1"


def test_an_endpoint_with_another_name_has_no_address():
    endpoint = IpEndpoint(metadata=ObjectMeta(name="busybox"), spec=IpEndpointSpec(pool="p"))
    with pytest.raises(InvalidRange):
        endpoint.address  # noqa: B018


def test_a_pod_is_terminating_once_deletion_was_asked_for():
    assert not Pod(metadata=ObjectMeta()).terminating
    assert Pod(metadata=ObjectMeta(deletion_timestamp="2026-01-01T00:00:00Z")).terminating


@pytest.mark.parametrize(("phase", "finished"), [("Running", False), ("Succeeded", True), ("Failed", True)])
def test_a_pod_is_finished_when_its_containers_ended_for_good(phase, finished):
    assert Pod(metadata=ObjectMeta(), spec=PodSpec(), status=PodStatus(phase=phase)).finished is finished


def test_a_nodes_internal_addresses_keep_their_order():
    addresses = [
        NodeAddress("Hostname", "n1"),
        NodeAddress("InternalIP", "b"),
        NodeAddress("InternalIP", "a"),
    ]
    assert Node(metadata=ObjectMeta(), status=NodeStatus(addresses)).internal_ips == ("b", "a")


def test_a_node_is_out_of_service_by_its_taint_only():
    node = Node(metadata=ObjectMeta(), spec=NodeSpec([Taint("node.kubernetes.io/unreachable", "NoExecute")]))
    assert not node.out_of_service
    node.spec.taints.append(Taint("node.kubernetes.io/out-of-service", "NoExecute"))
    assert node.out_of_service
