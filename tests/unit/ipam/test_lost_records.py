"""Records that get lost while their sandboxes live: a restored etcd, a deleted IpEndpoint, reinstalled CRDs."""

from __future__ import annotations

import asyncio

import pytest

from fakes.store import Fate, a_pool
from fast.api.core import Pod, PodStatus
from fast.api.meta import ObjectMeta, OwnerReference
from fast.errors import AddressConflict, PoolExhausted
from fast.ipam import ClaimRequest
from fast.net import parse_address
from unit.ipam.nodes import SMALL, Gate, Nodes, names, sandbox

FIRST = "10.244.10.0"
KEY = "StatefulSet/default/db/0"


@pytest.fixture
def nodes():
    return Nodes(a_pool("small", "10.244.10.0-10.244.10.1"))


def live(*attachments):
    """The kernel's answer: these attachments, each with its address."""

    async def sandboxes():
        return {item.key: (parse_address(address),) for item, address in attachments}

    return sandboxes


def lose(nodes, name=FIRST):
    nodes.cluster.delete(nodes.cluster.endpoints[name])


class Reported:
    """Pods that report an address in their status."""

    def __init__(self, *pods):
        self.pods = pods

    def pod_with(self, address):
        return next((pod for pod in self.pods if pod.status.pod_ip == str(address)), None)


@pytest.mark.parametrize("request_of_pod", [SMALL, ClaimRequest(pools=("small",), sticky_key=KEY)])
async def test_a_record_that_somebody_deletes_comes_back_as_it_was(nodes, request_of_pod):
    agent = nodes.agent()
    (before,) = await agent.claim(sandbox(1, "db-0"), request_of_pod)
    told = []
    agent.on_lost(told.append)
    lose(nodes)
    assert names(told) == [FIRST]
    restored = await agent.restore(live((sandbox(1), FIRST)))
    (after,) = restored.records
    assert after.spec == before.spec
    assert after.metadata.labels == before.metadata.labels
    assert nodes.cluster.endpoints[FIRST].spec == before.spec


async def test_a_release_by_this_node_is_no_loss(nodes):
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    told = []
    agent.on_lost(told.append)
    await agent.release("c1", "eth0")
    assert told == []
    assert not (await agent.restore(live())).records


async def test_an_agent_that_starts_finds_the_pod_of_a_lost_record_by_the_address_it_reports(nodes):
    owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="db", uid="u", controller=True)
    meta = ObjectMeta(name="db-0", namespace="default", uid="pod-uid", owner_references=[owner])
    pods = Reported(Pod(metadata=meta, status=PodStatus(pod_ip=FIRST)))
    agent = nodes.agent(pods=pods)
    ((record,),) = [(await agent.restore(live((sandbox(1), FIRST)))).records]
    assert (record.spec.pool, record.spec.pod.uid, record.spec.sticky_key) == ("small", "pod-uid", KEY)
    assert (record.spec.node, record.spec.container_id, record.spec.boot_id) == ("n1", "c1", "boot-1")


async def test_a_sandbox_whose_pod_nobody_knows_keeps_its_address_all_the_same(nodes):
    ((record,),) = [(await nodes.agent().restore(live((sandbox(1), FIRST)))).records]
    assert (record.spec.pool, record.spec.pod.uid) == ("small", "")


@pytest.mark.parametrize("exactly", [False, True])
async def test_no_pod_of_this_node_gets_an_address_that_a_sandbox_has_without_a_record(nodes, exactly):
    gate = Gate()
    agent = nodes.agent(gate=gate)
    gate.fates["create"] = [Fate.LOST]
    restored = await agent.restore(live((sandbox(1), FIRST)))
    assert [str(address) for address, _ in restored.refused] == [FIRST]
    if exactly:
        asked = ClaimRequest(pools=("small",), addresses=(parse_address(FIRST),))
        with pytest.raises(AddressConflict, match="a sandbox of this node whose record was lost"):
            await agent.claim(sandbox(2), asked)
        return
    assert names(await agent.claim(sandbox(2), SMALL)) == ["10.244.10.1"]
    with pytest.raises(PoolExhausted):
        await agent.claim(sandbox(3), SMALL)
    assert names((await agent.restore(live((sandbox(1), FIRST)))).records) == [FIRST]


async def test_of_two_sandboxes_with_one_address_the_one_that_the_record_does_not_name_yields_and_is_told(
    nodes,
):
    agent, other = nodes.agent("n1"), nodes.agent("n2")
    await agent.claim(sandbox(1), SMALL)
    lose(nodes)
    asked = ClaimRequest(pools=("small",), addresses=(parse_address(FIRST),))
    (theirs,) = await other.claim(sandbox(2), asked)
    restored = await agent.restore(live((sandbox(1), FIRST)))
    assert restored.records == []
    ((contested),) = restored.contested
    assert (str(contested.address), contested.pod.name, contested.record.spec.pod.name) == (
        FIRST,
        "pod-1",
        "pod-2",
    )
    assert nodes.cluster.endpoints[FIRST].spec == theirs.spec


async def test_an_older_version_of_a_record_that_a_backup_brought_back_is_overwritten(nodes):
    agent = nodes.agent()
    await agent.claim(sandbox(1, "web"), SMALL)
    await agent.claim(sandbox(2, "web"), SMALL)  # the pod's new sandbox
    lose(nodes)
    await nodes.agent().claim(sandbox(1, "web"), SMALL)  # as the backup has it
    restored = await agent.restore(live((sandbox(2), FIRST)))
    assert [record.spec.container_id for record in restored.records] == ["c2"]


async def test_a_retained_version_that_a_backup_brought_back_is_bound_again(nodes):
    sticky = ClaimRequest(pools=("small",), sticky_key=KEY)
    agent = nodes.agent()
    await agent.claim(sandbox(1, "db-0"), sticky)
    await agent.release("c1", "eth0")
    restored = await agent.restore(live((sandbox(2), FIRST)))
    assert [record.spec.container_id for record in restored.records] == ["c2"]


async def test_a_sandbox_that_is_deleted_meanwhile_gets_no_record(nodes):
    agent = nodes.agent()
    await agent.claim(sandbox(1), SMALL)
    lose(nodes)
    answers = [{sandbox(1).key: (parse_address(FIRST),)}, {}]

    async def sandboxes():
        return answers.pop(0)

    assert not (await agent.restore(sandboxes)).records
    assert not nodes.cluster.endpoints


async def test_a_del_of_a_sandbox_whose_record_is_being_restored_releases_it(nodes):
    gate = Gate()
    agent = nodes.agent(gate=gate)
    await agent.claim(sandbox(1), SMALL)
    lose(nodes)
    gate.held["create"] = asyncio.Event()
    restoring = asyncio.create_task(agent.restore(live((sandbox(1), FIRST))))
    await asyncio.sleep(0)
    releasing = asyncio.create_task(agent.release("c1", "eth0"))
    for _ in range(20):
        await asyncio.sleep(0)
    gate.held["create"].set()
    await restoring
    await releasing
    assert not nodes.cluster.endpoints
