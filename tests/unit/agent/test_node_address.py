"""When a running agent concludes that its node has another address, and when not."""

from ipaddress import IPv4Address

import pytest

from fast.agent.app.fast_agent import main
from fast.agent.app.node_address import VARIABLE, AddressWatch, may_follow, prepare_restart
from fast.agent.config.agent_config import AgentConfig
from fast.api.core import Node, NodeAddress, NodeStatus
from fast.api.meta import ObjectMeta

OLD, NEW, OTHER = (IPv4Address(f"192.168.77.{host}") for host in (1, 21, 99))


class World:
    """A Node object and the addresses of its devices."""

    def __init__(self):
        self.nodes, self.here = {}, {OLD}
        self.watch = AddressWatch(OLD, "n1", self.nodes, is_here=lambda address: address in self.here)

    def listed(self, *addresses):
        found = [NodeAddress(type="InternalIP", address=str(address)) for address in addresses]
        self.nodes["n1"] = Node(metadata=ObjectMeta(name="n1"), status=NodeStatus(addresses=found))


@pytest.fixture
async def world():
    made = World()
    made.listed(OLD)
    assert await made.watch.look() is None
    return made


async def test_a_node_that_moved_is_followed_to_the_listed_address_that_a_device_has(world):
    world.listed(OTHER, NEW)
    world.here = {NEW}
    assert await world.watch.look() == NEW


async def test_a_node_object_that_changes_alone_moves_nothing(world):
    world.listed(NEW)
    world.here = {OLD, NEW}
    assert await world.watch.look() is None


async def test_a_device_that_lost_the_address_for_a_moment_moves_nothing(world):
    world.here = set()
    assert await world.watch.look() is None


async def test_a_listed_address_that_no_device_has_is_not_taken(world):
    world.listed(NEW)
    world.here = set()
    assert await world.watch.look() is None


async def test_an_address_that_the_node_object_never_listed_is_the_administrators():
    world = World()
    world.listed(NEW)
    world.here = {NEW}
    assert await world.watch.look() is None


async def test_nothing_is_known_while_there_is_no_node_object(world):
    world.nodes.clear()
    world.here = {NEW}
    assert await world.watch.look() is None


def configured(*flags):
    return AgentConfig(**main.make_context("fast-agent", ["--node-name=n1", *flags]).params)


def test_an_address_from_the_environment_is_followed_and_one_from_a_flag_is_not(monkeypatch):
    monkeypatch.setenv(VARIABLE, str(OLD))
    assert may_follow(configured())
    assert not may_follow(configured(f"--node-ip={OTHER}"))
    monkeypatch.delenv(VARIABLE)
    assert may_follow(configured())


def test_a_restart_has_the_new_address(monkeypatch):
    monkeypatch.setenv(VARIABLE, str(OLD))
    prepare_restart(NEW)
    assert configured().node_ip == NEW
