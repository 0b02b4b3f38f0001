"""This node's FastNode and heartbeat: connects the writer with the parts of the agent that know what it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from fast import __version__
from fast.agent.config.agent_config import AgentConfig
from fast.agent.node.keeper import DatapathKeeper
from fast.agent.readiness import Readiness
from fast.agent.sync.cluster_sync import ClusterKnown, ClusterSync, refusal_problems
from fast.agent.sync.fast_node import FastNodeWriter, settings_problems
from fast.api.core import Node
from fast.api.fastnode import HEARTBEAT_SECONDS, FastNode, FastNodeSpec, NodeProblem, Tunnel, lease_name
from fast.kube import Heartbeat, KubeClient

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class OwnNode:
    """What this node says of itself. :meth:`run` writes it until cancelled.

    Attributes:
        boot_id: The boot that the node runs.
    """

    def __init__(
        self,
        config: AgentConfig,
        client: KubeClient,
        known: ClusterKnown,
        *,
        nodes: Mapping[str, Node],
        keeper: DatapathKeeper,
        cluster: ClusterSync,
        readiness: Readiness,
        problems: Callable[[], Sequence[NodeProblem]],
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            config: The agent's.
            client: Speaks to the server.
            known: What the informers know.
            nodes: The Node objects.
            keeper: Knows whether the datapath is up.
            cluster: Knows this node's addresses, which of its records count, and what is refused.
            readiness: The readiness conditions.
            problems: Gives everything that the node's checks found.
        """
        self._config = config
        self._known = known
        self._addresses = tuple(map(str, cluster.own_addresses))
        self.boot_id = BOOT_ID.read_text().strip()
        self._nodes = nodes
        self._keeper = keeper
        self._cluster = cluster
        self.writer = FastNodeWriter(
            client,
            config.node_name,
            known.nodes.get,
            readiness,
            spec=self._spec,
            pods=self._count_pods,
            problems=problems,
        )
        self._heartbeat = Heartbeat(
            client,
            config.namespace,
            lease_name(config.node_name),
            f"{config.node_name}/{self.boot_id}",
            interval_seconds=HEARTBEAT_SECONDS,
        )

    async def run(self, synced: asyncio.Event) -> None:
        """Beat at once; write the FastNode from when the first lists are there."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeat.run())
            await synced.wait()
            group.create_task(self.writer.run())

    def _spec(self) -> FastNodeSpec:
        """Say what the node is. Without addresses while the datapath is not up: nobody can tunnel here yet."""
        config, node = self._config, self._nodes.get(self._config.node_name)
        up = self._keeper.up.is_set()
        return FastNodeSpec(
            node_uid=node.metadata.uid if node is not None else "",
            boot_id=self.boot_id,
            addresses=self._addresses if up else (),
            routing=config.routing,
            tunnel=Tunnel(port=config.tunnel_port, vni=config.vni),
            pod_mtu=self._keeper.datapath.pod_mtu if up else 0,
            version=__version__,
        )

    def _count_pods(self) -> int:
        names = self._cluster.names_of(self._config.node_name)
        records = filter(None, map(self._known.records.get, names))
        return len({record.spec.pod.uid for record in records})

    def cluster_problems(self) -> list[NodeProblem]:
        """Give what is wrong between nodes: settings that differ, and addresses that do not count."""
        return [
            *settings_problems(self._config.node_name, self._known.nodes.values()),
            *refusal_problems(self._cluster.refusals),
        ]


def peers_of(own: str, nodes: Iterable[FastNode]) -> list[tuple[str, IPv4Address]]:
    """Return name and underlay address of every other node that says a valid one."""
    found = []
    for node in nodes:
        address = next((text for text in node.spec.addresses if "." in text), None)
        if node.metadata.name == own or address is None:
            continue
        with contextlib.suppress(ValueError):
            found.append((node.metadata.name, IPv4Address(address)))
    return found
