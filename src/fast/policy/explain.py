"""Why a packet was dropped, or would be: sentences made from the compiled rule sets, never from a second reading.

A denial's event gives the tuple, the rule set, the class and the bits of each page (design §7); the tables still know
the rule set's rules for ten minutes after it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fast.net.address import IPAddress, map_key
from fast.policy.addresses import Template
from fast.policy.compiled_maps import MapReader
from fast.policy.judge import Decision, Judgement, Verdict, judge
from fast.policy.label_selectors import Requirement, Selector
from fast.policy.peers import AnyPeer, BlockPeer, NamedPeer, NodePeer, Peer, PodPeer
from fast.policy.policy_objects import PROTOCOL_NAMES, Direction, Packet, Tier
from fast.policy.policy_tables import PolicyTables
from fast.policy.ports import LAST_PORT, PortRange
from fast.policy.rulesets import PAGE_GROUPS, Origin, RuleGroup, RuleSetContent

_MOST_HINTS = 3


@dataclass(slots=True)
class Explanation:
    """Why a direction denies, in parts; :meth:`lines` puts them together.

    Attributes:
        decision: What was decided.
        policies: The policies that isolate the pod, or the one whose rule denied.
        reasons: What came nearest to letting the packet pass, and what it lacked.
        would_pass: The smallest changes with which it would pass.
    """

    decision: Decision
    policies: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    would_pass: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The text below a denial's first line."""
        verb = "denied by" if self.decision.bit is not None else "isolated by"
        lines = [f"  {verb}: {', '.join(self.policies) or 'rules that are not known any more'}"]
        lines += [f"  {reason}" for reason in self.reasons]
        lines += [f"  would pass with: {change}" for change in self.would_pass]
        return lines


class Explainer:
    """Explains by one node's tables. ``names`` gives what people call an address, as ``default/client (n1)``."""

    def __init__(self, tables: PolicyTables, names: Mapping[bytes, str] | None = None) -> None:
        self._tables = tables
        self._names = names or {}

    def denial(self, packet: Packet, decision: Decision) -> str:
        """Give the text of a packet that was dropped: the event's tuple and decision."""
        return "\n".join(
            ["DROPPED  " + self._head(packet, decision.direction), *self.explain(packet, decision).lines()]
        )

    def audit(self, packet: Packet, decision: Decision) -> str:
        """Give the text of a packet that would be dropped if the audited policies were enforced."""
        head = "WOULD DROP  " + self._head(packet, decision.direction)
        return "\n".join([head, *self.explain(packet, decision).lines()])

    def why(self, maps: MapReader, packet: Packet) -> str:
        """Give the text of ``fast-ctl policy why A B:PORT``: what the maps say of the packet, and why."""
        judgement = judge(maps, packet)
        text = [f"{self._verdict(judgement)}  {self._tuple(packet)}"]
        if judgement.verdict is Verdict.POLICY_PENDING:
            return "\n".join([*text, *self._pending(packet)])
        for direction in Direction:
            decision = next((item for item in judgement.decisions if item.direction is direction), None)
            text += self._direction(packet, direction, decision)
        for decision in judgement.would_drop:
            text += [
                f"audit: {decision.direction.value} would be dropped",
                *self.explain(packet, decision).lines(),
            ]
        return "\n".join(text)

    def _pending(self, packet: Packet) -> list[str]:
        """Say what is missing before a pod's packets can be judged."""
        lines = []
        for address in (packet.source, packet.destination):
            state = self._tables.pods.by_key.get(map_key(address))
            if state is not None and state.pending:
                problems = self._tables.problems_of(state.pod.uid)
                reasons = [f"{item.policy}: {item.message}" for item in problems]
                lines += reasons or [f"namespace {state.pod.namespace} is not known yet"]
        return [f"  {line}" for line in lines]

    def _verdict(self, judgement: Judgement) -> str:
        return "PASSES" if judgement.verdict is Verdict.PASS else judgement.verdict.value

    def _direction(self, packet: Packet, direction: Direction, decision: Decision | None) -> list[str]:
        whose = packet.source if direction is Direction.EGRESS else packet.destination
        head = f"{direction.value} of {self._name(whose)}: "
        if map_key(whose) not in self._tables.pods.by_key:
            return [f"{head}not decided on this node"]
        if decision is None:
            return [f"{head}no policy applies"]
        if not decision.allowed:
            return [f"{head}denied", *self.explain(packet, decision).lines()]
        return [f"{head}allowed", *self._allowing(decision)]

    def _allowing(self, decision: Decision) -> list[str]:
        group = self._group(decision)
        if group is None:
            return ["  no rule matches, and nothing isolates the pod"]
        return [f"  by {_rule(origin)}" for origin in group.origins[:_MOST_HINTS]]

    # ── one direction ───────────────────────────────────────────────────────────────────────────

    def explain(self, packet: Packet, decision: Decision) -> Explanation:
        """Say why a decision denies."""
        found = Explanation(decision)
        content = self._content(decision.rules)
        if content is None:
            return found
        group = self._group(decision)
        if group is not None:
            found.policies = [_rule(origin) for origin in group.origins]
            found.would_pass = [f"an Accept or Pass rule before {_rule(group.origins[0])}"]
            return found
        found.policies = [str(ref) for ref in content.policies if ref.kind == "NetworkPolicy"]
        self._explain_isolation(packet, decision, content, found)
        return found

    def _explain_isolation(
        self, packet: Packet, decision: Decision, content: RuleSetContent, found: Explanation
    ) -> None:
        """Find the rules that match one half of the packet; if none does, the one whose labels are nearest."""
        who = "client" if decision.direction is Direction.INGRESS else "server"
        other = packet.source if decision.direction is Direction.INGRESS else packet.destination
        port = _port(packet)
        by_peer = [group for group in _groups(content, decision.peers) if group.tier is Tier.NETWORK_POLICY]
        by_port = [group for group in _groups(content, decision.ports) if group.tier is Tier.NETWORK_POLICY]
        for group in by_peer[:_MOST_HINTS]:
            for origin in self._matching(group, other):
                found.reasons.append(f"{_rule(origin)} matches this {who}, but only on {_ports(group.ports)}")
                found.would_pass.append(f"port {port} in {_rule(origin)}")
        if by_peer:
            return
        template = self._tables.addresses.find_template(map_key(other))
        groups = by_port or [group for group in content.groups if group.tier is Tier.NETWORK_POLICY]
        for origin, peer in self._nearest(groups, template)[:_MOST_HINTS]:
            lacks = self._difference(peer, other, template)
            also = "" if by_port else f", and {port}"
            matches = f"matches {port}, but other {who}s" if by_port else f"is for other {who}s and ports"
            found.reasons.append(f"{_rule(origin)} {matches}: {peer}{lacks and f' ({lacks})'}")
            found.would_pass.append(f"this {who}{also} in {_rule(origin)}")

    def _matching(self, group: RuleGroup, other: IPAddress) -> Iterator[Origin]:
        """The rules of a group that an address is a peer of."""
        for origin in group.origins:
            if any(self._is_peer(peer, other) for peer in origin.peers):
                yield origin

    def _is_peer(self, peer: Peer, other: IPAddress) -> bool:
        if isinstance(peer, AnyPeer):
            return True
        key = map_key(other)
        cell = self._tables.addresses.find_cell(key)
        if isinstance(peer, PodPeer) and peer.is_every_pod:
            return cell is not None and cell.profile.namespace is not None
        number = self._tables.peers.find(peer)
        if cell is None:
            return number in self._tables.addresses.block_table.find(key)
        return number in cell.peers(self._tables.peers)

    def _nearest(self, groups: Iterable[RuleGroup], template: Template | None) -> list[tuple[Origin, Peer]]:
        """Rules with the peer in each that lacks the least, the nearest first."""
        pairs = [(origin, peer) for group in groups for origin in group.origins for peer in origin.peers]
        pairs.sort(key=lambda pair: self._distance(pair[1], template))
        best: dict[tuple[object, str], tuple[Origin, Peer]] = {}
        for origin, peer in pairs:
            best.setdefault((origin.policy, origin.path), (origin, peer))
        return list(best.values())

    def _distance(self, peer: Peer, template: Template | None) -> int:
        base = peer.base if isinstance(peer, NamedPeer) else peer
        if not isinstance(base, PodPeer | NodePeer) or template is None:
            return 1_000
        return len(self._missing(base, template))

    def _difference(self, peer: Peer, other: IPAddress, template: Template | None) -> str:
        base = peer.base if isinstance(peer, NamedPeer) else peer
        if isinstance(base, BlockPeer):
            return f"{other} is outside"
        if not isinstance(base, PodPeer | NodePeer):
            return ""
        if template is None:
            return f"{other} is neither a pod nor a node that is known here"
        return f"differs in {', '.join(self._missing(base, template))}"

    def _missing(self, peer: PodPeer | NodePeer, template: Template) -> list[str]:
        """What an address lacks to be the peer."""
        labels = dict(template.labels)
        if isinstance(peer, NodePeer):
            if template.namespace is not None:
                return ["being a node"]
            return [f"label {item}" for item in _unmet(peer.nodes, labels)]
        if template.namespace is None:
            return ["being a pod"]
        missing = [f"label {item}" for item in _unmet(peer.pods, labels)]
        if peer.namespaces is None:
            return (
                missing if peer.namespace == template.namespace else [f"namespace {peer.namespace}", *missing]
            )
        namespace = self._tables.namespaces.find(template.namespace)
        known = {} if namespace is None else namespace.labels
        return [f"namespace label {item}" for item in _unmet(peer.namespaces, known)] + missing

    # ── where things are ────────────────────────────────────────────────────────────────────────

    def _content(self, rules: int) -> RuleSetContent | None:
        rule_set = self._tables.find_rule_set(rules)
        return None if rule_set is None else rule_set.content

    def _group(self, decision: Decision) -> RuleGroup | None:
        content = self._content(decision.rules)
        if content is None or decision.bit is None:
            return None
        return content.groups[decision.page * PAGE_GROUPS + decision.bit]

    def _head(self, packet: Packet, direction: Direction) -> str:
        whose = packet.source if direction is Direction.EGRESS else packet.destination
        return f"{self._tuple(packet)}   {direction.value} of {self._name(whose)}"

    def _tuple(self, packet: Packet) -> str:
        destination = self._name(packet.destination)
        if packet.protocol not in PROTOCOL_NAMES:
            return f"{self._name(packet.source)} → {destination} {_port(packet)}"
        return f"{self._name(packet.source)} → {destination}:{packet.port}/{PROTOCOL_NAMES[packet.protocol]}"

    def _name(self, address: IPAddress) -> str:
        key = map_key(address)
        state = self._tables.pods.by_key.get(key)
        return self._names.get(key) or (str(state.pod) if state is not None else str(address))


def _unmet(selector: Selector, labels: Mapping[str, str]) -> list[Requirement]:
    return [item for item in selector.requirements if not item.matches(labels)]


def _groups(content: RuleSetContent, pages: tuple[int, ...]) -> list[RuleGroup]:
    """The groups whose bits are set."""
    return [
        content.groups[page * PAGE_GROUPS + bit]
        for page, bits in enumerate(pages)
        for bit in range(PAGE_GROUPS)
        if bits >> bit & 1 and page * PAGE_GROUPS + bit < len(content.groups)
    ]


def _rule(origin: Origin) -> str:
    """A rule by its policy and place, and its name if it has one."""
    return f"{origin.policy} {origin.path}" + (f" ({origin.name})" if origin.name else "")


def _port(packet: Packet) -> str:
    name = PROTOCOL_NAMES.get(packet.protocol)
    return f"protocol {packet.protocol}" if name is None else f"{name}/{packet.port}"


def _ports(ports: tuple[PortRange, ...] | None) -> str:
    if ports is None:
        return "every port"
    return ", ".join(_range(item) for item in ports)


def _range(ports: PortRange) -> str:
    name = PROTOCOL_NAMES[ports.protocol]
    if (ports.first, ports.last) == (0, LAST_PORT):
        return f"{name}, every port"
    return f"{name}/{ports.first}" if ports.first == ports.last else f"{name}/{ports.first}-{ports.last}"
