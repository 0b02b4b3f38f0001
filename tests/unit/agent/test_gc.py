"""What the runtime's GC takes down."""

from types import SimpleNamespace

import pytest

from fast.agent.cni.conflist import NETWORK
from fast.agent.sync.agent_gc import AgentCollector
from fast.errors import NetlinkError
from fast.ipam import AttachmentLocks


def attachment(container_id, ifname="eth0"):
    return SimpleNamespace(container_id=container_id, ifname=ifname, interface=ifname, addresses=())


class Node:
    """Records and sandboxes of a node, as the collector sees both."""

    def __init__(self, records=(), sandboxes=()):
        self.ledger = SimpleNamespace(mine=lambda: [SimpleNamespace(spec=item) for item in records])
        self.endpoints = lambda: list(sandboxes)
        self.detached, self.released = [], []
        self.refused = set()

    def detach(self, *key):
        if key in self.refused:
            raise NetlinkError("refused")
        self.detached.append(key)
        return True

    async def release(self, *key):
        self.released.append(key)
        return ()

    def collector(self, locks=None):
        self.locks = locks or AttachmentLocks()
        return AgentCollector(self, self)


async def test_what_is_not_listed_is_unwired_and_released_and_the_rest_stays():
    node = Node(records=[attachment("a"), attachment("b")], sandboxes=[attachment("a"), attachment("c")])
    await node.collector().collect(NETWORK, frozenset({("a", "eth0")}))
    assert node.detached == node.released == [("b", "eth0"), ("c", "eth0")]


async def test_interfaces_of_one_container_are_told_apart():
    node = Node(records=[attachment("a"), attachment("a", "net1")])
    await node.collector().collect(NETWORK, frozenset({("a", "net1")}))
    assert node.released == [("a", "eth0")]


async def test_a_call_in_flight_is_left_alone():
    node, locks = Node(records=[attachment("a")]), AttachmentLocks()
    async with locks.hold(("a", "eth0")):
        await node.collector(locks).collect(NETWORK, frozenset())
    assert node.released == []


async def test_an_address_is_not_released_while_the_kernel_keeps_the_interface_and_the_others_are():
    node = Node(records=[attachment("a"), attachment("b")])
    node.refused = {("a", "eth0")}
    with pytest.raises(NetlinkError):
        await node.collector().collect(NETWORK, frozenset())
    assert node.released == [("b", "eth0")]


async def test_the_gc_of_another_network_takes_nothing_down():
    node = Node(records=[attachment("a")], sandboxes=[attachment("a"), attachment("a", "net1")])
    await node.collector().collect("second", frozenset({("a", "net1")}))
    assert node.detached == node.released == []
