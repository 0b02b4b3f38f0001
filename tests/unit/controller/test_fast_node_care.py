"""FastNodes whose agent is silent, on the embedded API server."""

from __future__ import annotations

import contextlib

import pytest

from fast.api.core import Lease, Node
from fast.api.crds import manifests
from fast.api.fastnode import FastNode, FastNodeSpec
from fast.api.meta import Condition, ObjectMeta
from fast.api.resources import FASTNODES, LEASES
from fast.controller.fast_node_care import FastNodeCare
from fast.errors import NotFound
from fast.kube import ClusterConfig, KubeClient
from unit.apiserver.process import running

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("apiserver")) as made:
        client = made.client()
        for definition in manifests().values():
            assert client.post(_DEFINITIONS, definition).status == 201
        client.close()
        yield made


@pytest.fixture
async def world(server):
    """A client, the FastNodes n1 and n2 with Leases, the Nodes, and how long each is silent."""
    async with KubeClient(ClusterConfig.load(server.kubeconfig)) as client:
        found = World(client)
        for name in ("n1", "n2"):
            await found.join(name)
        yield found
        for name in ("n1", "n2"):
            for delete in (found.delete_node(name), client.delete(LEASES, f"fast-node-{name}", "default")):
                with contextlib.suppress(NotFound):
                    await delete


class World:
    def __init__(self, client):
        self.client = client
        self.fast_nodes = {}
        self.nodes = {}
        self.silent = {}
        self.care = FastNodeCare(
            client, "default", self.fast_nodes, self.nodes, lambda name: self.silent.get(name, 0.0)
        )

    async def join(self, name):
        made = FastNode(metadata=ObjectMeta(name=name), spec=FastNodeSpec(addresses=("192.168.77.1",)))
        await self.client.create(FASTNODES, made)
        ready = Condition(
            type="Ready", status="True", reason="Met", last_transition_time="2026-01-01T00:00:00Z"
        )
        other = Condition(
            type="Datapath", status="True", reason="Met", last_transition_time="2026-01-01T00:00:00Z"
        )
        patch = {"status": {"conditions": [ready, other], "podCount": 3, "problemCount": 0, "problems": []}}
        self.fast_nodes[name] = await self.client.patch(FASTNODES, name, patch, subresource="status")
        await self.client.create(
            LEASES, Lease(metadata=ObjectMeta(name=f"fast-node-{name}", namespace="default"))
        )
        self.nodes[name] = Node(metadata=ObjectMeta(name=name))

    async def delete_node(self, name):
        await self.client.delete(FASTNODES, name)

    async def get(self, name):
        self.fast_nodes[name] = await self.client.get(FASTNODES, name)
        return self.fast_nodes[name]


def conditions(node):
    return {item.type: (item.status, item.reason) for item in node.status.conditions}


async def test_a_silent_nodes_readiness_is_unknown_and_everything_else_stays(world):
    world.silent = {"n1": 61.0, "n2": 59.0}
    await world.care.sweep()
    silent, heard = await world.get("n1"), await world.get("n2")
    assert conditions(silent) == {"Ready": ("Unknown", "HeartbeatSilent"), "Datapath": ("True", "Met")}
    assert (silent.status.pod_count, silent.spec.addresses) == (3, ("192.168.77.1",))
    assert conditions(heard)["Ready"] == ("True", "Met")
    await world.care.sweep()
    again = await world.get("n1")
    assert again.metadata.resource_version == silent.metadata.resource_version, "nothing is written twice"


async def test_a_fastnode_goes_with_its_lease_once_its_node_is_gone_and_its_agent_silent(world):
    del world.nodes["n1"]
    await world.care.sweep()
    assert await world.get("n1"), "an agent that beats is no evidence of a node that is gone"
    world.silent = {"n1": 61.0}
    await world.care.sweep()
    with pytest.raises(NotFound):
        await world.get("n1")
    with pytest.raises(NotFound):
        await world.client.get(LEASES, "fast-node-n1", "default")
    assert await world.get("n2")


async def test_a_fastnode_that_its_agent_wrote_meanwhile_is_left_alone(world):
    del world.nodes["n1"]
    world.silent = {"n1": 61.0, "n2": 61.0}
    await world.client.patch(
        FASTNODES, "n1", {"spec": {"version": "newer"}}
    )  # unseen by the controller so far
    await world.care.sweep()
    assert (await world.get("n1")).spec.version == "newer"
    assert conditions(await world.get("n2"))["Ready"] == ("Unknown", "HeartbeatSilent"), "the others go on"
