"""What the programs do with the compiled maps (design §6, steps 1 to 5, 10 and 12), for tests and for explanations.

No flows: every packet is judged as the first of its flow. The C code and this file are to be changed together.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from fast.net.address import map_key
from fast.policy.compiled_maps import MapReader
from fast.policy.map_layout import PodFlag, PodPolicy, RuleSetFlag, RuleSetValue
from fast.policy.policy_objects import Direction, Packet
from fast.policy.rulesets import MAX_PAGES, PAGE_GROUPS

_ALL = (1 << PAGE_GROUPS) - 1


class Verdict(Enum):
    """What becomes of a packet; drops by their reasons' names."""

    PASS = "PASS"  # noqa: S105 - no password
    POLICY_PENDING = "DROP_POLICY_PENDING"
    POLICY_EGRESS = "DROP_POLICY_EGRESS"
    POLICY_INGRESS = "DROP_POLICY_INGRESS"


class Decision(msgspec.Struct, frozen=True):
    """One direction's verdict, with what a denial's event holds.

    ``page`` and ``bit`` are the rule group that decided; bit None: none did, the pod's isolation or the default.
    ``peers`` and ``ports`` are the bits of each page, in order.
    """

    direction: Direction
    allowed: bool
    rules: int
    peer_class: int
    page: int = 0
    bit: int | None = None
    peers: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """A packet's verdict, and the decisions it came from; ``audit`` has those that are only told."""

    verdict: Verdict
    decisions: tuple[Decision, ...] = ()
    audit: tuple[Decision, ...] = ()

    @property
    def would_drop(self) -> tuple[Decision, ...]:
        """The audited denials of a packet that passes."""
        if self.verdict is not Verdict.PASS:
            return ()
        return tuple(decision for decision in self.audit if not decision.allowed)


class _Peer(msgspec.Struct, frozen=True):
    """What is known of the other end."""

    peer_class: int
    is_pod: bool
    in_blocks_only: bool


def judge(maps: MapReader, packet: Packet) -> Judgement:
    """Give a packet's verdict by the maps alone."""
    source, destination = map_key(packet.source), map_key(packet.destination)
    sender, receiver = maps.find_pod(source), maps.find_pod(destination)
    if any(pod is not None and pod.flags & PodFlag.POLICY_PENDING for pod in (sender, receiver)):
        return Judgement(Verdict.POLICY_PENDING)
    hairpin = source == destination
    enforced: list[Decision] = []
    audit: list[Decision] = []
    for direction, pod, peer in (
        (Direction.EGRESS, sender, destination),
        (Direction.INGRESS, receiver, source),
    ):
        if pod is None:
            continue
        exempt = hairpin or (direction is Direction.INGRESS and packet.from_own_node)
        for number, found in zip(_numbers(pod, direction), (enforced, audit), strict=True):
            if number:
                found.append(decide(maps, direction, number, peer, packet, np_passes=exempt))
    denied = next((decision for decision in enforced if not decision.allowed), None)
    verdict = Verdict.PASS
    if denied is not None:
        egress = denied.direction is Direction.EGRESS
        verdict = Verdict.POLICY_EGRESS if egress else Verdict.POLICY_INGRESS
    return Judgement(verdict, tuple(enforced), tuple(audit))


def _numbers(pod: PodPolicy, direction: Direction) -> tuple[int, int]:
    if direction is Direction.INGRESS:
        return pod.ingress_rules, pod.audit_ingress_rules
    return pod.egress_rules, pod.audit_egress_rules


def decide(
    maps: MapReader, direction: Direction, rules: int, peer: bytes, packet: Packet, *, np_passes: bool
) -> Decision:
    """Ask one rule set about a packet.

    Args:
        maps: Where to look.
        direction: Which of the packet's directions; only told on.
        rules: The rule set's number.
        peer: The other end's address.
        packet: Whose protocol and destination port count.
        np_passes: The NetworkPolicy tier has no say: a hairpin, or the pod's own node.
    """
    other = _find_peer(maps, peer)
    state = _Pages(np_passes)
    peers_bits, ports_bits = [], []
    number = rules
    for index in range(MAX_PAGES):
        page = maps.find_rule_set(number)
        if page is None:  # nothing refers to a rule set that is not there; if it does, fail closed
            return Decision(direction, False, rules, other.peer_class)
        if index == 0 and other.in_blocks_only and page.flags & RuleSetFlag.HAS_BLOCKS:
            other = msgspec.structs.replace(other, peer_class=maps.block_class(peer))
        peers = page.any | (page.any_pod if other.is_pod else 0) | maps.peers(number, other.peer_class)
        ports = maps.ports(number, packet.protocol, packet.port)
        peers_bits.append(peers)
        ports_bits.append(ports)
        allowed, bit = state.ask(page, peers & ports)
        if allowed is not None:
            bits = (tuple(peers_bits), tuple(ports_bits))
            return Decision(direction, allowed, rules, other.peer_class, index, bit, *bits)
        number = page.next
        if not number:
            break
    bits = (tuple(peers_bits), tuple(ports_bits))
    return Decision(direction, True, rules, other.peer_class, 0, None, *bits)


def _find_peer(maps: MapReader, address: bytes) -> _Peer:
    pod = maps.find_pod(address)
    if pod is not None:
        return _Peer(pod.peer_class, True, False)
    peer_class = maps.find_cluster_class(address)
    if peer_class is not None:
        return _Peer(peer_class, not maps.is_node(address), False)
    return _Peer(0, False, True)


class _Pages:
    """Where the evaluation stands between pages: which tier was passed."""

    def __init__(self, np_passes: bool) -> None:
        self._np_passes = np_passes
        self._admin_passed = False

    def ask(self, page: RuleSetValue, matched: int) -> tuple[bool | None, int | None]:
        """Ask a page's tiers in order: the verdict (None: ask on), and the bit that gave it."""
        admin = matched & _below(page.np_first)
        if admin and not self._admin_passed:
            allowed, bit = _lowest(page, admin)
            if allowed is not None:
                return allowed, bit
            self._admin_passed = True
        if not self._np_passes:
            policies = matched & _below(page.baseline_first) & ~_below(page.np_first)
            if policies:
                return True, _lowest_bit(policies)
            is_last = page.baseline_first < PAGE_GROUPS or not page.next
            if page.flags & RuleSetFlag.NP_ISOLATED and is_last:
                return False, None
        baseline = matched & ~_below(page.baseline_first)
        if baseline:
            allowed, bit = _lowest(page, baseline)
            return (True if allowed is None else allowed), bit
        return None, None


def _below(index: int) -> int:
    return _ALL >> PAGE_GROUPS - index


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _lowest(page: RuleSetValue, bits: int) -> tuple[bool | None, int]:
    """What the group of the highest precedence says: allowed, denied, or None for pass."""
    lowest = bits & -bits
    allowed = True if page.accept & lowest else False if page.deny & lowest else None
    return allowed, _lowest_bit(bits)
