"""What policies mean, by reading the API's text on the objects, one packet at a time: slow, and on purpose naive.

Tests compare the compiled maps with it. It shares nothing with the compiler but the API's types and the values of
``objects``; selectors, blocks, ports and tiers are read here a second time.

Sources: the comments of ``networking.k8s.io/v1`` and ``policy.networking.k8s.io/v1alpha2``; design §6 for hairpins and
the own node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network, ip_network

from fast.api.clusternetworkpolicy import (
    ClusterEgressRule,
    ClusterIngressRule,
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterProtocol,
)
from fast.api.meta import LabelSelector
from fast.api.networkpolicy import (
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from fast.net.address import IPAddress
from fast.policy.policy_objects import (
    PROTOCOLS,
    Direction,
    LocalPod,
    Namespace,
    NodeAddress,
    Packet,
    PodAddress,
)

Policy = NetworkPolicy | ClusterNetworkPolicy


@dataclass(slots=True)
class World:
    """All objects at one moment."""

    namespaces: dict[str, Namespace] = field(default_factory=dict)
    pods: list[LocalPod] = field(default_factory=list)
    remote: list[PodAddress] = field(default_factory=list)
    nodes: list[NodeAddress] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)

    def find_local(self, address: IPAddress) -> LocalPod | None:
        """The pod of this node that has the address."""
        return next((pod for pod in self.pods if address in pod.addresses), None)

    def find_pod(self, address: IPAddress) -> PodAddress | None:
        """What is known of a pod's address, on whatever node."""
        local = self.find_local(address)
        if local is not None:
            return PodAddress(address, local.namespace, local.labels, local.named_ports)
        return next((pod for pod in self.remote if pod.address == address), None)

    def find_node(self, address: IPAddress) -> NodeAddress | None:
        """The node that has the address."""
        return next((node for node in self.nodes if node.address == address), None)


class Unreadable(Exception):
    """Something in a policy means nothing."""


def allows(world: World, packet: Packet) -> bool:
    """Whether the packet may pass: both of its ends' pods must agree."""
    return allows_direction(world, packet, Direction.EGRESS) and allows_direction(
        world, packet, Direction.INGRESS
    )


def allows_direction(world: World, packet: Packet, direction: Direction, *, audited: bool = False) -> bool:
    """Whether the pod whose direction it is lets the packet pass. ``audited``: as if all policies were enforced."""
    ingress = direction is Direction.INGRESS
    subject = world.find_local(packet.destination if ingress else packet.source)
    if subject is None:
        return True
    exempt = packet.source == packet.destination or (ingress and packet.from_own_node)
    policies = [policy for policy in world.policies if audited or not _only_audited(world, policy)]
    cluster = [policy for policy in policies if isinstance(policy, ClusterNetworkPolicy)]
    decided = _ask_tier(world, packet, direction, subject, _of_tier(cluster, "Admin"))
    if decided is None and not exempt:
        named = [policy for policy in policies if isinstance(policy, NetworkPolicy)]
        decided = _ask_network_policies(world, packet, direction, subject, named)
    if decided is None:
        decided = _ask_tier(world, packet, direction, subject, _of_tier(cluster, "Baseline"))
    return True if decided is None else decided


def _only_audited(world: World, policy: Policy) -> bool:
    if policy.metadata.annotations.get("fast.io/policy-mode") == "audit":
        return True
    namespace = world.namespaces.get(policy.metadata.namespace)
    return isinstance(policy, NetworkPolicy) and namespace is not None and namespace.audit


# ── NetworkPolicy ───────────────────────────────────────────────────────────────────────────────


def _ask_network_policies(
    world: World, packet: Packet, direction: Direction, subject: LocalPod, policies: Iterable[NetworkPolicy]
) -> bool | None:
    """None: no policy selects the pod for this direction; else whether any rule of those that do matches."""
    isolated = allowed = False
    for policy in policies:
        if policy.metadata.namespace != subject.namespace:
            continue
        try:
            if not _selects(policy.spec.pod_selector, subject.labels):
                continue
        except Unreadable:
            continue
        types = policy.spec.policy_types
        if not types:
            types = ("Ingress", "Egress") if policy.spec.egress else ("Ingress",)
        if direction.value.capitalize() not in types:
            continue
        isolated = True
        rules: tuple[NetworkPolicyIngressRule | NetworkPolicyEgressRule, ...] = policy.spec.ingress
        if direction is Direction.EGRESS:
            rules = policy.spec.egress
        for rule in rules:
            if _np_rule_matches(world, packet, direction, policy.metadata.namespace, rule):
                allowed = True
    return allowed if isolated else None


def _np_rule_matches(
    world: World,
    packet: Packet,
    direction: Direction,
    namespace: str,
    rule: NetworkPolicyIngressRule | NetworkPolicyEgressRule,
) -> bool:
    other = packet.source if direction is Direction.INGRESS else packet.destination
    peer_ok = not rule.peers or any(_np_peer_matches(world, other, namespace, peer) for peer in rule.peers)
    port_ok = not rule.ports or any(_np_port_matches(world, packet, port) for port in rule.ports)
    return peer_ok and port_ok


def _np_peer_matches(world: World, other: IPAddress, namespace: str, peer: NetworkPolicyPeer) -> bool:
    try:
        if peer.ip_block is not None:
            if peer.pod_selector is not None or peer.namespace_selector is not None:
                return False
            holes = [
                _in_network(other, hole) for hole in peer.ip_block.except_
            ]  # all are read, also the unreadable
            return _in_network(other, peer.ip_block.cidr) and True not in holes
        if peer.pod_selector is None and peer.namespace_selector is None:
            return False
        _check(peer.pod_selector)
        _check(peer.namespace_selector)
        pod = world.find_pod(other)
        if pod is None:
            return False
        if peer.namespace_selector is None:
            namespace_ok = pod.namespace == namespace
        else:
            namespace_ok = _selects_namespace(world, peer.namespace_selector, pod.namespace)
        return namespace_ok and (peer.pod_selector is None or _selects(peer.pod_selector, pod.labels))
    except Unreadable:
        return False


def _np_port_matches(world: World, packet: Packet, port: NetworkPolicyPort) -> bool:
    protocol = PROTOCOLS.get(port.protocol or "TCP")
    if port.protocol == "" or protocol is None or packet.protocol != protocol:
        return False
    if port.port is None:
        return port.end_port is None
    if isinstance(port.port, str):
        return port.end_port is None and packet.port in _named(world, packet, port.port, protocol)
    last = port.port if port.end_port is None else port.end_port
    return 0 < port.port <= packet.port <= last < 65536  # noqa: PLR2004 - the last port


def _named(world: World, packet: Packet, name: str, protocol: int) -> set[int]:
    """The numbers that the destination pod has under a port's name."""
    pod = world.find_pod(packet.destination)
    ports = pod.named_ports if pod is not None else ()
    return {port.port for port in ports if (port.name, port.protocol) == (name, protocol)}


# ── ClusterNetworkPolicy ────────────────────────────────────────────────────────────────────────


def _of_tier(policies: list[ClusterNetworkPolicy], tier: str) -> list[ClusterNetworkPolicy]:
    """A tier's policies, those asked first in front; between equal priorities, the name decides."""
    return sorted(
        (policy for policy in policies if policy.spec.tier == tier),
        key=lambda policy: (policy.spec.priority, policy.metadata.name),
    )


def _ask_tier(
    world: World,
    packet: Packet,
    direction: Direction,
    subject: LocalPod,
    policies: list[ClusterNetworkPolicy],
) -> bool | None:
    """The first rule that matches decides; Pass, or no rule: None, the next tier is asked."""
    for policy in policies:
        if not _is_subject(world, policy, subject):
            continue
        rules: tuple[ClusterIngressRule | ClusterEgressRule, ...] = policy.spec.ingress
        if direction is Direction.EGRESS:
            rules = policy.spec.egress
        for rule in rules:
            action = rule.action
            try:
                _validate(rule, direction)
                matches = _cluster_rule_matches(world, packet, direction, rule)
            except Unreadable:
                # Fail closed: an Accept rule matches nothing, others are as "Deny all".
                matches = action != "Accept"
                action = "Deny"
            if matches:
                return {"Accept": True, "Deny": False, "Pass": None}[action]
    return None


def _is_subject(world: World, policy: ClusterNetworkPolicy, pod: LocalPod) -> bool:
    subject = policy.spec.subject
    try:
        if (subject.namespaces is None) == (subject.pods is None):
            return False
        if subject.namespaces is not None:
            return _selects_namespace(world, subject.namespaces, pod.namespace)
        assert subject.pods is not None
        _check(subject.pods.namespace_selector)
        _check(subject.pods.pod_selector)
        return _selects_namespace(world, subject.pods.namespace_selector, pod.namespace) and _selects(
            subject.pods.pod_selector, pod.labels
        )
    except Unreadable:
        return False


def _validate(rule: ClusterIngressRule | ClusterEgressRule, direction: Direction) -> None:
    """Raise Unreadable if anything in the rule is not as the API's validation wants it."""
    if rule.action not in {"Accept", "Deny", "Pass"} or not rule.peers:
        raise Unreadable
    for peer in rule.peers:
        fields = [peer.namespaces, peer.pods, peer.nodes, peer.networks or None, peer.domain_names or None]
        if sum(item is not None for item in fields) != 1 or peer.domain_names:
            raise Unreadable
        if direction is Direction.INGRESS and (peer.nodes is not None or peer.networks):
            raise Unreadable
        _check(peer.namespaces)
        _check(peer.nodes)
        if peer.pods is not None:
            _check(peer.pods.namespace_selector)
            _check(peer.pods.pod_selector)
        for network in peer.networks:
            _network(network)
    for protocol in rule.protocols:
        _validate_protocol(protocol)
        if protocol.destination_named_port and any(
            peer.nodes is not None or peer.networks for peer in rule.peers
        ):
            raise Unreadable


def _validate_protocol(protocol: ClusterProtocol) -> None:
    fields = [protocol.tcp, protocol.udp, protocol.sctp, protocol.destination_named_port or None]
    if sum(item is not None for item in fields) != 1:
        raise Unreadable
    for match in (protocol.tcp, protocol.udp, protocol.sctp):
        port = match.destination_port if match is not None else None
        if port is None:
            continue
        if (port.number is None) == (port.range is None):
            raise Unreadable
        first, last = (port.number, port.number) if port.range is None else (port.range.start, port.range.end)
        if first is None or last is None or not 0 < first <= last < 65536:  # noqa: PLR2004 - the last port
            raise Unreadable


def _cluster_rule_matches(
    world: World, packet: Packet, direction: Direction, rule: ClusterIngressRule | ClusterEgressRule
) -> bool:
    other = packet.source if direction is Direction.INGRESS else packet.destination
    if not any(_cluster_peer_matches(world, other, peer) for peer in rule.peers):
        return False
    return not rule.protocols or any(_protocol_matches(world, packet, item) for item in rule.protocols)


def _cluster_peer_matches(world: World, other: IPAddress, peer: ClusterPeer) -> bool:
    if peer.networks:
        return any(_in_network(other, network) for network in peer.networks)
    if peer.nodes is not None:
        node = world.find_node(other)
        return node is not None and world.find_pod(other) is None and _selects(peer.nodes, node.labels)
    pod = world.find_pod(other)
    if pod is None:
        return False
    if peer.namespaces is not None:
        return _selects_namespace(world, peer.namespaces, pod.namespace)
    assert peer.pods is not None
    return _selects_namespace(world, peer.pods.namespace_selector, pod.namespace) and _selects(
        peer.pods.pod_selector, pod.labels
    )


def _protocol_matches(world: World, packet: Packet, protocol: ClusterProtocol) -> bool:
    if protocol.destination_named_port:
        return packet.port in _named(world, packet, protocol.destination_named_port, packet.protocol)
    for name, match in (("TCP", protocol.tcp), ("UDP", protocol.udp), ("SCTP", protocol.sctp)):
        if match is not None and packet.protocol == PROTOCOLS[name]:
            port = match.destination_port
            if port is None:
                return True
            if port.range is not None:
                return port.range.start <= packet.port <= port.range.end
            return packet.port == port.number
    return False


# ── selectors and networks ──────────────────────────────────────────────────────────────────────


def _check(selector: LabelSelector | None) -> None:
    """Raise Unreadable if the selector is not as the API's validation wants it."""
    for requirement in selector.match_expressions if selector is not None else ():
        if requirement.operator in {"In", "NotIn"}:
            if not requirement.values:
                raise Unreadable
        elif requirement.operator not in {"Exists", "DoesNotExist"} or requirement.values:
            raise Unreadable


def _selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    _check(selector)
    return selector.matches(labels)


def _selects_namespace(world: World, selector: LabelSelector, name: str) -> bool:
    """A namespace that was never seen has no labels to go by: only the empty selector selects it."""
    _check(selector)
    namespace = world.namespaces.get(name)
    if namespace is None:
        return not selector.match_labels and not selector.match_expressions
    return selector.matches(namespace.labels)


def _network(text: str) -> tuple[int, int, int]:
    """Read a CIDR as (version, first, last)."""
    try:
        if "/" not in text:
            raise ValueError(text)
        network = ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise Unreadable from error
    mapped = IPv6Network("::ffff:0:0/96")
    if isinstance(network, IPv6Network) and network.subnet_of(mapped):
        raise Unreadable
    return (network.version, int(network.network_address), int(network.broadcast_address))


def _in_network(address: IPAddress, text: str) -> bool:
    version, first, last = _network(text)
    return address.version == version and first <= int(address) <= last
