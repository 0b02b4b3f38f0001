"""Random worlds: few names and addresses, so that things meet; every construct of both APIs, unreadable ones too."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st

from fast.api.clusternetworkpolicy import (
    ClusterEgressRule,
    ClusterIngressRule,
    ClusterNetworkPolicy,
    ClusterNetworkPolicySpec,
    ClusterPeer,
    ClusterProtocol,
    NamespacedPod,
    Port,
    PortRange,
    ProtocolMatch,
    Subject,
)
from fast.api.meta import LabelSelector, LabelSelectorRequirement, ObjectMeta
from fast.api.networkpolicy import (
    IPBlock,
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from fast.policy import Capacity
from fast.policy.policy_objects import NamedPort, Packet
from fast.policy.rule_groups import ref_of
from unit.policy.node import Node

NAMESPACES = ("x", "y", "z")
KEYS, VALUES = ("pod", "tier"), ("a", "b", "")
LOCALS = ("10.0.0.1", "10.0.0.2", "10.0.0.9")
REMOTES = ("10.0.0.65", "10.0.1.1", "10.0.1.130", "fd00::1:5")
NODES = ("192.168.0.1", "192.168.0.2")
OUTSIDE = ("1.2.3.4", "10.0.9.9", "fd00::9")
EVERYBODY = (*LOCALS, "fd00::2", *REMOTES, *NODES, *OUTSIDE)
BLOCKS = (
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.64/26",
    "10.0.1.128/25",
    "10.0.1.1/32",
    "::/0",
    "fd00::/112",
)
BLOCKS += ("192.168.0.0/31", "fd00::1:0/120", "10.0.0.0/33", "::ffff:10.0.0.0/104")
PORT_NAMES = ("http", "dns")
PORTS = (79, 80, 81, 8080, 65535)

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)
named_ports = st.lists(
    st.builds(NamedPort, st.sampled_from(PORT_NAMES), st.sampled_from((6, 17)), st.sampled_from(PORTS)),
    max_size=2,
    unique=True,
).map(tuple)

requirements = st.one_of(
    st.builds(
        LabelSelectorRequirement,
        st.sampled_from(KEYS),
        st.sampled_from(("In", "NotIn")),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=2).map(tuple),
    ),
    st.builds(LabelSelectorRequirement, st.sampled_from(KEYS), st.sampled_from(("Exists", "DoesNotExist"))),
)
odd_requirements = st.sampled_from(
    (
        LabelSelectorRequirement("pod", "Gt", ("1",)),
        LabelSelectorRequirement("pod", "In", ()),
        LabelSelectorRequirement("pod", "Exists", ("a",)),
    )
)


def selectors(odd: bool = True):
    some = st.one_of(*[requirements] * 9, odd_requirements) if odd else requirements
    return st.builds(
        LabelSelector,
        st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=1),
        st.lists(some, max_size=1).map(tuple),
    )


blocks = st.builds(IPBlock, st.sampled_from(BLOCKS), st.lists(st.sampled_from(BLOCKS), max_size=2).map(tuple))
np_peers = st.one_of(
    st.builds(
        NetworkPolicyPeer, pod_selector=st.none() | selectors(), namespace_selector=st.none() | selectors()
    ),
    st.builds(NetworkPolicyPeer, ip_block=blocks),
)
np_ports = st.builds(
    NetworkPolicyPort,
    st.sampled_from((None, None, "TCP", "UDP", "SCTP", "ICMP", "")),
    st.none() | st.sampled_from(PORTS) | st.sampled_from(PORT_NAMES) | st.sampled_from((0, 65536)),
    st.none() | st.none() | st.sampled_from((80, 81, 65535)),
)


def tuples(strategy, most=2):
    return st.lists(strategy, max_size=most).map(tuple)


def meta(name: str, namespace: str = "", audit: bool = False) -> ObjectMeta:
    annotations = {"fast.io/policy-mode": "audit"} if audit else {}
    return ObjectMeta(name=name, namespace=namespace, annotations=annotations)


audits = st.sampled_from((False, False, False, True))
network_policies = st.builds(
    lambda name, namespace, spec, audit: NetworkPolicy(metadata=meta(name, namespace, audit), spec=spec),
    st.sampled_from(("p", "q", "r")),
    st.sampled_from(NAMESPACES),
    st.builds(
        NetworkPolicySpec,
        selectors(),
        tuples(st.builds(NetworkPolicyIngressRule, tuples(np_ports), tuples(np_peers))),
        tuples(st.builds(NetworkPolicyEgressRule, tuples(np_ports), tuples(np_peers))),
        st.sampled_from(((), ("Ingress",), ("Egress",), ("Ingress", "Egress"), ("Both",))),
    ),
    audits,
)

pods = st.builds(NamespacedPod, selectors(), selectors())
ingress_peers = st.one_of(
    st.builds(ClusterPeer, namespaces=selectors()), st.builds(ClusterPeer, pods=pods), st.just(ClusterPeer())
)
egress_peers = st.one_of(
    ingress_peers,
    st.builds(ClusterPeer, nodes=selectors()),
    st.builds(ClusterPeer, networks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=2).map(tuple)),
    st.just(ClusterPeer(domain_names=("example.org",))),
)
cluster_ports = st.builds(
    Port, number=st.none() | st.sampled_from((*PORTS, 0)), range=st.none() | st.just(PortRange(79, 81))
)
matches = st.builds(ProtocolMatch, st.none() | cluster_ports)
protocols = st.one_of(
    st.builds(ClusterProtocol, tcp=matches),
    st.builds(ClusterProtocol, udp=matches),
    st.builds(ClusterProtocol, destination_named_port=st.sampled_from(PORT_NAMES)),
)
actions = st.sampled_from(("Accept", "Deny", "Pass", "Accept", "Deny", "Pass", "Log"))


def some(strategy):
    return st.lists(strategy, min_size=1, max_size=2).map(tuple)


cluster_policies = st.builds(
    lambda name, spec, audit: ClusterNetworkPolicy(metadata=meta(name, "", audit), spec=spec),
    st.sampled_from(("c", "d", "e")),
    st.builds(
        ClusterNetworkPolicySpec,
        st.sampled_from(("Admin", "Baseline")),
        st.integers(0, 2),
        st.one_of(st.builds(Subject, namespaces=selectors()), st.builds(Subject, pods=pods)),
        tuples(st.builds(ClusterIngressRule, actions, st.just(""), some(ingress_peers), tuples(protocols))),
        tuples(st.builds(ClusterEgressRule, actions, st.just(""), some(egress_peers), tuples(protocols))),
    ),
    audits,
)
policies = st.lists(
    network_policies | cluster_policies, max_size=5, unique_by=lambda policy: str(ref_of(policy))
)

PACKETS = [
    Packet(ip_address(source), ip_address(destination), protocol, port)
    for source in EVERYBODY
    for destination in EVERYBODY
    if (source in (*LOCALS, "fd00::2") or destination in (*LOCALS, "fd00::2"))
    and (":" in source) == (":" in destination)
    for protocol, port in ((6, 80), (6, 81), (6, 8080), (6, 65535), (17, 80), (17, 79), (132, 80), (1, 0))
]
PACKETS += [Packet(ip_address(source), ip_address("10.0.0.1"), 6, 80, from_own_node=True) for source in NODES]


@st.composite
def nodes(draw) -> Node:
    """A node with its pods, other nodes' pods and namespaces; no policies yet."""
    node = Node()
    for name in NAMESPACES:
        node.namespace(name, draw(labels), audit=draw(st.sampled_from((False, False, False, True))))
    for index, address in enumerate(LOCALS):
        addresses = (address, "fd00::2") if index == 1 else (address,)
        node.local(f"l{index}", draw(st.sampled_from(NAMESPACES)), draw(labels), addresses, draw(named_ports))
    for address in REMOTES:
        node.remote(address, draw(st.sampled_from(NAMESPACES)), draw(labels), draw(named_ports))
    for index, address in enumerate(NODES):
        node.node(address, f"n{index}", draw(labels))
    return node


def change(data, node: Node) -> str:
    """Let one thing happen; give what."""
    what = data.draw(
        st.sampled_from(
            ("policy", "no policy", "remote", "remote gone", "namespace", "local", "node", "local gone")
        )
    )
    match what:
        case "policy":
            node.policy(data.draw(network_policies | cluster_policies))
        case "no policy":
            if node.world.policies:
                node.unpolicy(data.draw(st.sampled_from(node.world.policies)))
        case "remote":
            address = data.draw(st.sampled_from(REMOTES))
            ports = data.draw(named_ports)
            node.remote(address, data.draw(st.sampled_from(NAMESPACES)), data.draw(labels), ports)
        case "remote gone":
            node.remote_gone(data.draw(st.sampled_from(REMOTES)))
        case "namespace":
            audit = data.draw(st.sampled_from((False, False, True)))
            node.namespace(data.draw(st.sampled_from(NAMESPACES)), data.draw(labels), audit=audit)
        case "local":
            pod = data.draw(st.sampled_from(node.world.pods)) if node.world.pods else None
            if pod is not None:
                node.local(
                    pod.name, pod.namespace, data.draw(labels), map(str, pod.addresses), pod.named_ports
                )
        case "local gone":
            if node.world.pods:
                node.local_gone(data.draw(st.sampled_from(node.world.pods)))
        case "node":
            address = data.draw(st.sampled_from(NODES))
            node.node(address, "n", data.draw(labels))
    return what


def deny_all(namespace: str, name: str = "deny-all", **selector: str) -> NetworkPolicy:
    """A policy that isolates pods in both directions."""
    spec = NetworkPolicySpec(LabelSelector(selector), policy_types=("Ingress", "Egress"))
    return NetworkPolicy(metadata=meta(name, namespace), spec=spec)


def with_capacity(node: Node, capacity: Capacity) -> Node:
    """The same objects on a node whose maps have other sizes."""
    other = Node(capacity)
    other.world, other.maps.nodes = node.world, node.maps.nodes
    for namespace in node.world.namespaces.values():
        other.tables.set_namespace(namespace)
    for pod in node.world.pods:
        other.tables.set_local_pod(pod)
    for item in node.world.remote:
        other.tables.set_address(item)
    for item in node.world.nodes:
        other.tables.set_node_address(item)
    return other
