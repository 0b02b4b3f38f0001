"""The pods of this node: which recipes they follow, which rule sets they have, and what their entries say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from zlib import crc32

import msgspec

from fast.policy.classes import RuleSet
from fast.policy.map_layout import PodFlag, PodPolicy
from fast.policy.matching import Namespaces
from fast.policy.policy_objects import Direction, LocalPod
from fast.policy.recipes import Recipe, Recipes, disuse, use
from fast.policy.rulesets import only_adds
from fast.policy.selection import PolicyIndex, StoredPolicy


class Slot(Enum):
    """The four rule sets a pod's entry names."""

    INGRESS = (Direction.INGRESS, False)
    EGRESS = (Direction.EGRESS, False)
    AUDIT_INGRESS = (Direction.INGRESS, True)
    AUDIT_EGRESS = (Direction.EGRESS, True)

    @property
    def direction(self) -> Direction:
        """Whose packets it is asked about."""
        return self.value[0]

    @property
    def audits(self) -> bool:
        """Whether its verdict is only told."""
        return self.value[1]


_SLOTS = tuple(Slot)


@dataclass(slots=True, eq=False)
class PodState:
    """A local pod. ``written``: its entries as the plans so far have them; empty for a pod that is being added."""

    pod: LocalPod
    recipes: dict[Slot, Recipe | None] = field(default_factory=lambda: dict.fromkeys(_SLOTS))
    rule_sets: dict[Slot, RuleSet | None] = field(default_factory=lambda: dict.fromkeys(_SLOTS))
    written: dict[bytes, PodPolicy] = field(default_factory=dict)
    pending: bool = False
    epoch: int = 0
    isolated_since_ns: int = 0

    def number(self, slot: Slot) -> int:
        """The rule set of a slot, as the entry names it."""
        rule_set = self.rule_sets[slot]
        return 0 if rule_set is None else rule_set.number

    @property
    def restricted(self) -> bool:
        """Whether any rule set is asked about its packets."""
        return self.rule_sets[Slot.INGRESS] is not None or self.rule_sets[Slot.EGRESS] is not None

    def entry(self, peer_class: int) -> PodPolicy:
        """What the entry of one of its addresses is to say."""
        numbers = [self.number(slot) for slot in _SLOTS]
        flags = PodFlag(0)
        flags |= PodFlag.INGRESS_ISOLATED if numbers[0] else flags
        flags |= PodFlag.EGRESS_ISOLATED if numbers[1] else flags
        flags |= PodFlag.AUDIT if numbers[2] or numbers[3] else flags
        flags |= PodFlag.POLICY_PENDING if self.pending else flags
        return PodPolicy(
            flags=flags,
            peer_class=peer_class,
            ingress_rules=numbers[0],
            egress_rules=numbers[1],
            epoch=self.epoch,
            audit_ingress_rules=numbers[2],
            audit_egress_rules=numbers[3],
            isolated_since_ns=self.isolated_since_ns,
        )

    def raise_epoch(self) -> None:
        """Have the flows judged again that were judged before."""
        self.epoch = (self.epoch + 1) & 0xFFFFFFFF


class Pods:
    """The pods of this node."""

    def __init__(self, policies: PolicyIndex, recipes: Recipes, namespaces: Namespaces) -> None:
        self._policies = policies
        self._recipes = recipes
        self._namespaces = namespaces
        self._states: dict[str, PodState] = {}
        self.by_key: dict[bytes, PodState] = {}
        #: Pods whose policies must be looked up again.
        self.dirty: dict[PodState, None] = {}

    def __iter__(self) -> Iterator[PodState]:
        return iter(self._states.values())

    def __len__(self) -> int:
        return len(self._states)

    def find(self, uid: str) -> PodState | None:
        """A pod by its UID."""
        return self._states.get(uid)

    def enter(self, pod: LocalPod) -> PodState:
        """Enter a pod, or what is new about it."""
        state = self._states.get(pod.uid)
        if state is None:
            # Another pod's epoch: flows of whoever had its address before do not count as judged for this one.
            state = self._states[pod.uid] = PodState(pod, epoch=crc32(pod.uid.encode()))
        elif state.pod == pod:
            return state
        for key in state.pod.keys:
            self.by_key.pop(key, None)
        state.pod = pod
        for key in pod.keys:
            self.by_key[key] = state
        state.written = {key: state.written[key] for key in pod.keys if key in state.written}
        self.dirty[state] = None
        return state

    def remove(self, uid: str, now_ns: int) -> PodState | None:
        """Forget a pod: its rule sets lose a user."""
        state = self._states.pop(uid, None)
        if state is None:
            return None
        for key in state.pod.keys:
            if self.by_key.get(key) is state:
                del self.by_key[key]
        self.dirty.pop(state, None)
        for slot in _SLOTS:
            self._follow(state, slot, None, now_ns)
            self._have(state, slot, None, now_ns)
        return state

    def touch_namespace(self, name: str) -> None:
        """Look up the policies of a namespace's pods again."""
        self.dirty.update({state: None for state in self if state.pod.namespace == name})

    def choose(self, now_ns: int) -> None:
        """Look up the policies of the dirty pods, and let the pods follow them."""
        for state in list(self.dirty):
            selecting = self._policies.selecting(state.pod)
            namespace = self._namespaces.find(state.pod.namespace)
            relaxed = namespace is not None and namespace.audit
            enforced = [stored for stored in selecting if not _is_audited(stored, relaxed)]
            audited = [stored for stored in selecting if _is_audited(stored, relaxed)]
            for slot in _SLOTS:
                policies = enforced
                if slot.audits:
                    concerns = any(stored.rules.concerns(slot.direction) for stored in audited)
                    policies = selecting if concerns else []
                recipe = self._recipes.acquire(policies, slot.direction, state.pod.named_ports)
                self._follow(state, slot, recipe, now_ns)

    def _follow(self, state: PodState, slot: Slot, recipe: Recipe | None, now_ns: int) -> None:
        """Follow a recipe that was acquired for this, and release the one before."""
        before, state.recipes[slot] = state.recipes[slot], recipe
        if before is not None:
            self._recipes.release(before, now_ns)

    def _have(self, state: PodState, slot: Slot, rule_set: RuleSet | None, now_ns: int) -> None:
        before, state.rule_sets[slot] = state.rule_sets[slot], rule_set
        if rule_set is not None:
            use(rule_set)
        if before is not None:
            disuse(before, now_ns)

    def change_over(self, now_ns: int) -> tuple[dict[PodState, bool], set[RuleSet]]:
        """Give each pod the rule sets its recipes made; a recipe that was refused leaves its pods what they have.

        Returns:
            The pods whose entries may change (True: something may have been revoked), and the rule sets that pods have
            until then and none has afterwards.
        """
        left: set[RuleSet] = set()
        changed = dict.fromkeys(self.dirty, False)
        self.dirty.clear()
        made, namespaces_matter = self._recipes.made, self._policies.asks_for_namespaces
        for state in self:
            touched = state in changed or not made.isdisjoint(state.recipes.values())
            if not (touched or namespaces_matter or state.pending):
                continue
            for slot in _SLOTS if touched else ():
                recipe = state.recipes[slot]
                if recipe is not None and recipe.rule_set is None:
                    continue
                wanted = None if recipe is None else recipe.rule_set
                before = state.rule_sets[slot]
                if wanted is not before:
                    left.update([before] if before is not None else [])
                    changed[state] = self._change_slot(state, slot, wanted, now_ns) or changed.get(
                        state, False
                    )
            pending = self._is_pending(state)
            if pending != state.pending:
                state.pending = pending
                changed.setdefault(state, False)
        return changed, {rule_set for rule_set in left if not rule_set.users}

    def _change_slot(self, state: PodState, slot: Slot, wanted: RuleSet | None, now_ns: int) -> bool:
        """Change one of a pod's rule sets; give whether that may revoke something."""
        before = state.rule_sets[slot]
        self._have(state, slot, wanted, now_ns)
        if slot.audits or not state.written:
            return False
        numbers = {written_number(entry, slot.direction) for entry in state.written.values()}
        if before is None and wanted is not None and numbers == {wanted.number}:
            return False  # the maps said so before a restart
        if before is None and 0 in numbers:
            state.isolated_since_ns = now_ns
        old, new = (None if item is None else item.content for item in (before, wanted))
        return not only_adds(old, new)

    def _is_pending(self, state: PodState) -> bool:
        """Whether it cannot be told what the pod may do: its namespace is unknown, or it is new and was refused."""
        if self._policies.asks_for_namespaces and self._namespaces.find(state.pod.namespace) is None:
            return True
        return any(
            recipe is not None
            and recipe.rule_set is None
            and not slot.audits
            and state.rule_sets[slot] is None
            and (state.pending or _was_restricted(state))
            for slot, recipe in state.recipes.items()
        )

    def having(self, rule_sets: Iterable[RuleSet]) -> list[PodState]:
        """Give the pods that any of these rule sets restricts."""
        wanted = set(rule_sets)
        return [
            state
            for state in self
            if state.rule_sets[Slot.INGRESS] in wanted or state.rule_sets[Slot.EGRESS] in wanted
        ]


def written_number(entry: PodPolicy, direction: Direction) -> int:
    """The rule set that an entry names for a direction."""
    return entry.ingress_rules if direction is Direction.INGRESS else entry.egress_rules


def _was_restricted(state: PodState) -> bool:
    """Whether the pod is new, or had rules that a restart could not make again."""
    entries = state.written.values()
    return not entries or any(entry.ingress_rules or entry.egress_rules for entry in entries)


def _is_audited(stored: StoredPolicy, relaxed: bool) -> bool:
    """Whether a policy is told of only; a namespace's annotation goes for its own policies, not the cluster's."""
    return stored.audited or (relaxed and stored.subject is not None and stored.subject.namespace is not None)


def with_class(entry: PodPolicy, peer_class: int) -> PodPolicy:
    """The same rules under another class."""
    return msgspec.structs.replace(entry, peer_class=peer_class)
