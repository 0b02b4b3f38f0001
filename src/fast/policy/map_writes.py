"""The writes of a plan, step by step, and what the plans so far have written of blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fast.policy.addresses import Cell
from fast.policy.classes import PeerClass, RuleSet
from fast.policy.map_layout import Map
from fast.policy.peers import Prefix
from fast.policy.plan import Delete, PlanBuilder, Put, SetClass, SetPod, Step
from fast.policy.pods import PodState, with_class
from fast.policy.restart import Remembered

if TYPE_CHECKING:
    from fast.policy.policy_tables import PolicyTables


@dataclass(frozen=True, slots=True)
class Move:
    """A cell that got another class."""

    cell: Cell
    before: PeerClass | None
    after: PeerClass


@dataclass(slots=True)
class Moves:
    """Which addresses get which class: whole cells, and those that came to a cell.

    ``transitions``: every class that any address had, and what it has now (None: the address is gone).
    """

    cells: list[Move]
    arrived: dict[Cell, set[bytes]]
    transitions: set[tuple[PeerClass, PeerClass | None]]


class Writing:
    """Puts writes into plans. While ``remembered`` is set, it leaves out what the maps say already."""

    def __init__(self, tables: PolicyTables) -> None:
        self._tables = tables
        self.blocks: dict[Prefix, PeerClass] = {}
        self.remembered: Remembered | None = None
        self.rewrite: set[bytes] = set()

    def _put(self, builder: PlanBuilder, step: Step, put: Put) -> None:
        if self.remembered is None or not self.remembered.has(put):
            builder.add(step, put)

    def put_entries(self, builder: PlanBuilder) -> None:
        """Step 1: what the classes that come mean to the rule sets that are in the maps."""
        of_page, added = self._tables.maps.of_page, self._tables.recipes.added
        for peer_class in self._tables.maps.added:
            for page, bits in peer_class.entries.items():
                if of_page[page] not in added:
                    self._put(builder, Step.PREPARE, Put(Map.PEERS, (page, peer_class.number), bits))

    def put_classes(self, builder: PlanBuilder, moves: Moves) -> None:
        """Step 2: addresses of pods elsewhere, and of nodes. Class 0 needs no write in an entry that is new."""
        local = self._tables.pods.by_key.keys()
        by_class: dict[int, set[bytes]] = {}
        for move in moves.cells:
            if move.before is not None or move.after.number or self.remembered is not None:
                by_class.setdefault(move.after.number, set()).update(move.cell.addresses)
        for cell, addresses in moves.arrived.items():
            assert cell.peer_class is not None
            by_class.setdefault(cell.peer_class.number, set()).update(addresses)
        for key in self.rewrite:
            cell_of = self._tables.addresses.find_cell(key)
            if cell_of is not None and cell_of.peer_class is not None:
                by_class.setdefault(cell_of.peer_class.number, set()).add(key)
        self.rewrite.clear()
        for number, addresses in by_class.items():
            remote = tuple(addresses - local)
            if self.remembered is not None:
                remote = self.remembered.without_class(remote, number)
            if remote:
                builder.add(Step.CLASSES, SetClass(number, remote))

    def put_blocks(self, builder: PlanBuilder, blocks: dict[Prefix, PeerClass]) -> None:
        """Step 2, for addresses that have no entry. Prefixes of blocks that no rule set uses go in step 5."""
        for prefix, peer_class in blocks.items():
            before = self.blocks.get(prefix)
            if before is peer_class:
                continue
            peer_class.users += 1
            if before is not None:
                before.leave()
            self._put(builder, Step.CLASSES, Put(Map.BLOCKS, prefix, peer_class.number))
        for prefix, before in self.blocks.items():
            if prefix not in blocks:
                before.leave()
                builder.add(Step.REMOVE, Delete(Map.BLOCKS, prefix))
        self.blocks = blocks

    def put_rule_sets(self, builder: PlanBuilder) -> None:
        """Step 3: rule sets that nothing refers to yet; a page after what it needs."""
        for rule_set in self._tables.recipes.added:
            for key, bits in self._tables.maps.entries_of(rule_set).items():
                self._put(builder, Step.RULE_SETS, Put(Map.PEERS, key, bits))
            pages = list(zip(rule_set.numbers, rule_set.pages, rule_set.values, strict=True))
            for number, page, value in reversed(pages):
                for prefix, bits in page.ports.items():
                    self._put(builder, Step.RULE_SETS, Put(Map.PORTS, (number, prefix), bits))
                self._put(builder, Step.RULE_SETS, Put(Map.RULE_SETS, number, value))
            self._put(builder, Step.RULE_SETS, Put(Map.DIGESTS, rule_set.number, rule_set.digest))

    def put_pods(self, builder: PlanBuilder, moves: Moves, changed: Iterable[PodState]) -> None:
        """Steps 2 and 4: a local pod's class with the rules it had, then everything that is new at once."""
        by_key = self._tables.pods.by_key
        touched = dict.fromkeys(changed)
        for move in moves.cells:
            touched.update({by_key[key]: None for key in by_key.keys() & move.cell.addresses})
        for addresses in moves.arrived.values():
            touched.update({by_key[key]: None for key in by_key.keys() & addresses})
        for state in touched:
            for key in state.pod.keys:
                self._put_pod(builder, state, key)

    def _put_pod(self, builder: PlanBuilder, state: PodState, key: bytes) -> None:
        cell = self._tables.addresses.find_cell(key)
        assert cell is not None
        assert cell.peer_class is not None
        entry = state.entry(cell.peer_class.number)
        before = state.written.get(key)
        if before is not None and before.peer_class != entry.peer_class:
            before = with_class(before, entry.peer_class)
            builder.add(Step.CLASSES, SetPod(key, before))
        if before != entry:
            builder.add(Step.PODS, SetPod(key, entry))
        state.written[key] = entry

    def delete_rule_set(self, builder: PlanBuilder, rule_set: RuleSet, peers: list[tuple[int, int]]) -> None:
        """Step 5: a rule set that no pod has any more."""
        builder.add(Step.REMOVE, Delete(Map.DIGESTS, rule_set.number))
        for number, page in zip(rule_set.numbers, rule_set.pages, strict=True):
            builder.add(Step.REMOVE, Delete(Map.RULE_SETS, number))
            for prefix in page.ports:
                builder.add(Step.REMOVE, Delete(Map.PORTS, (number, prefix)))
        for key in peers:
            builder.add(Step.REMOVE, Delete(Map.PEERS, key))

    def delete_class(self, builder: PlanBuilder, unused: PeerClass) -> None:
        """Step 5: what a class means that no address has any more."""
        for page in unused.entries:
            builder.add(Step.REMOVE, Delete(Map.PEERS, (page, unused.number)))

    def wanted(self) -> dict[Map, set[object]]:
        """The keys of every entry that the plans so far have written and not deleted."""
        maps = self._tables.maps
        rule_sets = list(maps.rule_sets.values())
        return {
            Map.RULE_SETS: set(maps.of_page),
            Map.DIGESTS: {rule_set.number for rule_set in rule_sets},
            Map.PEERS: {(page, item.number) for item in maps.classes for page in item.entries},
            Map.PORTS: {
                (number, prefix)
                for rule_set in rule_sets
                for number, page in zip(rule_set.numbers, rule_set.pages, strict=True)
                for prefix in page.ports
            },
            Map.BLOCKS: set(self.blocks),
        }
