"""What a pod is told by an Event when it gets no address."""

from types import SimpleNamespace

import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.agent.cni.pod_addresses import NodeAddresses
from fast.api.core import Pod, PodSpec
from fast.api.ipendpoint import PodRef
from fast.api.ips import ANNOTATION_POOLS
from fast.api.meta import ObjectMeta
from fast.errors import PoolExhausted
from fast.ipam import Attachment, NodeIdentity
from unit.ipam.nodes import Caller


class Pods:
    """Every pod that is asked for, with an annotation that names two pools."""

    def doubt(self, _ref):
        pass

    async def pod(self, namespace, name):
        metadata = ObjectMeta(namespace=namespace, name=name, uid=name, annotations={ANNOTATION_POOLS: "a,b"})
        return Pod(metadata=metadata, spec=PodSpec(node_name="n1"))

    async def namespace(self, _name):
        return None


async def test_an_event_about_exhausted_pools_has_no_counts_as_these_differ_at_each_try():
    cluster, told = FakeCluster(), []
    for name, ips in (("a", "10.244.1.1"), ("b", "10.244.1.2")):
        cluster.put_pool(a_pool(name, ips))
    ipam = Caller(FakeStore(cluster), NodeIdentity("n1", "boot"), pods=Pods())
    recorder = SimpleNamespace(event=lambda *event: told.append(event))
    addresses = NodeAddresses(ipam, Pods(), recorder, synced=lambda: True)

    def claim(name):
        return addresses.claim(Attachment(name, "eth0", PodRef("default", name, name)))

    await claim("p1")
    await claim("p2")
    with pytest.raises(PoolExhausted, match="1 bound, 0 retained"):
        await claim("p3")
    ((_, _, reason, message),) = told
    assert (reason, message) == ("PoolExhausted", "no address is free in pool a or pool b")


async def test_a_misspelt_annotation_is_told_to_its_pod_which_is_served_all_the_same():
    cluster, told = FakeCluster(), []
    cluster.put_pool(a_pool("default-ips", "10.244.1.1"))

    class Misspelt(Pods):
        async def pod(self, namespace, name):
            metadata = ObjectMeta(namespace=namespace, name=name, uid=name, annotations={"fast.io/ipss": "a"})
            return Pod(metadata=metadata, spec=PodSpec(node_name="n1"))

    ipam = Caller(FakeStore(cluster), NodeIdentity("n1", "boot"), pods=Misspelt())
    recorder = SimpleNamespace(event=lambda *event: told.append(event))
    addresses = NodeAddresses(ipam, Misspelt(), recorder, synced=lambda: True)
    assert await addresses.claim(Attachment("c1", "eth0", PodRef("default", "p", "p")))
    ((_, kind, reason, text),) = told
    assert (kind, reason) == ("Warning", "UnknownAnnotation")
    assert text == "annotation fast.io/ipss means nothing to Fast; did you mean fast.io/ips?"
