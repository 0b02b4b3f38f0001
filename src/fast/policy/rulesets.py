"""Rule sets: the rules that apply to a pod in one direction, as groups in order of precedence, and as pages of bits.

A rule group is one combination of peers, ports and action. NetworkPolicy only accepts, so its rules with equal ports
are one group; a ClusterNetworkPolicy's rules stay apart and in order. Nothing here knows numbers of classes or peers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from fast.policy import ports as port_prefixes
from fast.policy.peers import ANY, AnyPeer, BasePeer, NamedPeer, Peer, PodPeer
from fast.policy.policy_objects import Action, Direction, NamedPort, PolicyRef, Tier
from fast.policy.ports import PortPrefix, PortRange, merge_ranges, prefixes_of
from fast.policy.rule import NamedPortMatch, Rule
from fast.policy.rule_groups import PolicyRules

#: Rule groups in a page, and pages in a rule set.
PAGE_GROUPS = 256
MAX_PAGES = 16


class Watch(msgspec.Struct, frozen=True):
    """An egress rule's named port: the numbers it has among the addresses that ``base`` matches."""

    base: BasePeer
    port: NamedPortMatch


#: Gives the numbers of a watch, as sorted (protocol, port).
Resolve = Callable[[Watch], tuple[tuple[int, int], ...]]


class Origin(msgspec.Struct, frozen=True):
    """Which rule put these peers into a group."""

    policy: PolicyRef
    path: str
    name: str
    peers: tuple[Peer, ...]


class RuleGroup(msgspec.Struct, frozen=True):
    """Peers, ports (None: all of every protocol) and action; ``origins`` are the rules it was made of."""

    tier: Tier
    action: Action
    peers: tuple[Peer, ...]
    ports: tuple[PortRange, ...] | None
    origins: tuple[Origin, ...]


class RuleSetContent(msgspec.Struct, frozen=True):
    """A rule set without its number: equal contents are one rule set.

    ``policies`` are all that have a say in this direction, also by isolating without a rule: they are part of the
    content, so that a denial can name its policies from the rule set's number alone.
    """

    direction: Direction
    isolated: bool
    policies: tuple[PolicyRef, ...]
    groups: tuple[RuleGroup, ...]

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal exactly for equal contents, in this process and the next."""
        return hashlib.blake2b(msgspec.msgpack.encode(self), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Page:
    """Up to 256 rule groups as bits: bit 0 is asked first. ``uses``: the bits of each peer that must be looked up."""

    any: int
    any_pod: int
    accept: int
    deny: int
    np_first: int
    baseline_first: int
    uses: dict[Peer, int]
    ports: dict[PortPrefix, int]


def watches_of(rules: Iterable[Rule]) -> frozenset[Watch]:
    """The named ports whose numbers the egress rules depend on."""
    return frozenset(
        Watch(peer, port)
        for rule in rules
        if rule.direction is Direction.EGRESS
        for port in rule.ports or ()
        if isinstance(port, NamedPortMatch)
        for peer in rule.peers
    )


def compile_rules(
    policies: Iterable[PolicyRules],
    direction: Direction,
    own_ports: tuple[NamedPort, ...],
    resolve: Resolve,
) -> RuleSetContent:
    """Make the content of the rule set that these policies are for a pod.

    Args:
        policies: Those that select the pod, in any order.
        direction: Whose rules are asked.
        own_ports: The pod's named ports; what ingress rules' named ports mean.
        resolve: What egress rules' named ports mean.
    """
    applied = sorted(
        (policy for policy in policies if policy.concerns(direction)), key=lambda item: item.precedence
    )
    pieces = [
        piece
        for policy in applied
        for rule in policy.rules(direction)
        for piece in _pieces(rule, own_ports, resolve)
    ]
    admin = [piece for piece in pieces if piece.tier is Tier.ADMIN]
    baseline = [piece for piece in pieces if piece.tier is Tier.BASELINE]
    merged = _merge([piece for piece in pieces if piece.tier is Tier.NETWORK_POLICY])
    return RuleSetContent(
        direction,
        any(direction in policy.isolates for policy in applied),
        tuple(policy.ref for policy in applied),
        (*admin, *merged, *baseline),
    )


def _pieces(rule: Rule, own_ports: tuple[NamedPort, ...], resolve: Resolve) -> list[RuleGroup]:
    """The rule as groups: one for all numbered ports, and one a number that a destination's named port has."""
    if not rule.peers:
        return []
    if rule.ports is None:
        return [_group(rule, rule.peers, None)]
    numbered: list[PortRange] = []
    named: dict[tuple[int, int], list[Peer]] = {}
    for port in rule.ports:
        if isinstance(port, PortRange):
            numbered.append(port)
        elif rule.direction is Direction.INGRESS:
            numbered.extend(_own_numbers(port, own_ports))
        else:
            _add_named(named, rule, port, resolve)
    pieces = [_group(rule, rule.peers, merge_ranges(numbered))] if numbered else []
    for (protocol, number), peers in sorted(named.items(), key=lambda item: item[0]):
        pieces.append(_group(rule, tuple(peers), (PortRange(protocol, number, number),)))
    return pieces


def _own_numbers(port: NamedPortMatch, own_ports: tuple[NamedPort, ...]) -> list[PortRange]:
    return [
        PortRange(own.protocol, own.port, own.port)
        for own in own_ports
        if port.matches(own.name, own.protocol)
    ]


def _add_named(
    named: dict[tuple[int, int], list[Peer]], rule: Rule, port: NamedPortMatch, resolve: Resolve
) -> None:
    for base in rule.peers:
        for protocol, number in resolve(Watch(base, port)):
            named.setdefault((protocol, number), []).append(NamedPeer(base, port.name, protocol, number))


def _group(rule: Rule, peers: tuple[Peer, ...], ports: tuple[PortRange, ...] | None) -> RuleGroup:
    origin = Origin(rule.policy, rule.path, rule.name, peers)
    return RuleGroup(rule.tier, rule.action, (ANY,) if ANY in peers else peers, ports, (origin,))


def _merge(pieces: list[RuleGroup]) -> list[RuleGroup]:
    """Make one group of all that have equal ports; for rules that can only accept, the order means nothing."""
    by_ports: dict[tuple[PortRange, ...] | None, list[RuleGroup]] = {}
    for piece in pieces:
        by_ports.setdefault(piece.ports, []).append(piece)
    merged = []
    for ports, parts in by_ports.items():
        peers = tuple(dict.fromkeys(peer for part in parts for peer in part.peers))
        origins = tuple(origin for part in parts for origin in part.origins)
        merged.append(
            RuleGroup(Tier.NETWORK_POLICY, Action.ACCEPT, (ANY,) if ANY in peers else peers, ports, origins)
        )
    return merged


def pages_of(content: RuleSetContent) -> list[Page]:
    """Lay the groups out as pages; one page at least, since an isolated pod may have no group at all."""
    groups = content.groups
    np_first = sum(group.tier is Tier.ADMIN for group in groups)
    baseline_first = sum(group.tier is not Tier.BASELINE for group in groups)
    pages = []
    for start in range(0, max(len(groups), 1), PAGE_GROUPS):
        part = groups[start : start + PAGE_GROUPS]
        pages.append(_page(part, _place(np_first - start), _place(baseline_first - start)))
    return pages


def _place(index: int) -> int:
    return min(max(index, 0), PAGE_GROUPS)


def _page(groups: tuple[RuleGroup, ...], np_first: int, baseline_first: int) -> Page:
    everybody = every_pod = accept = deny = 0
    uses: dict[Peer, int] = {}
    own: dict[PortPrefix, int] = {}
    for index, group in enumerate(groups):
        bit = 1 << index
        accept |= bit if group.action is Action.ACCEPT else 0
        deny |= bit if group.action is Action.DENY else 0
        for peer in group.peers:
            if isinstance(peer, AnyPeer):
                everybody |= bit
            elif isinstance(peer, PodPeer) and peer.is_every_pod:
                every_pod |= bit
            else:
                uses[peer] = uses.get(peer, 0) | bit
        for prefix in _prefixes(group.ports):
            own[prefix] = own.get(prefix, 0) | bit
    return Page(everybody, every_pod, accept, deny, np_first, baseline_first, uses, port_prefixes.spread(own))


def _prefixes(ports: tuple[PortRange, ...] | None) -> list[PortPrefix]:
    if ports is None:
        return [port_prefixes.EVERYTHING]
    return [prefix for item in ports for prefix in prefixes_of(item)]


def only_adds(old: RuleSetContent | None, new: RuleSetContent | None) -> bool:
    """Whether everything that the old rule set allowed is certainly still allowed; None: not isolated.

    Judged by the rules, not by addresses: it may say no where nothing was revoked (which costs a second judging), never
    yes where something was.
    """
    if new is None:
        return True
    if old is None:
        return False
    if any(group.tier is not Tier.NETWORK_POLICY for group in (*old.groups, *new.groups)):
        return old.groups == new.groups and (old.isolated or not new.isolated)
    if not new.isolated:
        return True
    return old.isolated and all(_is_within(group, new.groups) for group in old.groups)


def _is_within(group: RuleGroup, others: tuple[RuleGroup, ...]) -> bool:
    """Whether each of the group's peers may reach each of its ports by one of the others."""
    return all(
        any(
            (peer in other.peers or ANY in other.peers) and _covers(other.ports, group.ports)
            for other in others
        )
        for peer in group.peers
    )


def _covers(ports: tuple[PortRange, ...] | None, others: tuple[PortRange, ...] | None) -> bool:
    if ports is None:
        return True
    if others is None:
        return False
    return all(
        any(
            item.protocol == port.protocol and port.first <= item.first and item.last <= port.last
            for port in ports
        )
        for item in others
    )
