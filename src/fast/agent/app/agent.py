"""The agent as a whole: creates the parts, connects them, starts and stops them in order.

Order of a start: first the socket (DEL leaves tombstones, ADD and STATUS say what is missing); then side by side the
datapath and the API server's view; then the map of the cluster, the tombstones, garbage collection; last the network
configuration.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import REGISTRY

from fast import __version__
from fast.agent.app.node_address import (
    AddressWatch,
    ask_node_ip,
    look_for_ipv6,
    may_follow,
    prepare_restart,
)
from fast.agent.app.own_node import OwnNode, peers_of
from fast.agent.app.process_limits import raise_descriptor_limit
from fast.agent.app.systemd import notify
from fast.agent.cni import cni_server, installation, tombstone_replay
from fast.agent.cni.cni_server import CniServer
from fast.agent.cni.installation import Installation, Place
from fast.agent.cni.node_pods import NodePods
from fast.agent.cni.pod_addresses import NodeAddresses, reference_of
from fast.agent.cni.tombstone_replay import TombstoneReplay
from fast.agent.cni.tombstones import Tombstones
from fast.agent.config.agent_config import AgentConfig
from fast.agent.config.interval import Interval
from fast.agent.config.reload import Reloader
from fast.agent.node import keeper
from fast.agent.node.flow_keeper import FlowKeeper
from fast.agent.node.installed_checks import RUNNING_CHECKS
from fast.agent.node.keeper import DatapathKeeper
from fast.agent.node.kernel_parameters import ensure_writable
from fast.agent.node.node_checks import NodeFacts, examine
from fast.agent.node.packet_metrics import PacketCollector
from fast.agent.node.path_checks import PATH_CHECKS
from fast.agent.node.problem_watch import ProblemWatch, missing_pool_problems
from fast.agent.policy.policy_part import PolicyPart
from fast.agent.readiness import Readiness
from fast.agent.see.seeing import Seeing
from fast.agent.sync import contact
from fast.agent.sync.agent_gc import AgentCollector
from fast.agent.sync.auditor import Auditor
from fast.agent.sync.cluster_sync import ClusterKnown, ClusterSync
from fast.agent.sync.contact import Contact
from fast.agent.sync.fast_node import lean
from fast.agent.sync.network_sync import NetworkSync
from fast.agent.sync.service_networks import read_service_networks
from fast.api.core import Node, ObjectReference
from fast.api.fastnode import FastNode
from fast.api.ipendpoint import PodRef
from fast.api.resources import FASTNODES, NAMESPACES, NODES, PODS
from fast.cni import Verbs
from fast.datapath.node.node_datapath import NodeDatapath
from fast.datapath.node.state_reading import read_node_state
from fast.ipam import Ipam, IpamMetrics, KubeStore, NodeIdentity
from fast.ipam.store.record_store import EndpointChange, PoolChange
from fast.kube import Change, ClusterConfig, EventRecorder, Informer, KubeClient
from fast.logs import configure_logs
from fast.probes import ProbeServer

log = structlog.get_logger()

_CLUSTER_MAP = "cluster-map"
#: Concurrent calls into the kernel: attaching a program waits for an RCU grace period, not for the processor.
_THREADS = 32
_TOMBSTONE_SECONDS = 5.0


async def run_agent(
    config: AgentConfig, read_again: Callable[[], AgentConfig], file: Path | None = None
) -> bool:
    """Run the agent until SIGTERM or SIGINT, or until the node has another address; the datapath stays when it ends.

    Args:
        config: Its configuration.
        read_again: Reads it again, on SIGHUP and if the file changed; raises click.ClickException if it is not valid.
        file: The file that it comes from, if there is one.

    Returns:
        Whether to start again, as the environment has the node's new address now.

    Raises:
        InvalidConfig: The configuration cannot be used; nothing was changed on the node.
    """
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="fast"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hangup = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    cluster = ClusterConfig.load(config.kubeconfig)
    log.info("fast-agent starts", version=__version__, node=config.node_name, api_server=cluster.server)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(KubeClient(cluster, user_agent=f"fast-agent/{__version__}"))
        node_ip = config.node_ip or await ask_node_ip(client, config.node_name, stop)
        if node_ip is None:
            return False
        ensure_writable()
        if config.node_ip6 is None:
            config = replace(config, node_ip6=await asyncio.to_thread(look_for_ipv6, node_ip))
        agent = Agent(config, node_ip, client)
        reloading = asyncio.create_task(Reloader(config, read_again, agent.apply, hangup, file=file).run())
        try:
            await agent.run(stop)
        finally:
            await _cancel([reloading])
    if agent.moved_to is not None:
        prepare_restart(agent.moved_to)
        return True
    log.info("fast-agent has stopped; the datapath stays")
    return False


class Agent:
    """Every part of the agent, connected.

    Attributes:
        moved_to: The node's new address, if :meth:`run` ended because of it.
    """

    def __init__(self, config: AgentConfig, node_ip: IPv4Address, client: KubeClient) -> None:
        """Make the parts, each from those before it. Nothing is started."""
        self._config = config
        self._client = client
        self._gc_interval = Interval(config.gc_interval_seconds)
        self._make_readiness()
        self._make_views(node_ip)
        self._make_datapath(node_ip)
        self._make_own_node(node_ip)
        self._make_address_management()
        self._make_policy()
        self._make_cni()
        self._make_servers()

    def _make_readiness(self) -> None:
        """What stands in the way of taking pods, and the files that tell the container runtime."""
        config = self._config
        self.readiness = Readiness(
            keeper.CONDITION,
            contact.CONDITION,
            _CLUSTER_MAP,
            tombstone_replay.CONDITION,
            tombstone_replay.DISK_CONDITION,
            cni_server.CONDITION,
            installation.CONDITION,
        )
        place = Place(
            binary_dir=config.cni_bin_dir,
            config_dir=config.cni_conf_dir,
            plugin=config.install_plugin,
            conflist=config.install_conflist,
        )
        self._installation = Installation(
            place, self.readiness, partial(self._tell_node, "InstallationRestored")
        )

    def _make_views(self, node_ip: IPv4Address) -> None:
        """What is read from the API server, and the Events written to it."""
        config, client = self._config, self._client
        self._events = EventRecorder(client, "fast-agent", host=config.node_name)
        self._store = KubeStore(client)
        self._nodes = Informer(client, NODES)
        self._fast_nodes = Informer(client, FASTNODES, transform=partial(lean, config.node_name))
        self._namespaces = Informer(client, NAMESPACES)
        self._pods = Informer(client, PODS, field_selector=f"spec.nodeName={config.node_name}")
        self._synced = asyncio.Event()
        self._address = AddressWatch(node_ip, config.node_name, self._nodes.cache)
        self.moved_to: IPv4Address | None = None

    def _make_datapath(self, node_ip: IPv4Address) -> None:
        """What keeps the kernel as the cluster says."""
        config = self._config
        self._keeper = DatapathKeeper(
            NodeDatapath(config.datapath(node_ip)),
            self.readiness,
            verify_interval_seconds=config.verify_interval_seconds,
            came_up=self._datapath_came_up,
        )
        datapath = self._keeper.datapath
        REGISTRY.register(PacketCollector(datapath.counters, datapath.refused_by_firewall))
        self._addresses = tuple(item for item in (node_ip, config.node_ip6) if item is not None)
        self._known = ClusterKnown(
            self._store.pools, self._fast_nodes.cache, self._store.endpoints, self._nodes.cache
        )
        self._cluster = ClusterSync(
            datapath,
            self._known,
            report=self._cluster_map_reported,
            own_name=config.node_name,
            own_addresses=self._addresses,
        )
        servers = (urlsplit(self._client.config.server).hostname, os.environ.get("KUBERNETES_SERVICE_HOST"))
        self._networks = NetworkSync(
            self._known, self._cluster, self._keeper.set_pod_subnets, filter(None, servers)
        )

    def _make_own_node(self, node_ip: IPv4Address) -> None:
        """What this node says of itself: its FastNode, and its problems."""
        config, client = self._config, self._client
        self._own_node = OwnNode(
            config,
            client,
            self._known,
            nodes=self._nodes.cache,
            keeper=self._keeper,
            cluster=self._cluster,
            readiness=self.readiness,
            problems=lambda: self._problems.problems,
        )
        self._problems = ProblemWatch(
            partial(examine, self._facts(node_ip), RUNNING_CHECKS | PATH_CHECKS),
            lambda: [*self._own_node.cluster_problems(), *missing_pool_problems(self._store.pools)],
            self._tell_node,
            changed=self._own_node.writer.wake,
        )

    def _make_address_management(self) -> None:
        """What claims, releases and compares addresses."""
        config = self._config
        self._pod_view = NodePods(self._client, self._pods, self._namespaces)
        metrics = IpamMetrics(REGISTRY)
        identity = NodeIdentity(config.node_name, self._own_node.boot_id)
        self._ipam = Ipam(self._store, identity, pods=self._pod_view, metrics=metrics)
        self._auditor = Auditor(
            config.node_name,
            self._store.endpoints.values,
            self._fast_nodes.cache.values,
            partial(read_node_state, config.bpf_dir / "maps"),
            metrics,
        )
        self._collector = AgentCollector(self._ipam, self._keeper, self._warn)
        self._ipam.on_lost(self._collector.record_lost)

    def _make_policy(self) -> None:
        """What enforces NetworkPolicies, if that is asked for."""
        config, client = self._config, self._client
        self._policy: PolicyPart | None = None
        if config.network_policy:
            self._policy = PolicyPart(
                client,
                self._store,
                (self._nodes, self._fast_nodes, self._pods, self._namespaces),
                self._keeper.datapath,
                self._events,
                own_name=config.node_name,
                own_addresses=self._addresses,
            )

    def _make_cni(self) -> None:
        """What serves the container runtime."""
        config = self._config
        tombstones = Tombstones(config.state_dir / "tombstones")
        verbs = Verbs(
            addresses=NodeAddresses(
                self._ipam,
                self._pod_view,
                self._events,
                synced=self._synced.is_set,
                compared=lambda: self._collector.compared,
            ),
            datapath=self._keeper,
            collector=self._collector,
            tombstones=tombstones,
            readiness=self.readiness,
            locks=self._ipam.locks,
            policies=self._policy.sync if self._policy is not None else None,
        )
        self._replay = TombstoneReplay(tombstones, verbs.carry_out_tombstone, self.readiness)
        self._server = CniServer(config.socket, verbs.dispatch)

    def _make_servers(self) -> None:
        """What serves people and probes, and what knows whether the API server answers."""
        config, client = self._config, self._client
        self._http = ProbeServer(
            config.http_address,
            self._not_ready,
            self._ipam.update_gauges,
            metrics_token_file=config.metrics_token_file,
        )
        self._seeing = Seeing(
            config.bpf_dir / "maps",
            config.socket.parent,
            self._store.endpoints,
            lambda pod, message: self._events.event(pod, "Warning", "PacketsDropped", message),
            REGISTRY,
        )
        self._contact = Contact(
            (
                self._store.endpoint_informer,
                self._store.pool_informer,
                self._nodes,
                self._fast_nodes,
                self._pods,
                self._namespaces,
                *([self._policy.informer] if self._policy is not None else []),
            ),
            self.readiness,
            ask=partial(client.get, NODES, config.node_name),
            synced=self._synced.set,
        )

    def _warn(self, pod: PodRef, reason: str, text: str) -> None:
        """Record a Warning event on a pod; nothing if nobody knows which."""
        if pod.name:
            self._events.event(reference_of(pod), "Warning", reason, text)

    def apply(self, config: AgentConfig) -> None:
        """Apply the settings of ``fast.agent.config.reload.LIVE``; the others stay as they were."""
        configure_logs(config.log_level, config.log_format)
        self._gc_interval.change(config.gc_interval_seconds)
        self._keeper.set_verify_interval(config.verify_interval_seconds)

    def _not_ready(self) -> str:
        unmet = self.readiness.unmet()
        return unmet.reason if unmet else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set.

        Raises:
            InvalidConfig: The socket or the port cannot be used; nothing was changed on the node.
        """
        await self._http.start()
        try:
            await self._server.start()
            tasks = [
                asyncio.create_task(self._work(), name="agent"),
                asyncio.create_task(stop.wait(), name="stop"),
                asyncio.create_task(self._follow_address(), name="address"),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                notify("STOPPING=1")
                await self._server.stop()
                await self._events.close()
                await _cancel(tasks)
            if not stop.is_set() and self.moved_to is None:
                tasks[0].result()  # a bug ended the work: raise it
        finally:
            await self._http.stop()

    async def _follow_address(self) -> None:
        """Return when the node has another address; never if a flag or a file fixes it."""
        if not may_follow(self._config):
            await asyncio.Future()
        self.moved_to = await self._address.wait()
        log.warning("the node has another address: starting again with it", address=str(self.moved_to))

    async def _work(self) -> None:
        """Run everything but the sockets, for ever."""
        self._nodes.add_handler(self._node_changed)
        self._fast_nodes.add_handler(self._fast_node_changed)
        self._store.subscribe(
            self._record_changed,
            self._pool_changed,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store.run())
            for informer in (self._nodes, self._fast_nodes, self._pods, self._namespaces):
                group.create_task(informer.run())
            if self._policy is not None:
                group.create_task(self._policy.informer.run())
            group.create_task(self._own_node.run(self._synced))
            group.create_task(self._contact.run())
            group.create_task(self._problems.run())
            group.create_task(self._server.keep(self._socket_reported, self._socket_restored))
            group.create_task(self._keeper.run())
            group.create_task(FlowKeeper(self._keeper.up, self._keeper.datapath.sweep_flows).run())
            group.create_task(self._when_everything_is_known(group))
            group.create_task(self._installation.run(self._installed))

    async def _when_everything_is_known(self, group: asyncio.TaskGroup) -> None:
        """Start what needs all of the cluster's state."""
        await self._synced.wait()
        self._networks.start()
        await self._keeper.up.wait()
        group.create_task(self._seeing.run())
        self._cluster.set_services(await read_service_networks(self._client))
        group.create_task(self._cluster.run())
        if self._policy is not None:
            group.create_task(self._policy.run())
        group.create_task(self._replay.run(_TOMBSTONE_SECONDS))
        group.create_task(self._collector.run(self._gc_interval))
        group.create_task(self._auditor.run(self._gc_interval))

    def _installed(self) -> None:
        notify("READY=1")
        log.info("fast-agent is ready")

    def _socket_reported(self, problem: str) -> None:
        if problem:
            self.readiness.missing(cni_server.CONDITION, problem)
        else:
            self.readiness.met(cni_server.CONDITION)

    def _socket_restored(self) -> None:
        self._tell_node("SocketRestored", f"{self._config.socket} had been removed, and was made again")

    def _facts(self, node_ip: IPv4Address) -> NodeFacts:
        config = self._config
        return NodeFacts(
            node_ip=node_ip,
            tunnel_port=config.tunnel_port,
            bpf_dir=config.bpf_dir,
            cni_bin_dir=config.cni_bin_dir,
            cni_conf_dir=config.cni_conf_dir,
            state_dir=config.state_dir,
            socket_path=config.socket,
            pod_mtu=config.pod_mtu,
            peers=lambda: peers_of(config.node_name, list(self._fast_nodes.cache.values())),
            clock_ahead_seconds=self._client.clock_ahead_seconds,
        )

    def _tell_node(self, reason: str, message: str, *, normal: bool = False) -> None:
        """Record an Event on this Node. Node Events carry the Node's name as its UID, as kubelet's do."""
        name = self._config.node_name
        about = ObjectReference("Node", name, uid=name, api_version="v1")
        self._events.event(about, "Normal" if normal else "Warning", reason, message)

    def _datapath_came_up(self) -> None:
        self._cluster.resync()
        self._own_node.writer.wake()

    def _fast_node_changed(self, change: Change[FastNode]) -> None:
        self._cluster.node_changed(change.old, change.new)
        addresses = change.new.find_addresses() if change.new is not None else ()
        self._ipam.reserve(f"FastNode {change.current.metadata.name}", addresses)
        if change.current.metadata.name == self._config.node_name:
            self._own_node.writer.changed(change.new)
        elif change.old is None or change.new is None or change.old.spec != change.new.spec:
            self._own_node.writer.wake()
            self._networks.nodes_changed()

    def _cluster_map_reported(self, problem: str) -> None:
        if problem:
            self.readiness.missing(_CLUSTER_MAP, problem, limited_connectivity=True)
        else:
            self._networks.cluster_judged()
            self.readiness.met(_CLUSTER_MAP)
            self._own_node.writer.wake()

    def _node_changed(self, change: Change[Node]) -> None:
        name = change.current.metadata.name
        self._ipam.reserve(f"node {name}", change.new.addresses if change.new is not None else ())
        if change.new is not None and change.new.metadata.name == self._config.node_name:
            self._ipam.node = replace(self._ipam.node, labels=change.new.metadata.labels)
            self._own_node.writer.wake()

    def _pool_changed(self, change: PoolChange) -> None:
        self._cluster.pool_changed(change.old, change.new)
        self._networks.pool_changed(change.old, change.new)

    def _record_changed(self, change: EndpointChange) -> None:
        self._cluster.record_changed(change.old, change.new)
        if self._policy is not None:
            self._policy.record_changed(change)
        self._networks.record_changed(change.old, change.new)
        self._seeing.holders.record_changed(change.old, change.new)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
