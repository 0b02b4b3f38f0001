"""From tables to a plan: what must be matched, made, counted and written, in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fast.policy.addresses import Cell
from fast.policy.blocks import BlockTable
from fast.policy.classes import PeerClass, RuleSet
from fast.policy.map_writes import Move, Moves, Writing
from fast.policy.peers import BlockPeer, Prefix
from fast.policy.plan import Delete, Plan, PlanBuilder, Step
from fast.policy.pods import PodState
from fast.policy.policy_objects import Problem
from fast.policy.recipes import too_large
from fast.policy.restart import Remembered

if TYPE_CHECKING:
    from fast.policy.policy_tables import PolicyTables

_SECOND_NS = 1_000_000_000
#: What nothing refers to is removed after this; a program may still be reading it.
REMOVE_AFTER_NS = _SECOND_NS
#: A peer that no rule set uses is matched on for this long: policies that come and go write no address twice.
FORGET_AFTER_NS = 30 * _SECOND_NS
#: How long the rules behind a denial can be told after they are gone.
EXPLAIN_FOR_NS = 600 * _SECOND_NS


class Planning:
    """Makes the plans of one :class:`PolicyTables`."""

    def __init__(self, tables: PolicyTables) -> None:
        self._tables = tables
        self._writing = Writing(tables)
        self._remembered: Remembered | None = None
        self._leftovers: tuple[int, list[Delete]] = (0, [])
        self._gone: dict[int, tuple[RuleSet, int]] = {}
        self._overflow: Problem | None = None
        self._postponed: list[Cell] = []
        self._written_table: BlockTable | None = None
        self._planned_ns = 0
        self._must_go_on = False

    # ── restart ─────────────────────────────────────────────────────────────────────────────────

    def remember(self, remembered: Remembered) -> None:
        """Take the maps for what they are; until the first plan."""
        tables = self._tables
        self._remembered = self._writing.remembered = remembered
        tables.recipes.remembered = remembered
        tables.maps.next_page = remembered.next_page
        tables.maps.next_class = remembered.next_class

    def remembered_pod(self, state: PodState) -> None:
        """Take over what the maps say of a pod that is entered for the first time."""
        if self._remembered is None or state.written:
            return
        entries = {key: self._remembered.find_pod(key) for key in state.pod.keys}
        state.written = {key: entry for key, entry in entries.items() if entry is not None}
        for entry in state.written.values():
            state.epoch = max(state.epoch, entry.epoch)
            state.isolated_since_ns = max(state.isolated_since_ns, entry.isolated_since_ns)

    # ── the plan ────────────────────────────────────────────────────────────────────────────────

    def rewrite(self, key: bytes) -> None:
        """Write an address's class with the next plan, whatever the maps say of it."""
        self._writing.rewrite.add(key)

    def plan(self, now_ns: int) -> Plan:
        """See :meth:`PolicyTables.plan`."""
        tables, writing = self._tables, self._writing
        builder = PlanBuilder()
        self._drop_peers(now_ns - FORGET_AFTER_NS)
        tables.pods.choose(now_ns)
        targets, blocks = self._settle(now_ns)
        changed, leaving = tables.pods.change_over(now_ns)
        moves = self._move_cells(targets, leaving)
        writing.put_entries(builder)
        writing.put_classes(builder, moves)
        writing.put_blocks(builder, blocks)
        writing.put_rule_sets(builder)
        changed.update(dict.fromkeys(self._revoked(moves), True))
        for state in (state for state, revoked in changed.items() if revoked):
            state.raise_epoch()
        writing.put_pods(builder, moves, changed)
        self._remove(builder, now_ns)
        self._finish(now_ns)
        return builder.finish(self._problems())

    def _settle(self, now_ns: int) -> tuple[dict[Cell, PeerClass], dict[Prefix, PeerClass]]:
        """Match, make and count, until everything that is left has room."""
        tables = self._tables
        meanings_due = self._remembered
        while True:
            tables.addresses.settle()
            tables.recipes.touch(tables.watches.take_changed())
            tables.recipes.make(now_ns)
            tables.addresses.settle()
            if meanings_due is not None:
                tables.maps.know(meanings_due.class_meanings(), meanings_due.kept)
                meanings_due = None
            targets = {
                cell: tables.maps.get_class(cell.peers(tables.peers), self._hint(cell))
                for cell in tables.addresses.dirty
            }
            blocks = self._find_blocks()
            tables.maps.drop_unwanted({*targets.values(), *blocks.values()})
            reason = self._find_overflow()
            if not reason:
                self._overflow = None
                return targets, blocks
            if not tables.recipes.added:
                return self._without_new_classes(targets, blocks, reason)
            largest = max(tables.recipes.added, key=self._size)
            tables.recipes.refuse(largest, reason, now_ns)
            self._drop_peers(now_ns)

    def _find_blocks(self) -> dict[Prefix, PeerClass]:
        table = self._tables.addresses.block_table
        if table is self._written_table:
            return self._writing.blocks
        hints = {} if self._remembered is None else self._remembered.maps.blocks
        return {
            prefix: self._tables.maps.get_class(found, hints.get(prefix, 0))
            for prefix, found in table.prefixes.items()
        }

    def _hint(self, cell: Cell) -> int:
        """The class that a restart found at one of the cell's addresses."""
        if self._remembered is None or not cell.addresses:
            return 0
        return self._remembered.class_of(next(iter(cell.addresses)))

    def _find_overflow(self) -> str:
        """Say which map has no room for what was counted; empty if all have."""
        tables, capacity = self._tables, self._tables.capacity
        if tables.maps.entries > capacity.peers:
            return f"{tables.maps.entries} peers entries, {capacity.peers} are possible"
        prefixes = len(tables.addresses.block_table.prefixes)
        if prefixes > capacity.blocks:
            return f"{prefixes} block prefixes, {capacity.blocks} are possible"
        return ""

    def _size(self, rule_set: RuleSet) -> int:
        """How much room a rule set's peers take."""
        blocks = sum(1 + len(peer.holes) for peer in rule_set.peers if isinstance(peer, BlockPeer))
        return blocks + len(self._tables.maps.entries_of(rule_set))

    def _without_new_classes(
        self, targets: dict[Cell, PeerClass], blocks: dict[Prefix, PeerClass], reason: str
    ) -> tuple[dict[Cell, PeerClass], dict[Prefix, PeerClass]]:
        """Leave addresses the class they have, or none: new addresses alone have filled the maps."""
        maps = self._tables.maps
        self._tell_overflow(reason)
        kept = {
            cell: (cell.peer_class or maps.none) if target in maps.added else target
            for cell, target in targets.items()
        }
        same = {
            prefix: self._writing.blocks.get(prefix, maps.none) if target in maps.added else target
            for prefix, target in blocks.items()
        }
        self._postponed = [cell for cell, target in targets.items() if kept[cell] is not target]
        maps.drop_unwanted({*kept.values(), *same.values()})
        return kept, same

    def _move_cells(self, targets: dict[Cell, PeerClass], leaving: set[RuleSet]) -> Moves:
        """Give the cells their classes; tell what changes, and for whom."""
        pages = [number for rule_set in leaving for number in rule_set.numbers]
        bridges: dict[tuple[PeerClass, PeerClass], PeerClass] = {}
        addresses = self._tables.addresses
        moves = Moves(cells=[], arrived=addresses.arrived, transitions=set())
        addresses.arrived = {}
        for cell, wanted in targets.items():
            before, target = cell.peer_class, wanted
            if before is target:
                continue
            if before is not None and pages:
                found = bridges.get((before, wanted)) or self._bridge(before, wanted, pages)
                if found is None:  # until the rule sets that leave are gone
                    self._postponed.append(cell)
                    continue
                target = bridges[(before, wanted)] = found
            cell.peer_class = target
            target.users += 1
            if before is not None:
                before.leave()
                moves.transitions.add((before, target))
            moves.cells.append(Move(cell, before, target))
            moves.arrived.pop(cell, None)
        moves.transitions.update(
            (old, None if cell is None else cell.peer_class) for old, cell in addresses.departed
        )
        addresses.departed.clear()
        addresses.dirty = dict.fromkeys(self._postponed)
        self._postponed = []
        return moves

    def _bridge(self, before: PeerClass, wanted: PeerClass, pages: list[int]) -> PeerClass | None:
        """Give the bridge between two classes; None if it has no room: its addresses keep the class they have."""
        maps, room = self._tables.maps, self._tables.capacity.peers
        needed = maps.entries + maps.count_bridge(before, wanted, pages)
        if needed > room:
            self._tell_overflow(f"{needed} peers entries while rule sets change, {room} are possible")
            return None
        return maps.bridge(before, wanted, pages)

    def _tell_overflow(self, reason: str) -> None:
        """Name the policy whose rule set takes the most room."""
        largest = max(self._tables.maps.rule_sets.values(), key=self._size)
        recipe = next((item for item in self._tables.recipes if item.rule_set is largest), None)
        self._overflow = too_large(recipe, reason) if recipe is not None else None

    def _revoked(self, moves: Moves) -> list[PodState]:
        """Give the pods to which an address means less than it did, or, with tiers, something else."""
        rule_sets: dict[RuleSet, None] = {}
        for old, new in moves.transitions:
            rule_sets.update(dict.fromkeys(self._tables.maps.revoked(old, new)))
        return self._tables.pods.having(rule_sets) if rule_sets else []

    # ── what goes ───────────────────────────────────────────────────────────────────────────────

    def _drop_peers(self, before_ns: int) -> None:
        """Forget the peers that nobody has used since a moment; addresses whose class was finer get a wider one."""
        tables = self._tables
        unused = tables.peers.unused(before_ns)
        if unused:
            tables.addresses.drop_peers(unused)
            for number in unused:
                tables.peers.drop(number)

    def _remove(self, builder: PlanBuilder, now_ns: int) -> None:
        """Remove what nothing has referred to for a second; whatever was too large may have room now."""
        tables, before_ns = self._tables, now_ns - REMOVE_AFTER_NS
        removed = False
        for rule_set in tables.maps.unused_rule_sets(before_ns):
            self._gone.update(dict.fromkeys(rule_set.numbers, (rule_set, now_ns)))
            self._writing.delete_rule_set(builder, rule_set, tables.recipes.drop(rule_set, now_ns))
            removed = True
        for unused in tables.maps.unused_classes(before_ns, now_ns):
            self._writing.delete_class(builder, unused)
            removed = True
        due_ns, leftovers = self._leftovers
        if leftovers and due_ns <= now_ns:
            for delete in leftovers:
                builder.add(Step.REMOVE, delete)
            self._leftovers = (0, [])
        if removed:
            tables.recipes.retry()
        self._gone = {
            number: item for number, item in self._gone.items() if now_ns - item[1] < EXPLAIN_FOR_NS
        }

    def _finish(self, now_ns: int) -> None:
        tables = self._tables
        tables.recipes.added.clear()
        tables.recipes.made.clear()
        tables.maps.added.clear()
        if self._overflow is None:
            self._written_table = tables.addresses.block_table
        self._planned_ns = now_ns
        self._must_go_on = tables.watches.end_plan()
        if tables.namespaces.some_gone:
            used = {name for name in tables.addresses.namespaces() if name is not None}
            tables.namespaces.forget(used | {state.pod.namespace for state in tables.pods})
        if self._remembered is not None:
            leftovers = self._remembered.leftovers(self._writing.wanted())
            self._leftovers = (now_ns + REMOVE_AFTER_NS, leftovers)
            self._remembered = self._writing.remembered = None
            tables.recipes.remembered = Remembered()
            tables.maps.know({}, frozenset())

    @property
    def next_plan_ns(self) -> int | None:
        """See :meth:`PolicyTables.next_plan_ns`."""
        tables = self._tables
        times = [
            item.unused_since_ns + REMOVE_AFTER_NS
            for item in tables.maps.idle()
            if item.unused_since_ns is not None
        ]
        oldest = tables.peers.oldest_unused_ns
        if oldest is not None:
            times.append(oldest + FORGET_AFTER_NS)
        if tables.recipes.dirty or self._must_go_on:
            times.append(self._planned_ns)
        if self._leftovers[1]:
            times.append(self._leftovers[0])
        return min(times, default=None)

    def find_rule_set(self, number: int) -> RuleSet | None:
        """See :meth:`PolicyTables.find_rule_set`."""
        found = self._tables.maps.of_page.get(number)
        if found is None and number in self._gone:
            return self._gone[number][0]
        return found

    def _problems(self) -> tuple[Problem, ...]:
        tables = self._tables
        found = dict.fromkeys(tables.policies.problems)
        found.update(dict.fromkeys(tables.recipes.problems))
        if self._overflow is not None:
            found[self._overflow] = None
        return tuple(found)
