"""When the agent compares its sandboxes with the records, and what it tells of addresses that two of them have."""

import asyncio
from types import SimpleNamespace

import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.agent.cni.pod_addresses import NodeAddresses
from fast.agent.config.interval import Interval
from fast.agent.sync.agent_gc import AgentCollector
from fast.api.ipendpoint import PodRef
from fast.errors import AgentUnavailable
from fast.ipam import Attachment, ClaimRequest, NodeIdentity
from fast.net import parse_address
from unit.ipam.nodes import Caller

SMALL = ClaimRequest(pools=("small",))


class Setting:
    def __init__(self):
        self.cluster = FakeCluster()
        self.cluster.put_pool(a_pool("small", "10.244.1.0-10.244.1.1"))
        self.ipam = self.node("n1")
        self.endpoints_there = [("c1", "10.244.1.0")]
        self.told = []
        self.collector = AgentCollector(self.ipam, self, lambda *event: self.told.append(event))
        self.ipam.on_lost(self.collector.record_lost)

    def node(self, name):
        return Caller(FakeStore(self.cluster), NodeIdentity(name, "boot"))

    def endpoints(self):
        return [
            SimpleNamespace(container_id=container, ifname="eth0", addresses=(parse_address(address),))
            for container, address in self.endpoints_there
        ]

    async def attach(self, ipam, container):
        ref = PodRef(namespace="default", name=f"pod-of-{container}", uid=container)
        return await ipam.claim(Attachment(container, "eth0", ref), SMALL)


@pytest.fixture
def setting():
    return Setting()


async def test_a_record_that_is_deleted_is_back_long_before_the_next_sweep(setting):
    await setting.attach(setting.ipam, "c1")
    running = asyncio.create_task(setting.collector.run(Interval(3600.0)))
    while not setting.collector.compared:  # noqa: ASYNC110 -- plain state of the collector
        await asyncio.sleep(0)
    (record,) = setting.cluster.endpoints.values()
    setting.cluster.delete(record)
    async with asyncio.timeout(5):
        while not setting.cluster.endpoints:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert setting.cluster.endpoints["10.244.1.0"].spec == record.spec


async def test_both_pods_are_told_of_an_address_that_two_have_and_neither_is_named_to_the_other(setting):
    await setting.attach(setting.ipam, "c1")
    (record,) = setting.cluster.endpoints.values()
    setting.cluster.delete(record)
    await setting.attach(setting.node("n2"), "c2")
    assert "10.244.1.0" in setting.cluster.endpoints
    await setting.collector.sweep()
    said = {pod.name: (reason, text) for pod, reason, text in setting.told}
    assert said.keys() == {"pod-of-c1", "pod-of-c2"}
    assert said["pod-of-c1"][0] == said["pod-of-c2"][0] == "AddressContested"
    assert "Delete this pod" in said["pod-of-c1"][1]
    assert "pod-of" not in said["pod-of-c1"][1] + said["pod-of-c2"][1]


async def test_no_address_is_given_before_the_sandboxes_were_compared_with_the_records(setting):
    addresses = NodeAddresses(
        setting.ipam,
        SimpleNamespace(),
        SimpleNamespace(event=lambda *event: None),
        synced=lambda: True,
        compared=lambda: setting.collector.compared,
    )
    with pytest.raises(AgentUnavailable, match="have not been compared"):
        await addresses.claim(Attachment("c9", "eth0"))
    await setting.collector.sweep()
    assert setting.collector.compared
