"""Policies as they are written → rules as they are meant: the only place that reads the two APIs' objects.

Nothing is raised. What cannot be read becomes a :class:`Problem`, and fails closed: a NetworkPolicy's peer or port
matches nothing; a ClusterNetworkPolicy's rule matches nothing if it accepts, and denies everything if it denies or
passes (the API's text on peers of a later version). A policy whose subject cannot be read selects no pod.
"""

from __future__ import annotations

import msgspec

from fast.api.clusternetworkpolicy import ClusterNetworkPolicy
from fast.api.meta import LabelSelector
from fast.api.networkpolicy import (
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from fast.policy import cluster_rules
from fast.policy.label_selectors import EVERYTHING, Selector, find_selector
from fast.policy.peers import ANY, BasePeer, PodPeer, find_block
from fast.policy.policy_objects import (
    ANNOTATION_MODE,
    MODE_AUDIT,
    PROTOCOLS,
    Action,
    Direction,
    PolicyRef,
    Problem,
    ProblemKind,
    Tier,
)
from fast.policy.ports import LAST_PORT, PortRange
from fast.policy.rule import NamedPortMatch, PortMatch, Problems, Rule

Policy = NetworkPolicy | ClusterNetworkPolicy


class Subject(msgspec.Struct, frozen=True):
    """Whom a policy applies to: ``namespace`` by name (NetworkPolicy) or ``namespaces`` by labels."""

    namespace: str | None
    namespaces: Selector
    pods: Selector


class PolicyRules(msgspec.Struct, frozen=True):
    """A policy, read. ``isolates``: the directions in which its pods accept only what a NetworkPolicy lists."""

    ref: PolicyRef
    tier: Tier
    priority: int
    isolates: frozenset[Direction]
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]
    problems: tuple[Problem, ...]

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rules of one direction, in the order they are written."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def concerns(self, direction: Direction) -> bool:
        """Whether it has any say in that direction."""
        return direction in self.isolates or bool(self.rules(direction))

    @property
    def precedence(self) -> tuple[int, int, PolicyRef]:
        """Sorts policies by who is asked first; the name decides between equal priorities, so all nodes agree."""
        return (self.tier, self.priority, self.ref)


def ref_of(policy: Policy) -> PolicyRef:
    """Which policy it is."""
    if isinstance(policy, NetworkPolicy):
        return PolicyRef("NetworkPolicy", policy.metadata.namespace, policy.metadata.name)
    return PolicyRef("ClusterNetworkPolicy", "", policy.metadata.name)


def is_audited(policy: Policy) -> bool:
    """Whether the policy itself asks to be told of, not enforced."""
    return policy.metadata.annotations.get(ANNOTATION_MODE) == MODE_AUDIT


def find_subject(policy: Policy) -> Subject | None:
    """Read whom the policy applies to; None if that cannot be read."""
    if isinstance(policy, ClusterNetworkPolicy):
        return cluster_rules.find_subject(policy, Subject)
    pods = find_selector(policy.spec.pod_selector)
    return None if pods is None else Subject(policy.metadata.namespace, EVERYTHING, pods)


def read_policy(policy: Policy) -> PolicyRules:
    """Read a policy's rules, with everything that is wrong in them."""
    ref = ref_of(policy)
    problems = Problems(ref)
    if isinstance(policy, ClusterNetworkPolicy):
        ingress, egress = cluster_rules.read_rules(policy, problems)
        tier = Tier.ADMIN if policy.spec.tier == "Admin" else Tier.BASELINE
        return PolicyRules(
            ref, tier, policy.spec.priority, frozenset(), ingress, egress, tuple(problems.found)
        )
    types = _policy_types(policy, problems)
    ingress = _read_rules(policy, Direction.INGRESS, problems) if Direction.INGRESS in types else ()
    egress = _read_rules(policy, Direction.EGRESS, problems) if Direction.EGRESS in types else ()
    return PolicyRules(ref, Tier.NETWORK_POLICY, 0, types, ingress, egress, tuple(problems.found))


def subject_problem(policy: Policy) -> Problem:
    """Say that the policy's subject cannot be read."""
    path = "spec.podSelector" if isinstance(policy, NetworkPolicy) else "spec.subject"
    message = f"{path} cannot be read, so the policy applies to no pod"
    return Problem(ProblemKind.INVALID, ref_of(policy), path, message)


def _policy_types(policy: NetworkPolicy, problems: Problems) -> frozenset[Direction]:
    """Which directions it isolates: by default Ingress, and Egress if it has egress rules."""
    spec = policy.spec
    if not spec.policy_types:
        default = {Direction.INGRESS, Direction.EGRESS} if spec.egress else {Direction.INGRESS}
        return frozenset(default)
    known = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
    for item in spec.policy_types:
        if item not in known:
            problems.add("spec.policyTypes", f"{item!r} is neither Ingress nor Egress")
    return frozenset(known[item] for item in spec.policy_types if item in known)


def _read_rules(policy: NetworkPolicy, direction: Direction, problems: Problems) -> tuple[Rule, ...]:
    spec = policy.spec
    found = []
    field = "from" if direction is Direction.INGRESS else "to"
    written: dict[Direction, tuple[NetworkPolicyIngressRule | NetworkPolicyEgressRule, ...]]
    written = {Direction.INGRESS: spec.ingress, Direction.EGRESS: spec.egress}
    for index, item in enumerate(written[direction]):
        path = f"spec.{direction.value}[{index}]"
        found.append(
            Rule(
                policy=problems.policy,
                direction=direction,
                index=index,
                name="",
                tier=Tier.NETWORK_POLICY,
                action=Action.ACCEPT,
                peers=_read_peers(item.peers, policy.metadata.namespace, f"{path}.{field}", problems),
                ports=_read_ports(item.ports, path, problems),
            )
        )
    return tuple(found)


def _read_peers(
    peers: tuple[NetworkPolicyPeer, ...], namespace: str, path: str, problems: Problems
) -> tuple[BasePeer, ...]:
    """Without peers: anybody. With peers of which none can be read: nobody."""
    if not peers:
        return (ANY,)
    found: dict[BasePeer, None] = {}
    for index, peer in enumerate(peers):
        read = _find_peer(peer, namespace)
        if read is None:
            problems.add(f"{path}[{index}]", "the peer cannot be read, so it matches nobody")
        else:
            found[read] = None
    return tuple(found)


def _find_peer(peer: NetworkPolicyPeer, namespace: str) -> BasePeer | None:
    has_selector = peer.pod_selector is not None or peer.namespace_selector is not None
    if peer.ip_block is not None:
        return None if has_selector else find_block(peer.ip_block.cidr, peer.ip_block.except_)
    if not has_selector:
        return None
    pods = _find_optional(peer.pod_selector)
    namespaces = _find_optional(peer.namespace_selector)
    if pods is None or namespaces is None:
        return None
    if peer.namespace_selector is None:
        return PodPeer(namespace, None, pods)
    return PodPeer(None, namespaces, pods)


def _find_optional(selector: LabelSelector | None) -> Selector | None:
    """An absent selector restricts nothing."""
    return EVERYTHING if selector is None else find_selector(selector)


def _read_ports(
    ports: tuple[NetworkPolicyPort, ...], path: str, problems: Problems
) -> tuple[PortMatch, ...] | None:
    """Without ports: everything, whatever the protocol. With ports of which none can be read: nothing."""
    if not ports:
        return None
    found: dict[PortMatch, None] = {}
    for index, port in enumerate(ports):
        read = _find_port(port)
        if read is None:
            problems.add(f"{path}.ports[{index}]", "the port cannot be read, so it matches nothing")
        else:
            found[read] = None
    return tuple(found)


def _find_port(port: NetworkPolicyPort) -> PortMatch | None:
    protocol = PROTOCOLS.get("TCP" if port.protocol is None else port.protocol)
    if protocol is None:
        return None
    if port.port is None:
        return PortRange(protocol) if port.end_port is None else None
    if isinstance(port.port, str):
        return NamedPortMatch(port.port, protocol) if port.port and port.end_port is None else None
    last = port.port if port.end_port is None else port.end_port
    if not 1 <= port.port <= last <= LAST_PORT:
        return None
    return PortRange(protocol, port.port, last)
