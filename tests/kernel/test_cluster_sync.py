"""The agent's feeding of the kernel's map of the cluster: changes, whole syncs, drift, and a map that is full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from fast.agent.app.agent import Agent as WholeAgent
from fast.agent.app.fast_agent import main
from fast.agent.config.agent_config import AgentConfig
from fast.agent.sync.cluster_judge import Refusal
from fast.agent.sync.cluster_sync import ClusterKnown, ClusterSync
from fast.api.fastnode import FastNode, FastNodeSpec
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.ips import Ips, IpsSpec
from fast.api.meta import ObjectMeta
from fast.datapath.bpf.layout import ClusterPod, Kind
from fast.datapath.bpf.objects import load
from fast.datapath.bpf.spec import DATAPATH
from fast.datapath.cluster_map import ClusterTable
from fast.kube import ClusterConfig, KubeClient
from kernel.lab import Machine

OWN = IPv4Address("192.168.77.1")
OTHER = IPv4Address("192.168.77.2")
FIRST = IPv4Address("10.0.0.0")
SECONDS = 30.0
MANY = 100_000


class KernelMap:
    """The map itself, as NodeDatapath gives it to the agent, without a node around it."""

    def __init__(self, machine: Machine, max_entries: int) -> None:
        spec = DATAPATH.sized(fast_cluster_pods=max_entries, fast_flow_table=1024, fast_events=1 << 16)
        self._object = machine.call(load, spec)
        self.entries = self._object.cluster_pods
        table = ClusterTable(self.entries, [OWN], OWN)
        self.upsert_cluster, self.remove_cluster, self.sync_cluster = table.upsert, table.remove, table.sync
        self.cluster_entries = table.entries
        self.counters, self.refused_by_firewall = self._object.metrics.read, dict

    def close(self) -> None:
        self.entries.close()
        self._object.close()


class Agent:
    """A ClusterSync with what the informers would know: a pool, and the nodes that records are bound to."""

    def __init__(self, cluster_map: KernelMap, check_interval_seconds: float = 3600) -> None:
        self.map = cluster_map.entries
        self.records: dict[str, IpEndpoint] = {}
        self.nodes: dict[str, FastNode] = {}
        self.pools = {POOL.metadata.name: POOL}
        self.reports: list[str] = []
        self.sync = ClusterSync(
            cluster_map,
            ClusterKnown(self.pools, self.nodes, self.records),
            report=self.reports.append,
            own_name="own",
            own_addresses=(OWN,),
            check_interval_seconds=check_interval_seconds,
        )
        self.join("other", str(OTHER))

    def join(self, name: str, *addresses: str) -> None:
        """A FastNode appears or changes, as the informer tells it."""
        old, new = self.nodes.get(name), node(name, *addresses)
        self.nodes[name] = new
        self.sync.node_changed(old, new)

    def leave(self, name: str) -> None:
        self.sync.node_changed(self.nodes.pop(name), None)

    def bind(self, address: IPv4Address, name: str = "other") -> None:
        """A record appears or moves, as the informer tells it."""
        old, new = self.records.get(str(address)), record(address, name)
        self.records[str(address)] = new
        self.sync.record_changed(old, new)

    def free(self, address: IPv4Address) -> None:
        self.sync.record_changed(self.records.pop(str(address)), None)

    def holds(self, address: IPv4Address, node_ip: IPv4Address | None = OTHER, kind: Kind = Kind.POD) -> bool:
        return self.map.get(address) == (None if node_ip is None else ClusterPod(node_ip, kind))

    async def __aenter__(self) -> Agent:
        self._task = asyncio.create_task(self.sync.run())
        await until(lambda: self.reports)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


POOL = Ips(metadata=ObjectMeta(name="pool"), spec=IpsSpec(subnet="10.0.0.0/8", ips=("10.0.0.0/8",)))


def record(address: IPv4Address, name: str = "other", pool: str = "pool") -> IpEndpoint:
    spec = IpEndpointSpec(pool=pool, node=name, container_id="c")
    return IpEndpoint(metadata=ObjectMeta(name=str(address)), spec=spec)


def node(name: str, *addresses: str) -> FastNode:
    return FastNode(metadata=ObjectMeta(name=name), spec=FastNodeSpec(addresses=addresses))


async def until(condition) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 -- the kernel tells nobody
            await asyncio.sleep(0.002)


@pytest.fixture(scope="module")
def machine():
    made = Machine("sync", workers=2)
    yield made
    made.close()


@pytest.fixture
def make(machine):
    made = []

    def make(max_entries: int = 1024, **options) -> Agent:
        made.append(KernelMap(machine, max_entries))
        return Agent(made[-1], **options)

    yield make
    for item in made:
        item.close()


async def test_a_change_is_in_the_map_soon_and_a_removed_record_is_not(make):
    async with make() as agent:
        agent.bind(FIRST)
        await until(lambda: agent.holds(FIRST))
        agent.bind(FIRST, "own")
        await until(lambda: agent.holds(FIRST, OWN))
        agent.free(FIRST)
        await until(lambda: agent.holds(FIRST, None))


async def test_a_retained_address_is_nobodys(make):
    async with make() as agent:
        agent.bind(FIRST)
        await until(lambda: agent.holds(FIRST))
        retained = IpEndpoint(metadata=ObjectMeta(name=str(FIRST)), spec=IpEndpointSpec(pool="pool"))
        agent.sync.record_changed(agent.records[str(FIRST)], retained)
        await until(lambda: agent.holds(FIRST, None))


async def test_a_node_that_replaces_another_keeps_the_address_that_both_had_when_the_old_one_goes(make):
    async with make() as agent:
        agent.join("old", "192.168.77.3", "fd77::3")
        agent.join("new", "192.168.77.3")
        machine = IPv4Address("192.168.77.3")
        await until(lambda: agent.holds(machine, machine, Kind.NODE))
        agent.leave("old")
        await until(lambda: agent.map.get(IPv6Address("fd77::3")) is None)
        assert agent.holds(machine, machine, Kind.NODE)
        agent.leave("new")
        await until(lambda: agent.holds(machine, None))


async def test_a_nodes_addresses_are_tunnel_endpoints_for_as_long_as_it_has_a_fastnode(make):
    async with make() as agent:
        await until(lambda: agent.holds(OTHER, OTHER, Kind.NODE))
        agent.leave("other")
        await until(lambda: agent.holds(OTHER, None))
        assert agent.holds(OWN, OWN, Kind.NODE)


async def test_a_nodes_changed_address_moves_all_of_its_pods_within_a_second(make):
    count = 1000
    async with make(max_entries=4 * count) as agent:
        for number in range(count):
            agent.bind(FIRST + number)
        await until(lambda: all(agent.holds(FIRST + number) for number in range(count)))
        moved, began = IPv4Address("192.168.77.22"), time.monotonic()
        agent.join("other", str(moved))
        await until(lambda: all(agent.holds(FIRST + number, moved) for number in range(count)))
        assert time.monotonic() - began < 1
        assert agent.holds(OTHER, None), "the address that the node had before leads nowhere"
        assert agent.holds(moved, moved, Kind.NODE)


async def test_a_record_outside_its_pool_is_in_no_map_and_makes_no_node_unready(make):
    foreign = IPv4Address("8.8.8.8")
    async with make() as agent:
        agent.bind(foreign)
        agent.bind(FIRST)
        await until(lambda: agent.holds(FIRST))
        assert agent.holds(foreign, None)
        await until(lambda: Refusal.OUTSIDE_POOL in agent.sync.refusals)
        assert agent.sync.refusals[Refusal.OUTSIDE_POOL].examples == (str(foreign),)
        assert set(agent.reports) == {""}
        labels = {"reason": "record-outside-pool"}
        assert REGISTRY.get_sample_value("fast_cluster_refused", labels) == 1


async def test_what_somebody_else_changed_in_the_map_is_repaired_and_counted(make):
    labels = {"kind": "cluster-entry"}
    before = REGISTRY.get_sample_value("fast_datapath_repairs_total", labels) or 0.0
    async with make(check_interval_seconds=0.05) as agent:
        for address in (FIRST, FIRST + 2):
            agent.bind(address)
        await until(lambda: agent.holds(FIRST) and agent.holds(FIRST + 2))
        agent.map.delete(FIRST)
        agent.map.put(FIRST + 1, ClusterPod(OTHER))
        agent.map.put(FIRST + 2, ClusterPod(OWN))
        await until(lambda: agent.holds(FIRST) and agent.holds(FIRST + 1, None) and agent.holds(FIRST + 2))
        await until(lambda: REGISTRY.get_sample_value("fast_datapath_repairs_total", labels) == before + 3)


async def test_changes_under_way_are_never_taken_for_drift(make):
    labels = {"kind": "cluster-entry"}
    before = REGISTRY.get_sample_value("fast_datapath_repairs_total", labels)
    async with make(check_interval_seconds=0.001) as agent:
        for number in range(200):
            agent.bind(FIRST + number)
            await asyncio.sleep(0.001)
        await until(lambda: all(agent.holds(IPv4Address(name)) for name in agent.records))
    assert REGISTRY.get_sample_value("fast_datapath_repairs_total", labels) == before


async def test_a_full_map_leaves_out_pods_and_never_a_node_until_there_is_room(make):
    async with make(max_entries=16) as agent:
        for number in range(40):
            agent.bind(FIRST + number)
        await until(lambda: Refusal.NO_ROOM in agent.sync.refusals)
        agent.join("late", "192.168.77.9")
        late = IPv4Address("192.168.77.9")
        await until(lambda: agent.holds(late, late, Kind.NODE))
        assert agent.holds(OTHER, OTHER, Kind.NODE)
        assert agent.holds(OWN, OWN, Kind.NODE)
        assert set(agent.reports) == {""}, "a full map makes no node unready"
        for number in range(30):
            agent.free(FIRST + number)
        await until(lambda: Refusal.NO_ROOM not in agent.sync.refusals)
        assert all(agent.holds(FIRST + number) for number in range(30, 40))


async def test_pods_that_are_in_a_full_map_stay_and_later_ones_are_left_out(make):
    async with make(max_entries=16) as agent:
        for number in range(20, 34):  # with the two nodes, as many as fit
            agent.bind(FIRST + number)
        await until(lambda: all(agent.holds(FIRST + number) for number in range(20, 34)))
        for number in range(10):
            agent.bind(FIRST + number)
        await until(lambda: Refusal.NO_ROOM in agent.sync.refusals)
        assert agent.sync.refusals[Refusal.NO_ROOM].count == 10
        assert all(agent.holds(FIRST + number) for number in range(20, 34))


async def test_what_the_map_held_before_a_restart_counts_though_the_pool_was_edited(machine):
    with contextlib.closing(KernelMap(machine, 1024)) as kept:
        async with Agent(kept) as agent:
            agent.bind(FIRST)
            await until(lambda: agent.holds(FIRST))
        again = Agent(kept)
        again.records[str(FIRST)] = record(FIRST)
        again.records[str(FIRST + 1)] = record(FIRST + 1)
        again.pools["pool"] = Ips(metadata=POOL.metadata, spec=IpsSpec(subnet="172.16.0.0/16"))
        async with again:
            assert again.holds(FIRST), "a running pod is not cut off"
            assert again.holds(FIRST + 1, None), "a record that was never accepted gains nothing"


async def test_pods_of_a_node_whose_agent_is_older_stay_reachable_until_it_is_upgraded(machine):
    with contextlib.closing(KernelMap(machine, 1024)) as kept:
        kept.upsert_cluster([(FIRST, ClusterPod(OTHER)), (OTHER, ClusterPod(OTHER, Kind.NODE))])
        agent = Agent(kept)
        agent.nodes.clear()
        agent.records[str(FIRST)] = record(FIRST)
        async with agent:
            assert agent.holds(FIRST)
            assert agent.holds(OTHER, None), "a Node without FastNode is no tunnel endpoint"
            agent.join("other", "192.168.77.22")
            await until(lambda: agent.holds(FIRST, IPv4Address("192.168.77.22")))


async def test_a_full_map_leaves_the_agent_ready(machine, monkeypatch):
    monkeypatch.setattr("fast.agent.app.agent.REGISTRY", CollectorRegistry())
    config = AgentConfig(**main.make_context("fast-agent", ["--node-name=n1"]).params)
    client = KubeClient(ClusterConfig("http://127.0.0.1:9"))  # nobody is there, and nobody is asked
    with contextlib.closing(KernelMap(machine, 16)) as full:
        monkeypatch.setattr("fast.agent.app.agent.NodeDatapath", lambda _: full)
        agent = WholeAgent(config, OWN, client)
        agent._cluster._known = ClusterKnown(
            {"pool": POOL}, {"other": node("other", str(OTHER))}, records := {}
        )
        records |= {str(FIRST + number): record(FIRST + number) for number in range(40)}
        running = asyncio.create_task(agent._cluster.run())
        await until(lambda: "cluster-map" not in agent._not_ready())
        (problem,) = agent._own_node.cluster_problems()
        assert problem.check == "cluster-map"
        assert "26 addresses do not count (no-room-in-the-map)" in problem.problem
        running.cancel()
        await asyncio.wait([running])
    await client.close()


@contextlib.asynccontextmanager
async def measured() -> AsyncIterator[dict[str, float]]:
    """Measure what the block takes: this process's CPU (all its threads), and how late the event loop is meanwhile."""
    found: dict[str, float] = {}
    lags = [0.0]

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            lags.append(time.monotonic() - began - 0.001)

    ticking = asyncio.create_task(tick())
    began = time.process_time()
    yield found
    found["CPU seconds"] = time.process_time() - began
    ticking.cancel()
    found["lag at the 99th percentile"] = sorted(lags)[len(lags) * 99 // 100]
    found["longest lag"] = max(lags)


def better(tries: list[dict[str, float]]) -> dict[str, float]:
    """Give the better figure of each: other processes only make them worse."""
    return {name: min(each[name] for each in tries) for name in tries[0]}


async def test_writing_and_comparing_100_000_entries_is_cheap_and_leaves_the_event_loop_responsive(make):
    records = {str(FIRST + n): record(FIRST + n, f"node-{n % 100}") for n in range(MANY)}
    nodes = {f"node-{n}": node(f"node-{n}", str(OTHER + n)) for n in range(100)}
    fills, comparisons = [], []
    for _ in range(2):
        agent = make(max_entries=2 * MANY)
        agent.records.update(records)
        agent.nodes.clear()
        agent.nodes.update(nodes)
        async with measured() as fill, agent:
            pass
        assert len(agent.map) == MANY + 100 + 1
        assert agent.holds(FIRST + MANY - 1, OTHER + (MANY - 1) % 100)
        async with agent:
            agent.reports.clear()
            async with measured() as comparison:
                agent.sync.resync()
                await until(lambda agent=agent: agent.reports)
        assert agent.reports == [""]
        fills.append(fill)
        comparisons.append(comparison)
    for what, tries in (("first fill", fills), ("comparison with a full map", comparisons)):
        figures = better(tries)
        print(f"{MANY} entries, {what}:", ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
        assert figures["CPU seconds"] < 1, what
        assert figures["longest lag"] < 0.5, what
