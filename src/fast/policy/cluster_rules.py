"""The part of :mod:`fast.policy.rule_groups` that reads ClusterNetworkPolicies.

Fail closed, as the API's text has it for peers, goes for all of a rule: a rule of which anything cannot be read matches
nothing if it accepts, and denies everybody everything if it denies or passes.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from fast.api.clusternetworkpolicy import (
    ClusterEgressRule,
    ClusterIngressRule,
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterProtocol,
    Port,
)
from fast.policy.label_selectors import EVERYTHING, Selector, find_selector
from fast.policy.peers import ANY, BasePeer, NodePeer, PodPeer, find_block
from fast.policy.policy_objects import PROTOCOLS, Action, Direction, ProblemKind, Tier
from fast.policy.ports import LAST_PORT, PortRange
from fast.policy.rule import NamedPortMatch, PortMatch, Problems, Rule

_TIERS = {"Admin": Tier.ADMIN, "Baseline": Tier.BASELINE}
_ACTIONS = {action.value: action for action in Action}

S_co = TypeVar("S_co", covariant=True)


class _MakesSubject(Protocol[S_co]):
    def __call__(self, namespace: None, namespaces: Selector, pods: Selector) -> S_co: ...


def find_subject(policy: ClusterNetworkPolicy, make: _MakesSubject[S_co]) -> S_co | None:
    """Read whom the policy applies to; None if that, or its tier, cannot be read."""
    subject = policy.spec.subject
    if policy.spec.tier not in _TIERS or (subject.namespaces is None) == (subject.pods is None):
        return None
    if subject.pods is None:
        assert subject.namespaces is not None
        namespaces, pods = find_selector(subject.namespaces), EVERYTHING
    else:
        namespaces = find_selector(subject.pods.namespace_selector)
        read = find_selector(subject.pods.pod_selector)
        if read is None:
            return None
        pods = read
    return None if namespaces is None else make(None, namespaces, pods)


def read_rules(policy: ClusterNetworkPolicy, problems: Problems) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Read the ingress and the egress rules."""
    tier = _TIERS.get(policy.spec.tier, Tier.BASELINE)
    ingress = [
        _read_rule(rule, Direction.INGRESS, index, tier, problems)
        for index, rule in enumerate(policy.spec.ingress)
    ]
    egress = [
        _read_rule(rule, Direction.EGRESS, index, tier, problems)
        for index, rule in enumerate(policy.spec.egress)
    ]
    return tuple(ingress), tuple(egress)


def _read_rule(
    rule: ClusterIngressRule | ClusterEgressRule,
    direction: Direction,
    index: int,
    tier: Tier,
    problems: Problems,
) -> Rule:
    path = f"spec.{direction.value}[{index}]"
    known = len(problems.found)
    action = _ACTIONS.get(rule.action)
    if action is None:
        problems.add(f"{path}.action", f"{rule.action!r} is none of Accept, Deny, Pass")
    peers = _read_peers(rule.peers, direction, path, problems)
    ports = _read_protocols(rule.protocols, path, problems)
    if ports and any(isinstance(port, NamedPortMatch) for port in ports):
        _refuse_named_ports(peers, path, problems)
    if len(problems.found) > known:
        action, peers, ports = _closed(action)
    return Rule(
        policy=problems.policy,
        direction=direction,
        index=index,
        name=rule.name,
        tier=tier,
        action=action or Action.DENY,
        peers=peers,
        ports=ports,
    )


def _closed(action: Action | None) -> tuple[Action, tuple[BasePeer, ...], tuple[PortMatch, ...] | None]:
    """What a rule becomes of which a part cannot be read."""
    if action is Action.ACCEPT:
        return Action.ACCEPT, (), None
    return Action.DENY, (ANY,), None


def _refuse_named_ports(peers: tuple[BasePeer, ...], path: str, problems: Problems) -> None:
    """Refuse named ports beside peers that have none, as the API's validation does."""
    if any(not isinstance(peer, PodPeer) for peer in peers):
        problems.add(f"{path}.protocols", "named ports cannot be used with nodes or networks")


def _read_peers(
    peers: tuple[ClusterPeer, ...], direction: Direction, path: str, problems: Problems
) -> tuple[BasePeer, ...]:
    field = "from" if direction is Direction.INGRESS else "to"
    if not peers:
        problems.add(f"{path}.{field}", "there must be a peer")
    found: dict[BasePeer, None] = {}
    for index, peer in enumerate(peers):
        where = f"{path}.{field}[{index}]"
        if peer.domain_names:
            problems.add(f"{where}.domainNames", "Fast does not know domain names", ProblemKind.UNSUPPORTED)
            continue
        read = _find_peer(peer, direction)
        if read is None:
            problems.add(where, "the peer cannot be read; the rule fails closed")
        else:
            found.update(dict.fromkeys(read))
    return tuple(found)


def _find_peer(peer: ClusterPeer, direction: Direction) -> list[BasePeer] | None:
    """Read one peer: exactly one field, nodes and networks for egress only; None if that is not so."""
    fields = (peer.namespaces is not None, peer.pods is not None, peer.nodes is not None, bool(peer.networks))
    if sum(fields) != 1:
        return None
    if peer.namespaces is not None:
        namespaces = find_selector(peer.namespaces)
        return None if namespaces is None else [PodPeer(None, namespaces, EVERYTHING)]
    if peer.pods is not None:
        namespaces = find_selector(peer.pods.namespace_selector)
        pods = find_selector(peer.pods.pod_selector)
        return None if namespaces is None or pods is None else [PodPeer(None, namespaces, pods)]
    if direction is Direction.INGRESS:
        return None
    if peer.nodes is not None:
        nodes = find_selector(peer.nodes)
        return None if nodes is None else [NodePeer(nodes)]
    blocks = [find_block(network) for network in peer.networks]
    return None if None in blocks else [block for block in blocks if block is not None]


def _read_protocols(
    protocols: tuple[ClusterProtocol, ...], path: str, problems: Problems
) -> tuple[PortMatch, ...] | None:
    if not protocols:
        return None
    found: dict[PortMatch, None] = {}
    for index, protocol in enumerate(protocols):
        read = _find_protocol(protocol)
        if read is None:
            problems.add(f"{path}.protocols[{index}]", "the protocol cannot be read; the rule fails closed")
        else:
            found[read] = None
    return tuple(found)


def _find_protocol(protocol: ClusterProtocol) -> PortMatch | None:
    given = {"TCP": protocol.tcp, "UDP": protocol.udp, "SCTP": protocol.sctp}
    matches = [(name, match) for name, match in given.items() if match is not None]
    if len(matches) + bool(protocol.destination_named_port) != 1:
        return None
    if not matches:
        return NamedPortMatch(protocol.destination_named_port, None)
    name, match = matches[0]
    if match.destination_port is None:
        return PortRange(PROTOCOLS[name])
    return _find_range(PROTOCOLS[name], match.destination_port)


def _find_range(protocol: int, port: Port) -> PortRange | None:
    if (port.number is None) == (port.range is None):
        return None
    if port.range is not None:
        first, last = port.range.start, port.range.end
    else:
        assert port.number is not None
        first = last = port.number
    return PortRange(protocol, first, last) if 1 <= first <= last <= LAST_PORT else None
