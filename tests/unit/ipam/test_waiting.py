"""Why a pod has no address yet, in sentences; and annotations that somebody misspelt."""

import pytest

from fakes.store import a_pool
from fast.api.core import Namespace, Pod, PodSpec, PodStatus
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta, OwnerReference
from fast.ipam import resolve_pools
from fast.ipam.explain.waiting import explain_waiting
from fast.ipam.rules.annotations import misspelt
from fast.ipam.store.snapshot import Snapshot


def a_pod(name="web", *, node="n1", owners=(), host_network=False, phase="Pending", **annotations):
    written = {f"fast.io/{key.removeprefix('_')}": value for key, value in annotations.items()}
    meta = ObjectMeta(name=name, namespace="shop", uid="u", annotations=written)
    meta.owner_references = list(owners)
    return Pod(
        metadata=meta, spec=PodSpec(node_name=node, host_network=host_network), status=PodStatus(phase=phase)
    )


def why(pod, *pools, records=(), namespace=None, labels=None):
    snapshot = Snapshot(
        records={item.metadata.name: item for item in records},
        pools={pool.metadata.name: pool for pool in pools},
        pods={},
    )
    return explain_waiting(snapshot, pod, namespace, labels or {})


def a_record(address, *, pod="db-0", container="c", sticky="", namespace="shop"):
    ref = PodRef(namespace=namespace, name=pod, uid="other")
    spec = IpEndpointSpec(
        pool="a",
        node="n2" if container else "",
        pod=ref,
        container_id=container,
        interface="eth0",
        sticky_key=sticky,
    )
    return IpEndpoint(metadata=ObjectMeta(name=address), spec=spec)


def test_a_pod_of_a_pool_that_does_not_exist():
    said = why(a_pod(_ips="nope"), a_pool("a"))
    assert said == ["its annotation fast.io/ips names 'nope'", "there is no Ips named 'nope'"]


def test_a_pod_whose_namespace_names_an_exhausted_pool_and_one_that_does_not_allow_it():
    pools = [a_pool("a", "10.244.1.0"), a_pool("b", podAffinity={"matchLabels": {"x": "y"}})]
    namespace = Namespace(metadata=ObjectMeta(name="shop", annotations={"fast.io/ips": "a,b"}))
    said = why(a_pod(), *pools, records=[a_record("10.244.1.0")], namespace=namespace)
    assert said == [
        "the annotation fast.io/ips of namespace shop names 'a,b'",
        "pool a is exhausted (1 addresses: 1 bound, 0 retained, 0 cooling, 0 available)",
        "pool b does not allow this pod: its podAffinity does not match",
    ]


def test_a_pod_that_named_no_pool_and_is_not_scheduled():
    said = why(a_pod(node=""), a_pool("default-ips", "10.244.1.0-10.244.1.9"))
    assert "it takes from default-ips" in said[0]
    assert said[1].startswith("it is not on a node yet")
    assert "pool default-ips can serve it (10 addresses" in said[2]


def test_a_stateful_sets_pod_whose_predecessor_still_runs():
    owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="db", uid="s", controller=True)
    held = a_record("10.244.1.0", sticky="StatefulSet/shop/db/0")
    said = why(a_pod("db-0", owners=[owner], _ips="a"), a_pool("a"), records=[held])
    assert said[-1] == "it waits for 10.244.1.0, which the pod before it still holds on node n2"


@pytest.mark.parametrize(
    ("namespace", "text"),
    [("shop", "belongs to pod db-0 on node n2"), ("bank", "belongs to another workload")],
)
def test_a_pod_that_asks_for_an_address_that_somebody_has(namespace, text):
    said = why(
        a_pod(_ips="a", _ip="10.244.1.0"), a_pool("a"), records=[a_record("10.244.1.0", namespace=namespace)]
    )
    assert said[-1] == f"it asks for 10.244.1.0 and no other, which {text}"


def test_pods_that_need_no_address():
    assert why(a_pod(host_network=True)) == ["it uses its node's network, and gets no address of its own"]
    assert why(a_pod(phase="Failed")) == ["it has finished (Failed), and needs no address"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("fast.io/ipss", "fast.io/ips"),
        ("fast.io/IPs", "fast.io/ips"),
        ("fastio/ips", "fast.io/ips"),
        ("fast.io/ip4", "fast.io/ip"),
        ("fast.io/stiky", "fast.io/sticky"),
        ("fast.io/ips", None),
        ("ips", None),
        ("cni.projectcalico.org/ipAddrs", None),
        ("kubectl.kubernetes.io/last-applied-configuration", None),
    ],
)
def test_an_annotation_that_looks_like_fasts_is_told_from_others(key, meant):
    pod = Pod(metadata=ObjectMeta(name="p", namespace="shop", annotations={key: "a"}))
    assert [item for _, item in misspelt(pod)] == ([meant] if meant else [])
    assert resolve_pools(pod).misspelt == tuple(misspelt(pod))
