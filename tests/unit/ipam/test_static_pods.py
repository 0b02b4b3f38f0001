"""Static pods: the API server shows a mirror of another UID than the one that kubelet and the runtime speak of."""

from __future__ import annotations

import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.core import (
    ANNOTATION_MIRROR,
    TAINT_OUT_OF_SERVICE,
    Node,
    NodeSpec,
    Pod,
    PodSpec,
    PodStatus,
    Taint,
)
from fast.api.ipendpoint import PodRef
from fast.api.meta import ObjectMeta
from fast.errors import PodNotEligible
from fast.ipam import Attachment, NodeIdentity
from fast.ipam.explain.drift import audit_cluster
from fast.ipam.rules.controller_gc_rules import on_controller_sweep
from fast.ipam.rules.decision import Action
from unit.ipam.nodes import Caller

HASH, OTHER_HASH = "70a2d08f8ad8cd5dfc51ad71fefd1e78", "1fa419d8454b29b54d3295c64c05e200"


def mirror(uid: str = "mirror-1", mirrored: str = HASH, address: str = "") -> Pod:
    metadata = ObjectMeta(
        name="etcd-n1", namespace="kube-system", uid=uid, annotations={ANNOTATION_MIRROR: mirrored}
    )
    return Pod(metadata=metadata, spec=PodSpec(node_name="n1"), status=PodStatus(pod_ip=address))


class OnePod:
    """A view of one pod."""

    def __init__(self) -> None:
        self.shown = mirror()

    async def pod(self, _namespace, _name):
        return self.shown

    async def namespace(self, _name):
        return None


class Setting:
    """An agent on which a static pod is started."""

    def __init__(self) -> None:
        self.pods = OnePod()
        cluster = FakeCluster()
        cluster.put_pool(a_pool("default-ips", "10.244.10.0-10.244.10.9"))
        node = NodeIdentity(name="n1", boot_id="boot-1")
        self.ipam = Caller(FakeStore(cluster), node, pods=self.pods)

    async def start(self, container: str, uid: str = HASH):
        """Admit and claim as an ADD does."""
        ref = PodRef(namespace="kube-system", name="etcd-n1", uid=uid)
        (record,) = await self.ipam.claim(*await self.ipam.admit(Attachment(container, "eth0", ref)))
        return record


@pytest.fixture
def setting():
    return Setting()


async def test_a_static_pod_gets_an_address_under_the_uid_that_the_runtime_passes(setting):
    assert (await setting.start("c1")).spec.pod.uid == HASH


async def test_a_runtime_that_passes_no_uid_makes_the_same_record_of_a_static_pod(setting):
    assert (await setting.start("c1", uid="")).spec.pod.uid == HASH


async def test_a_new_sandbox_of_a_static_pod_takes_the_address_over_though_its_mirror_was_made_anew(setting):
    before = await setting.start("c1")
    setting.pods.shown = mirror("mirror-2")
    after = await setting.start("c2")
    assert (after.metadata.name, after.spec.container_id) == (before.metadata.name, "c2")


async def test_a_static_pod_whose_mirror_still_shows_the_manifest_before_is_another_pod(setting):
    with pytest.raises(PodNotEligible, match=f"was recreated: its UID is {HASH}"):
        await setting.start("c1", uid=OTHER_HASH)


@pytest.mark.parametrize(
    ("shown", "action"),
    [
        (mirror("mirror-2"), Action.KEEP),
        (mirror("mirror-2", OTHER_HASH), Action.RELEASE),
        (None, Action.RELEASE),
    ],
)
async def test_the_record_of_a_static_pod_stays_while_any_mirror_of_it_is_there(setting, shown, action):
    record = await setting.start("c1")
    fenced = Node(
        metadata=ObjectMeta(name="n1"), spec=NodeSpec(taints=[Taint(TAINT_OUT_OF_SERVICE, "NoExecute")])
    )
    assert on_controller_sweep(record, shown, fenced, 0.0).action is action


async def test_a_static_pod_with_its_address_is_no_drift(setting):
    record = await setting.start("c1")
    assert audit_cluster([record], [], [mirror("mirror-2", address=record.metadata.name)]) == []
