"""The datapath of one node as a whole: set up, verified and repaired. The one entry point for the layers above.

Everything here blocks on the kernel and is thread-safe; call it by asyncio.to_thread. It works on the calling thread's
network namespace. A restart loses nothing: what exists is adopted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from fast.datapath import sysctl
from fast.datapath.bpf.install import install
from fast.datapath.bpf.layout import (
    ClusterPod,
    Config,
    ConfigFlag,
    DevFlag,
    Device,
    EventSwitch,
    Kind,
    LocalDev,
    Metric,
    Routing,
)
from fast.datapath.bpf.links import Links
from fast.datapath.bpf.maps import LocalDevices, Metrics
from fast.datapath.bpf.objects import Object
from fast.datapath.bpf.pins import PinDirectory, pin
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.bpf.spec import AFTER_NAT, DATAPATH, FROM_UNDERLAY
from fast.datapath.cluster_map import ClusterTable, SyncResult
from fast.datapath.datapath_config import DatapathConfig
from fast.datapath.netlink import Link, Netlink, requests
from fast.datapath.node import forward
from fast.datapath.node.carving import carve
from fast.datapath.node.fast_path import FastPath
from fast.datapath.node.firewall import COUNTERS, Firewall, Ruleset
from fast.datapath.node.flow_table import FlowSweep, FlowTable, budget_of, entries_for, memory_bytes
from fast.datapath.node.routing import (
    ensure_node_routes,
    ensure_subnet_routes,
    find_connected,
    find_subnets,
    remove_rules,
    resolve_nodes,
)
from fast.datapath.node.tunnel import TUNNEL_DEVICE, Mtus, ensure_tunnel, find_underlay, find_ways_out
from fast.datapath.pod.device_programs import Attachments, DeviceKind
from fast.datapath.pod.endpoint import Endpoints
from fast.datapath.pod.identity import DEVICE_PREFIX, Endpoint, EndpointSpec, endpoint_of
from fast.datapath.pod.local_pods import LocalEntries
from fast.datapath.pod.retirement import GONE_GROUP, UNFINISHED_GROUP
from fast.datapath.policy.after_nat import PolicyLinks
from fast.datapath.policy.policy_maps import PolicyDatapath, in_batches, policy_map_sizes
from fast.datapath.repair import Repair, RepairKind
from fast.errors import DatapathError
from fast.net import IPAddress, IPNetwork, from_map_key
from fast.policy import Maps, SetClass, SetPod, Write

log = structlog.get_logger()


@dataclass(frozen=True)
class _Running:
    """What exists once the programs are loaded."""

    loaded: Object
    links: Links
    attachments: Attachments
    endpoints: Endpoints
    cluster: ClusterTable
    devices: LocalDevices
    metrics: Metrics
    flow_table: FlowTable
    entries: LocalEntries
    policy: PolicyDatapath | None


class NodeDatapath:
    """One node's datapath. Call :meth:`ensure` first."""

    def __init__(self, config: DatapathConfig) -> None:
        self.config = config
        self._pins = PinDirectory(config.bpf_dir)
        self._wanted_subnets = frozenset(config.pod_subnets)  # as told
        self._subnets = self._wanted_subnets  # without what the node reaches otherwise
        self._subnets_known = bool(config.pod_subnets)
        self._firewall = Firewall()
        self._fast_path = FastPath(config)
        self._running: _Running | None = None
        self._mtus: Mtus | None = None
        # Guards everything of the node as a whole, and is held while commands run for seconds. What must not wait for
        # them has locks of its own, taken inside: map writes, routes, flows; endpoints are made and removed beside it.
        self._lock = threading.RLock()
        self._cluster_lock = threading.Lock()
        self._routes_lock = threading.Lock()
        self._flows_lock = threading.Lock()

    # The node.

    def ensure(self) -> list[Repair]:
        """Set the node's datapath up, or adopt the one that runs. Running pods lose no packets.

        Returns:
            What had to be made or changed.

        Raises:
            FeatureUnsupported, VerifierError, LayoutMismatch, BPFError: The programs cannot be loaded or attached.
            DatapathError: No device has the node's address, the tunnel's port is taken, nft refuses, and the like.
        """
        with self._lock:
            if self._running is None:
                running = self._load()
                with Netlink() as netlink:
                    running.endpoints.drop_unfinished(netlink)
                    if not self._subnets_known:  # the API server may be away: what the node routes goes on
                        self._wanted_subnets = find_subnets(netlink)
                self._running = running
            return self._converge(self._running)

    def verify(self) -> list[Repair]:
        """Check devices, programs, entries, routes, rules and kernel parameters, and repair what differs.

        Returns:
            What was repaired; empty if nothing differed.

        Raises:
            DatapathError: As :meth:`ensure`.
        """
        repairs = self.ensure()
        for repair in repairs:
            log.warning("datapath repaired", kind=repair.kind, detail=repair.detail)
        return repairs

    def _load(self) -> _Running:
        """Put programs and maps into service."""
        config = self.config
        flows = config.max_flows or entries_for(memory_bytes())
        told = Config(
            node_ip=config.node_ip,
            node_ip6=config.node_ip6,
            tunnel_port=config.tunnel_port,
            vni=config.vni,
            routing=Routing.NATIVE if config.routing == "native" else Routing.VXLAN,
            events=EventSwitch.DROP | EventSwitch.NEW_FLOW | EventSwitch.SAMPLE,
            flags=ConfigFlag.BLOCK_METADATA if config.block_metadata else ConfigFlag.NONE,
            flow_budget=budget_of(flows),
        )
        spec = DATAPATH.configured(told).sized(
            fast_cluster_pods=config.max_cluster_entries,
            fast_flow_table=flows,
            **policy_map_sizes(wanted=config.network_policy),
        )
        loaded = install(spec, self._pins)
        links = Links(self._pins)
        entries = LocalEntries(loaded.local_pods, loaded.interfaces, policed=config.network_policy)
        policy = PolicyDatapath.start(self._pins, told) if config.network_policy else None
        if policy is None:
            entries.clear_policies()
            PolicyLinks(self._pins).detach()
        attachments = Attachments(links, loaded.programs)
        return _Running(
            loaded=loaded,
            links=links,
            attachments=attachments,
            endpoints=Endpoints(
                entries,
                attachments,
                config.node_ip,
                config.node_ip6,
            ),
            cluster=ClusterTable(
                loaded.cluster_pods, self._own_addresses(), config.node_ip, keep_classes=config.network_policy
            ),
            entries=entries,
            policy=policy,
            devices=loaded.local_devices,
            metrics=loaded.metrics,
            flow_table=FlowTable(
                loaded.flows, loaded.interfaces, loaded.flow_limits, loaded.local_pods, loaded.cluster_pods
            ),
        )

    def _own_addresses(self) -> list[IPAddress]:
        return [address for address in (self.config.node_ip, self.config.node_ip6) if address is not None]

    def _converge(self, running: _Running) -> list[Repair]:
        """Create or repair everything, in order of dependency."""
        repairs = self._ensure_pins(running)
        with Netlink() as netlink:
            underlay = find_underlay(netlink, self.config.node_ip)
            mtus = Mtus.of(self.config, underlay)
            tunnel, changed = ensure_tunnel(
                netlink,
                self.config,
                mtus,
                guard=lambda link: running.attachments.ensure(link.index, DeviceKind.TUNNEL),
            )
            repairs += changed
            repairs += self._ensure_programs(running, tunnel, underlay)
            flags = self._fast_path.flags(netlink, mtus)
            devices = {
                Device.TUNNEL: LocalDev(tunnel.index, mtus.tunnel, flags),
                Device.UNDERLAY: LocalDev(underlay.index, underlay.mtu),
            }
            repairs += self._ensure_devices(running, devices)
            self._mtus = mtus
            self._subnets = carve(self._wanted_subnets, netlink.routes(), lambda: self._pods(running))
            repairs += self._ensure_sysctls(find_ways_out(netlink, underlay))
            with self._routes_lock:
                repairs += self._ensure_routes(running, netlink, tunnel, mtus)
            repairs += self._ensure_firewall(find_connected(netlink))
            repairs += forward.ensure_forwarding()
            repairs += self._ensure_endpoints(running, netlink)
        return repairs

    def _ensure_pins(self, running: _Running) -> list[Repair]:
        """Pin again what somebody unpinned: this process still holds the maps that the programs use."""
        self._pins.ensure()
        lost = [name for name in running.loaded.maps if not (self._pins.maps / name).exists()]
        for name in lost:
            pin(running.loaded.maps[name].fd, self._pins.maps / name)
        for name, program in running.loaded.programs.items():
            if not (self._pins.programs / name).exists():
                pin(program.fd, self._pins.programs / name)
        return [Repair(RepairKind.PIN, f"map {name} was not pinned") for name in lost]

    def _ensure_programs(self, running: _Running, tunnel: Link, underlay: Link) -> list[Repair]:
        devices = [(tunnel, DeviceKind.TUNNEL)]
        if self.config.routing == "native":
            devices.append((underlay, DeviceKind.NATIVE_UNDERLAY))
        repairs = []
        for link, kind in devices:
            if missing := running.attachments.missing(link.index, kind):
                running.attachments.ensure(link.index, kind)
                repairs.append(Repair(RepairKind.PROGRAMS, f"{link.name}: {', '.join(missing)}; attached"))
        if running.policy is not None and (lost := running.policy.ensure()):
            repairs.append(Repair(RepairKind.PROGRAMS, f"{', '.join(lost)}: {AFTER_NAT}; attached"))
        wanted = underlay.index if self.config.routing == "native" else 0
        for attached in running.links.all():
            if attached.program == FROM_UNDERLAY and attached.ifindex != wanted:
                running.attachments.remove(attached.ifindex, DeviceKind.NATIVE_UNDERLAY)
        return repairs

    @staticmethod
    def _ensure_devices(running: _Running, wanted: Mapping[Device, LocalDev]) -> list[Repair]:
        repairs = []
        for role, device in wanted.items():
            if running.devices.get(role) != device:
                running.devices.put(role, device)
                way = "; programs may skip it" if device.flags & DevFlag.MAY_BE_SKIPPED else ""
                repairs.append(
                    Repair(RepairKind.LOCAL_DEV, f"{role.name.lower()} is device {device.ifindex} now{way}")
                )
        return repairs

    @staticmethod
    def _pods(running: _Running) -> list[IPAddress]:
        """Give the addresses of the cluster's pods that the maps have."""
        others = (item for item, entry in running.cluster.entries().items() if entry.kind is Kind.POD)
        return [*others, *(address for address, _ in running.loaded.local_pods.items())]

    def _ensure_sysctls(self, ways_out: Iterable[Link]) -> list[Repair]:
        names = [link.name for link in ways_out]
        ipv6 = any(subnet.version == 6 for subnet in self._subnets)  # noqa: PLR2004 -- IP version
        kept = sysctl.keeping_router_advertisements(DEVICE_PREFIX) if ipv6 else ()
        return sysctl.ensure([*kept, *sysctl.wanted(TUNNEL_DEVICE, names, ipv6=ipv6)])

    def _ensure_routes(self, running: _Running, netlink: Netlink, tunnel: Link, mtus: Mtus) -> list[Repair]:
        config = self.config
        sources = {net: config.node_ip if net.version == 4 else config.node_ip6 for net in self._subnets}  # noqa: PLR2004
        others = running.cluster.nodes.difference(self._own_addresses())
        underlay = running.devices.get(Device.UNDERLAY)
        if config.routing == "native" and underlay is not None:
            resolve_nodes(netlink, underlay.ifindex, others)
        return [
            *ensure_subnet_routes(netlink, tunnel, mtus, sources),
            *ensure_node_routes(netlink, tunnel, mtus, self._subnets, others),
        ]

    def _ensure_firewall(self, connected: frozenset[IPNetwork]) -> list[Repair]:
        ruleset = Ruleset(
            tunnel_port=self.config.tunnel_port,
            node_ip=self.config.node_ip,
            node_ip6=self.config.node_ip6,
            masquerade=self.config.masquerade,
            pod_subnets=self._subnets,
            connected=connected,
            native=self.config.routing == "native",
            block_metadata=self.config.block_metadata,
        )
        if self._firewall.apply(ruleset):
            return [Repair(RepairKind.FIREWALL, "the nftables table differed; written")]
        return []

    @staticmethod
    def _ensure_endpoints(running: _Running, netlink: Netlink) -> list[Repair]:
        gone = running.endpoints.reap(netlink)
        repaired = running.endpoints.repair(netlink)
        return [
            *(Repair(RepairKind.STALE_ENTRY, f"{address} had no device; removed") for address in gone),
            *(
                Repair(RepairKind.ENDPOINT, f"{item.host_device} of {item.container_id} repaired")
                for item in repaired
            ),
        ]

    def _follow_nodes(self, running: _Running) -> None:
        """Update the routes to nodes."""
        with self._routes_lock, Netlink() as netlink:
            tunnel = netlink.find_link(TUNNEL_DEVICE)
            if tunnel is not None and self._mtus is not None:  # else verify() makes both
                self._ensure_routes(running, netlink, tunnel, self._mtus)

    def set_pod_subnets(self, subnets: Iterable[IPNetwork]) -> None:
        """Set the networks of all pods. Their routes, masquerade and kernel parameters follow.

        What the node reaches otherwise (gateways, devices' own networks, narrower routes of others) is left out.

        Raises:
            DatapathError: As :meth:`ensure`.
        """
        with self._lock:
            self._wanted_subnets = frozenset(subnets)
            self._subnets_known = True
            if self._running is not None:
                self._converge(self._running)

    @property
    def pod_mtu(self) -> int:
        """The MTU that pods' interfaces get, in bytes."""
        if self._mtus is None:
            raise self._not_up()
        return self._mtus.pod

    @staticmethod
    def _not_up() -> DatapathError:
        return DatapathError("the node's datapath is not up yet")

    def _up(self) -> _Running:
        if self._running is None or self._mtus is None:
            raise self._not_up()
        return self._running

    # Endpoints.

    def attach(self, spec: EndpointSpec) -> Endpoint:
        """Make a pod's interface, whole or not at all. Idempotent: the same spec again changes nothing.

        Raises:
            NetnsGone: The pod's namespace does not exist.
            MapFull: The node has as many pods as the map holds.
            DatapathError: The kernel refused a step.
        """
        return self._up().endpoints.attach(spec, spec.mtu or self.pod_mtu)

    def detach(self, container_id: str, ifname: str) -> bool:
        """Remove a pod's interface, also when its namespace is gone. Idempotent.

        Afterwards nothing reaches the pod; the switched-off device itself is deleted a little later.

        Returns:
            Whether anything was there to remove.
        """
        return self._up().endpoints.detach(container_id, ifname)

    def check(self, spec: EndpointSpec) -> None:
        """Check that a pod's interface is complete.

        Raises:
            NetnsGone: The pod's namespace does not exist.
            DatapathError: Says everything that is missing or differs.
        """
        self._up().endpoints.check(spec)

    def endpoints(self) -> list[Endpoint]:
        """List this node's endpoints as the kernel has them."""
        with Netlink() as netlink:
            return self._up().endpoints.find_all(netlink)

    # The cluster.

    @contextlib.contextmanager
    def _changing_cluster(self) -> Iterator[ClusterTable]:
        """Lend the table, and update the routes to nodes afterwards if the set of nodes changed."""
        running = self._up()
        with self._cluster_lock:
            before = running.cluster.nodes
            try:
                yield running.cluster
            finally:
                changed = running.cluster.nodes != before
        if changed:
            self._follow_nodes(running)

    def upsert_cluster(self, entries: Iterable[tuple[IPAddress, ClusterPod]]) -> None:
        """Set addresses of the cluster, new or changed, in one batch.

        Raises:
            MapFull: The map has no room.
        """
        with self._changing_cluster() as cluster:
            cluster.upsert(entries)

    def remove_cluster(self, addresses: Iterable[IPAddress]) -> int:
        """Delete addresses of the cluster; give how many there were."""
        with self._changing_cluster() as cluster:
            return cluster.remove(addresses)

    def sync_cluster(self, entries: Mapping[IPAddress, ClusterPod]) -> SyncResult:
        """Make the cluster's map hold exactly these entries, writing only what differs.

        Raises:
            MapFull: Not even the nodes fit.
        """
        with self._changing_cluster() as cluster:
            return cluster.sync(entries)

    def cluster_entries(self) -> dict[IPAddress, ClusterPod]:
        """Read the cluster's map."""
        running = self._up()
        with self._cluster_lock:
            return running.cluster.entries()

    # Policy.

    def read_policy(self) -> Maps:
        """Read everything that policy has in the kernel's maps.

        Raises:
            DatapathError: NetworkPolicy is not switched on, or the datapath not up.
        """
        running = self._up()
        with self._cluster_lock:
            return self._policy(running).read(running.loaded)

    def apply_policy(self, writes: Iterable[Write]) -> None:
        """Carry out a plan's writes in order; what was written before a failure stays.

        Raises:
            MapFull: A map has no room.
            BPFError: The kernel refused.
        """
        running = self._up()
        policy = self._policy(running)
        for step in in_batches(writes):
            match step:
                case SetPod(key, pod_policy):
                    running.entries.set_policy(from_map_key(key), pod_policy)
                case SetClass(peer_class, keys):
                    with self._cluster_lock:
                        running.cluster.set_classes(peer_class, keys)
                case _:
                    policy.write(step)

    def forget_policy(self, keys: Iterable[bytes]) -> None:
        """Forget what policy said of addresses that are gone."""
        running = self._up()
        gone = list(keys)
        for key in gone:
            running.entries.forget_policy(from_map_key(key))
        with self._cluster_lock:
            running.cluster.forget_classes(gone)

    def keep_policy_classes(self, known: Callable[[bytes], bool]) -> None:
        """Forget the classes of addresses that policy does not know, as after a restart."""
        running = self._up()
        with self._cluster_lock:
            running.cluster.keep_classes(known)

    @staticmethod
    def _policy(running: _Running) -> PolicyDatapath:
        if running.policy is None:
            raise DatapathError("NetworkPolicy is not switched on")
        return running.policy

    # Looking and leaving.

    def counters(self) -> dict[tuple[Reason, PacketDirection], Metric]:
        """Read the programs' counters that are not zero."""
        return self._up().metrics.read()

    def sweep_flows(self) -> FlowSweep:
        """Delete expired flows, make room, set the pods' limits. To be called every few seconds.

        Raises:
            DatapathError: The datapath is not up, or a map cannot be read.
        """
        running = self._up()
        with self._flows_lock:
            return running.flow_table.sweep()

    def refused_by_firewall(self) -> dict[tuple[str, str], Metric]:
        """Count what the nftables table dropped, by the names of reason and direction.

        Raises:
            DatapathError: The datapath is not up, or nft refuses.
        """
        self._up()
        return {COUNTERS[name]: metric for name, metric in self._firewall.refused().items()}

    def clean(self) -> None:
        """Remove every trace from the node: endpoints, tunnel device, programs, maps, routes, rules. Idempotent.

        Kernel parameters stay as they are: their earlier values are not known, and others may rely on them.
        """
        with self._lock, Netlink() as netlink:
            for link in netlink.links("veth"):
                if endpoint_of(link) is not None or link.group in (GONE_GROUP, UNFINISHED_GROUP):
                    netlink.execute(requests.delete_link(link.index, link.name))
            if (tunnel := netlink.find_link(TUNNEL_DEVICE)) is not None:
                netlink.execute(requests.delete_link(tunnel.index, tunnel.name))
            remove_rules(netlink)
            links = Links(self._pins)
            for attached in links.all():
                links.detach(attached.ifindex, attached.direction, attached.program)
            PolicyLinks(self._pins).detach()
            self._pins.remove()
            self._firewall.remove()
            forward.remove_forwarding()
            if self._running is not None:
                self._running.loaded.close()
            self._running = self._mtus = None
