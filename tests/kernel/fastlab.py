"""Nodes that run Fast's datapath, and pods on them, on top of the lab. What an agent does, tests do by hand here."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, ParamSpec, TypeVar

from fast.datapath.bpf.layout import ClusterPod, Kind
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.datapath_config import DatapathConfig, RoutingMode
from fast.datapath.node.node_datapath import NodeDatapath
from fast.datapath.pod.identity import Endpoint, EndpointSpec
from fast.net import IPAddress
from kernel.lab import Machine, Sandbox, Underlay, eventually, node_ip, underlay

P = ParamSpec("P")
T = TypeVar("T")

POD_SUBNETS = (ip_network("10.244.0.0/16"), ip_network("fd00:244::/64"))
_CONTAINERS = itertools.count(1)
#: What grows at any time by neighbour discovery and MLD, whatever is tested.
_LINK_CHATTER = (
    (Reason.STACK_LINK_LOCAL, PacketDirection.FROM_POD),
    (Reason.STACK_TO_POD, PacketDirection.TO_POD),
    (Reason.DROP_NOT_UNICAST, PacketDirection.TO_OVERLAY),
)


@dataclass
class Pod:
    """A pod on a node: its sandbox and its endpoint."""

    node: Node
    name: str
    sandbox: Sandbox
    spec: EndpointSpec
    endpoint: Endpoint

    @property
    def ip(self) -> IPv4Address:
        """Its IPv4 address."""
        return next(a for a in self.spec.addresses if isinstance(a, IPv4Address))

    @property
    def ip6(self) -> IPv6Address:
        """Its IPv6 address."""
        return next(a for a in self.spec.addresses if isinstance(a, IPv6Address))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function inside the pod."""
        return self.sandbox.call(function, *args, **kwargs)

    def run(self, command: str, **options: Any) -> str:
        """Run a shell script inside the pod."""
        return self.sandbox.run(command, **options)

    def start(self, *argv: str) -> Any:
        """Start a process inside the pod."""
        return self.sandbox.start(*argv)


@dataclass
class Node:
    """A machine with Fast's datapath on it."""

    machine: Machine
    ip: IPv4Address
    ip6: IPv6Address
    config: DatapathConfig
    datapath: NodeDatapath
    pods: list[Pod] = field(default_factory=list)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function on the node."""
        return self.machine.call(function, *args, **kwargs)

    def run(self, command: str, **options: Any) -> str:
        """Run a shell script on the node."""
        return self.machine.run(command, **options)

    def start(self, *argv: str) -> Any:
        """Start a process on the node."""
        return self.machine.start(*argv)

    def attach(self, name: str, *addresses: str, container: str = "", mtu: int | None = None) -> Pod:
        """Make a sandbox, and Fast's endpoint in it."""
        container = container or f"c{next(_CONTAINERS):063d}"
        sandbox = self.machine.sandbox(name)
        spec = EndpointSpec(container, "eth0", sandbox.path, tuple(map(ip_address, addresses)), mtu)
        endpoint = self.call(self.datapath.attach, spec)
        pod = Pod(self, name, sandbox, spec, endpoint)
        self.pods.append(pod)
        return pod

    def detach(self, pod: Pod) -> None:
        """Remove the pod as a runtime does: endpoint, then sandbox."""
        self.call(self.datapath.detach, pod.spec.container_id, pod.spec.ifname)
        pod.sandbox.delete()
        self.pods.remove(pod)

    def restart(self) -> NodeDatapath:
        """Go on with a new NodeDatapath, as a restarted agent does, with the config as it is now."""
        self.datapath = NodeDatapath(self.config)
        self.call(self.datapath.ensure)
        return self.datapath

    def count(self, reason: Reason, direction: PacketDirection | None = None) -> int:
        """Give how many packets were counted under the reason."""
        counters = self.call(self.datapath.counters)
        return sum(m.packets for (r, d), m in counters.items() if r is reason and direction in (None, d))


@dataclass
class Cluster:
    """Nodes n1, n2, … at 192.168.77.1, .2, …, and a machine outside the cluster at 192.168.77.100."""

    net: Underlay
    nodes: list[Node]
    outside: Machine
    outside_ip: IPv4Address

    @property
    def pods(self) -> list[Pod]:
        """Every pod."""
        return [pod for node in self.nodes for pod in node.pods]

    def entries(self) -> dict[IPAddress, ClusterPod]:
        """Give what every node's map of the cluster should hold."""
        found: dict[IPAddress, ClusterPod] = {}
        for node in self.nodes:
            found[node.ip] = found[node.ip6] = ClusterPod(node.ip, Kind.NODE)
            for pod in node.pods:
                found.update({address: ClusterPod(node.ip, Kind.POD) for address in pod.spec.addresses})
        return found

    def sync(self) -> None:
        """Tell every node about every pod and node."""
        for node in self.nodes:
            node.call(node.datapath.sync_cluster, self.entries())

    def reboot(self, node: Node) -> None:
        """Take the node's machine away with everything on it, and bring another one up in its place.

        As after a reboot: the same NIC and addresses, and the runtime makes the pods' sandboxes again.
        """
        self.net.leave(node.machine)
        node.machine = _join(self.net, self.nodes.index(node) + 1)
        node.restart()
        for pod in node.pods:
            pod.sandbox = node.machine.sandbox(pod.name)
            pod.spec = replace(pod.spec, netns_path=pod.sandbox.path)
            pod.endpoint = node.call(node.datapath.attach, pod.spec)
        self.sync()


def counted(
    nodes: Iterable[Node], action: Callable[P, object], *args: P.args, **kwargs: P.kwargs
) -> list[dict[tuple[Reason, PacketDirection], int]]:
    """Do it, and give by how many packets which counts of each node grew, but for what kernels say by themselves.

    The last packets may still be under way when the action returns: waits until nothing grows any more.
    """

    def look() -> list[dict[tuple[Reason, PacketDirection], int]]:
        found = [node.call(node.datapath.counters) for node in nodes]
        return [{key: metric.packets for key, metric in each.items()} for each in found]

    seen = [before := look()]
    action(*args, **kwargs)
    eventually(lambda: seen.append(look()) or seen[-1] == seen[-2])
    pairs = zip(before, seen[-1], strict=True)
    grown = [{key: packets - old.get(key, 0) for key, packets in new.items()} for old, new in pairs]
    return [{key: n for key, n in each.items() if n and key not in _LINK_CHATTER} for each in grown]


def ip_of(place: Pod | Node, version: int) -> IPAddress:
    """Give the address of that IP version."""
    return place.ip if version == 4 else place.ip6


def _join(net: Underlay, number: int, prepare: Callable[[Machine], None] | None = None) -> Machine:
    """Make the machine of node ``number``, without Fast."""
    machine = net.join(f"n{number}", number)
    machine.run("ip route add default via 192.168.77.100; ip -6 route add default via fd77::64")
    if prepare is not None:
        prepare(machine)
    return machine


@contextlib.contextmanager
def cluster(
    nodes: int = 2,
    routing: RoutingMode = "vxlan",
    mtu: int = 1500,
    prepare: Callable[[Machine], None] | None = None,
) -> Iterator[Cluster]:
    """Make a cluster without pods.

    Args:
        nodes: How many.
        routing: Of all nodes.
        mtu: Of the underlay.
        prepare: Is called with each node's machine before Fast comes to it.
    """
    with underlay(mtu) as net:
        made: list[Node] = []
        for number in range(1, nodes + 1):
            machine = _join(net, number, prepare)
            config = DatapathConfig(
                node_name=machine.name,
                node_ip=node_ip(number),
                node_ip6=IPv6Address(f"fd77::{number:x}"),
                pod_subnets=POD_SUBNETS,
                routing=routing,
                max_cluster_entries=4096,
            )
            datapath = NodeDatapath(config)
            machine.call(datapath.ensure)
            assert config.node_ip6 is not None
            made.append(Node(machine, config.node_ip, config.node_ip6, config, datapath))
        outside = net.join("outside", 100, workers=8)
        found = Cluster(net, made, outside, node_ip(100))
        found.sync()
        yield found


def attach_pods(made: Cluster, per_node: int) -> Sequence[Pod]:
    """Put dual-stack pods on every node: 10.244.N.M and fd00:244::N:M, M from 10, and tell all nodes."""
    for number, node in enumerate(made.nodes, 1):
        for index in range(10, 10 + per_node):
            node.attach(f"p{number}-{index}", f"10.244.{number}.{index}", f"fd00:244::{number}:{index}")
    made.sync()
    return made.pods
