"""The agent's own FastNode, written to the embedded API server: when, what, and against whom."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from fast.agent.readiness import Readiness
from fast.agent.sync.fast_node import FastNodeWriter, settings_problems
from fast.api.crds import manifests
from fast.api.fastnode import FastNode, FastNodeSpec, NodeProblem, Tunnel
from fast.api.meta import ObjectMeta
from fast.api.resources import FASTNODES
from fast.errors import NotFound
from fast.kube import ClusterConfig, Informer, KubeClient
from unit.apiserver.process import running

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SPEC = FastNodeSpec(
    node_uid="uid",
    boot_id="boot",
    addresses=("192.168.77.1", "fd77::1"),
    routing="vxlan",
    tunnel=Tunnel(port=8479, vni=1),
    pod_mtu=1450,
    version="0.1.0",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("apiserver")) as made:
        client = made.client()
        for definition in manifests().values():
            assert client.post(_DEFINITIONS, definition).status == 201
        client.close()
        yield made


class Node:
    """A writer with what it is told, and the object as the server has it."""

    def __init__(self, client, name):
        self.client, self.name = client, name
        self.readiness = Readiness("datapath", "api-server")
        self.spec, self.pods, self.problems = SPEC, 0, []
        self.informer = Informer(client, FASTNODES)
        self.writer = FastNodeWriter(
            client,
            name,
            self.informer.cache.get,
            self.readiness,
            spec=lambda: self.spec,
            pods=lambda: self.pods,
            problems=lambda: self.problems,
            status_seconds=0.3,
        )
        self.informer.add_handler(
            lambda change: self.writer.changed(change.new) if change.current.metadata.name == name else None
        )

    async def until(self, holds):
        async with asyncio.timeout(20):
            while True:
                try:
                    found = await self.client.get(FASTNODES, self.name)
                except NotFound:
                    found = None
                if found is not None and found.status and holds(found):
                    return found
                await asyncio.sleep(0.01)


@pytest.fixture
def join(server):
    @asynccontextmanager
    async def join(name, spec=SPEC):
        async with KubeClient(ClusterConfig.load(server.kubeconfig)) as client:
            node = Node(client, name)
            node.spec = spec
            tasks = [asyncio.create_task(node.informer.run())]
            await node.informer.wait_synced()
            tasks.append(asyncio.create_task(node.writer.run()))
            try:
                yield node
                assert not any(task.done() for task in tasks), "neither ends by itself"
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    return join


def condition(found, kind):
    (one,) = [item for item in found.status.conditions if item.type == kind]
    return one


async def test_a_node_says_what_it_is_and_becomes_ready_at_once_when_its_conditions_are_met(join):
    async with join("ready") as node:
        found = await node.until(lambda found: found.spec == SPEC)
        assert condition(found, "Ready").status == "False"
        assert "datapath: " in condition(found, "Ready").message
        node.readiness.met("datapath")
        node.readiness.met("api-server")
        found = await node.until(lambda found: condition(found, "Ready").status == "True")
        assert condition(found, "ApiServer").status == "True"
        node.readiness.missing("api-server", "it cannot be reached")
        found = await node.until(lambda found: condition(found, "Ready").status == "False")
        assert condition(found, "ApiServer").message == "it cannot be reached"
        assert condition(found, "Datapath").status == "True"


async def test_a_changed_address_is_written_at_once(join):
    async with join("moves") as node:
        await node.until(lambda found: found.spec == SPEC)
        node.spec = FastNodeSpec(addresses=("192.168.77.22",), version="0.1.0")
        node.writer.wake()
        await node.until(lambda found: found.spec.addresses == ("192.168.77.22",))


async def test_who_else_changes_or_deletes_the_object_is_overruled(join):
    async with join("edited") as node:
        await node.until(lambda found: found.spec == SPEC)
        await node.client.patch(FASTNODES, "edited", {"spec": {"addresses": ["10.244.0.5"]}})
        await node.until(lambda found: found.spec == SPEC)
        await node.client.delete(FASTNODES, "edited")
        await node.until(lambda found: found.spec == SPEC)


async def test_before_the_datapath_is_up_the_addresses_of_before_stay(join):
    async with join("restarts") as node:
        await node.until(lambda found: found.spec == SPEC)
    async with join("restarts", FastNodeSpec(version="0.2.0")) as node:
        found = await node.until(lambda found: found.spec.version == "0.2.0")
        assert found.spec.addresses == SPEC.addresses


async def test_a_new_node_has_no_address_before_its_datapath_is_up(join):
    async with join("fresh", FastNodeSpec(version="0.1.0")) as node:
        found = await node.until(lambda found: condition(found, "Ready").status == "False")
        assert found.spec.addresses == ()


async def test_pods_and_problems_are_written_with_their_number_but_not_at_each_change(join):
    async with join("busy") as node:
        await node.until(lambda found: found.spec == SPEC)
        writes = 0

        def count(change):
            nonlocal writes
            writes += change.current.metadata.name == "busy"

        node.informer.add_handler(count)
        began = asyncio.get_running_loop().time()
        node.problems = [NodeProblem(check="c", severity="warning", problem=f"p{n}") for n in range(100)]
        for node.pods in range(1, 51):
            node.writer.wake()
            await asyncio.sleep(0.01)
        found = await node.until(lambda found: found.status.pod_count == 50)
        took = asyncio.get_running_loop().time() - began
        assert writes <= took / 0.3 + 2
        assert (found.status.problem_count, len(found.status.problems)) == (100, 64)


def other(name, **changes):
    spec = FastNodeSpec(
        addresses=("192.168.77.2",),
        routing=changes.get("routing", "vxlan"),
        tunnel=Tunnel(port=changes.get("port", 8479), vni=changes.get("vni", 1)),
    )
    return FastNode(metadata=ObjectMeta(name=name), spec=spec)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 4789}, "the tunnel's port is 8479 here, but differs on n2 (4789)"),
        ({"vni": 7}, "the tunnel's VNI is 1 here, but differs on n2 (7)"),
        ({"routing": "native"}, "routing is vxlan here, but differs on n2 (native)"),
    ],
)
def test_settings_that_differ_are_a_problem_named_on_both_nodes(change, words):
    nodes = [other("n1"), other("n2", **change)]
    (problem,) = settings_problems("n1", nodes)
    assert (problem.check, problem.severity) == ("tunnel-settings", "error")
    assert words in problem.problem
    (problem,) = settings_problems("n2", nodes)
    assert "differs on n1" in problem.problem


def test_nodes_that_agree_and_nodes_that_are_not_up_are_no_problem():
    assert (
        settings_problems("n1", [other("n1"), other("n2"), FastNode(metadata=ObjectMeta(name="new"))]) == []
    )
