"""Every address of the cluster, grouped so that work is done a group, not an address.

- A **template** is one (namespace, labels, named ports): the pods of a Deployment share it.
- A **profile** is a template without what no peer of this node asks for. Peers are matched against profiles.
- A **cell** is the addresses of one profile that lie in the same blocks. They have one class.

A node has no namespace, which is how it is told from a pod.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from fast.policy.blocks import BlockSet, BlockTable, changes
from fast.policy.classes import PeerClass
from fast.policy.matching import Peers, WatchEntry, Watches
from fast.policy.peers import NamedPeer, NodePeer, PodPeer
from fast.policy.policy_objects import NamedPort

#: With more new peers than this, each profile asks the index once; with fewer, each peer looks at every profile.
_FEW_PEERS = 16

LabelPairs = tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class Template:
    """What addresses have in common that belong to equal pods."""

    namespace: str | None
    labels: LabelPairs
    ports: tuple[NamedPort, ...]
    profile: Profile
    addresses: int = 0


@dataclass(slots=True, eq=False)
class Profile:
    """What the peers of this node can tell templates apart by. ``matched``: the peers, blocks and watches aside."""

    namespace: str | None
    labels: LabelPairs
    ports: tuple[NamedPort, ...]
    matched: frozenset[int]
    templates: dict[Template, None] = field(default_factory=dict)
    cells: dict[BlockSet, Cell] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it this profile."""
        return (self.namespace, self.labels, self.ports)


@dataclass(slots=True, eq=False)
class Cell:
    """Addresses that nothing here tells apart. ``peer_class`` is what the maps say of them, or None yet."""

    profile: Profile
    blocks: BlockSet
    peer_class: PeerClass | None = None
    addresses: set[bytes] = field(default_factory=set)
    hits: list[tuple[WatchEntry, NamedPort]] = field(default_factory=list)

    @property
    def base(self) -> frozenset[int]:
        """The peers its addresses are, named ports aside."""
        return self.profile.matched | self.blocks if self.blocks else self.profile.matched

    def peers(self, peers: Peers) -> frozenset[int]:
        """All peers its addresses are."""
        if not self.hits:
            return self.base
        named = (
            peers.find(NamedPeer(entry.watch.base, port.name, port.protocol, port.port))
            for entry, port in self.hits
        )
        return self.base.union(number for number in named if number is not None)


T = TypeVar("T", tuple[str, str], NamedPort)


def _finer(known: tuple[T, ...], more: tuple[T, ...]) -> tuple[T, ...]:
    """What a profile is known by, and what it is told apart by from now on."""
    return tuple(sorted(set(known).union(more))) if more else known


class Addresses:
    """The table of addresses. Events change it at once; :meth:`settle` does what new peers and blocks ask for."""

    def __init__(self, peers: Peers, watches: Watches) -> None:
        self._peers = peers
        self._watches = watches
        self._templates: dict[tuple[object, ...], Template] = {}
        self._profiles: dict[tuple[object, ...], Profile] = {}
        self._in_namespace: dict[str | None, dict[Profile, None]] = {}
        self._template_of: dict[bytes, Template] = {}
        self._blocks = BlockTable({})
        # Grow only: a profile that is finer than it need be costs little, one that has to be joined again a lot.
        self._keys: set[str] = set()
        self._names: set[str] = set()
        self._sorted: list[bytes] = []
        self._unsorted: list[bytes] = []
        #: Cells whose class must be found again.
        self.dirty: dict[Cell, None] = {}
        #: Addresses that came to a cell which has a class already.
        self.arrived: dict[Cell, set[bytes]] = {}
        #: The class that addresses had, and where they went (None: they are gone).
        self.departed: set[tuple[PeerClass, Cell | None]] = set()

    def __len__(self) -> int:
        return len(self._template_of)

    def __contains__(self, key: bytes) -> bool:
        return key in self._template_of

    @property
    def block_table(self) -> BlockTable:
        """The blocks as last settled."""
        return self._blocks

    def namespaces(self) -> Iterable[str | None]:
        """The namespaces that addresses are in."""
        return self._in_namespace.keys()

    def find_template(self, key: bytes) -> Template | None:
        """What is known of an address."""
        return self._template_of.get(key)

    def find_cell(self, key: bytes) -> Cell | None:
        """The cell an address is in."""
        template = self._template_of.get(key)
        return None if template is None else template.profile.cells[self._blocks.find(key)]

    # ── events ──────────────────────────────────────────────────────────────────────────────────

    def enter(
        self, key: bytes, namespace: str | None, labels: dict[str, str], ports: tuple[NamedPort, ...] = ()
    ) -> None:
        """Enter an address, or what is new about it. Costs nothing a policy."""
        pairs = tuple(sorted(labels.items()))
        template = self._templates.get((namespace, pairs, ports))
        if template is None:
            template = self._make_template(namespace, pairs, ports)
        before = self._template_of.get(key)
        if before is template:
            return
        old = None if before is None else before.profile.cells[self._blocks.find(key)]
        self._template_of[key] = template
        template.addresses += 1
        if before is None:
            self._unsorted.append(key)
        self._move(key, old, self._cell(template.profile, self._blocks.find(key)))
        if before is not None:
            self._leave_template(before)

    def remove(self, key: bytes) -> None:
        """Take an address out, if it is there."""
        template = self._template_of.pop(key, None)
        if template is not None:
            self._move(key, template.profile.cells[self._blocks.find(key)], None)
            self._leave_template(template)

    def rematch(self, namespace: str) -> None:
        """Match a namespace's profiles again: its labels changed."""
        for profile in self._in_namespace.get(namespace, ()):
            self._set_matched(profile, self._match(profile.namespace, profile.labels))

    # ── peers, keys and blocks ──────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Bring the table up to the peers and watches there are now."""
        keys, names = self._peers.take_keys() - self._keys, self._watches.take_names() - self._names
        self._keys |= keys
        self._names |= names
        if keys or names:
            self._split(keys, names)
        added = self._peers.take_added()
        if any(isinstance(self._peers[number], PodPeer | NodePeer) for number in added):
            self._match_new(added)
        self._touch_names(
            {peer.name for peer in map(self._peers.__getitem__, added) if isinstance(peer, NamedPeer)}
        )
        self._touch_names({entry.watch.port.name for entry in self._watches.take_added()})
        if self._peers.take_blocks_changed():
            self._set_blocks()
        for cell in list(self.dirty):
            self._count_hits(cell)

    def drop_peers(self, numbers: Iterable[int]) -> None:
        """Match peers no more that are about to be dropped; blocks go with the next :meth:`settle`."""
        dropped = frozenset(numbers)
        self._touch_names(
            {peer.name for peer in map(self._peers.__getitem__, dropped) if isinstance(peer, NamedPeer)}
        )
        for profile in self._profiles.values():
            if not dropped.isdisjoint(profile.matched):
                self._set_matched(profile, profile.matched - dropped)

    def _touch_names(self, names: set[str]) -> None:
        """Look again at every cell that may have ports of these names."""
        if not names:
            return
        for profile in self._profiles.values():
            if any(port.name in names for port in profile.ports):
                self.dirty.update(dict.fromkeys(profile.cells.values()))

    def _match(self, namespace: str | None, labels: LabelPairs) -> frozenset[int]:
        """Match labels against the peers that are settled; what came since is matched by :meth:`settle`."""
        return self._peers.match(namespace, dict(labels)) - frozenset(self._peers.added)

    def _match_new(self, added: list[int]) -> None:
        if len(added) > _FEW_PEERS:
            for profile in self._profiles.values():
                found = self._peers.match(profile.namespace, dict(profile.labels))
                self._set_matched(profile, profile.matched | found)
            return
        for number in added:
            peer = self._peers[number]
            profiles: Iterable[Profile] = self._profiles.values()
            if isinstance(peer, PodPeer) and peer.namespace is not None:
                profiles = self._in_namespace.get(peer.namespace, ())
            elif not isinstance(peer, PodPeer):
                profiles = self._in_namespace.get(None, ()) if isinstance(peer, NodePeer) else ()
            for profile in profiles:
                if self._peers.is_one(number, profile.namespace, dict(profile.labels)):
                    self._set_matched(profile, profile.matched | {number})

    def _set_matched(self, profile: Profile, matched: frozenset[int]) -> None:
        if matched != profile.matched:
            profile.matched = matched
            self.dirty.update(dict.fromkeys(profile.cells.values()))

    def _split(self, keys: frozenset[str], names: frozenset[str]) -> None:
        """Tell templates apart by further keys; the largest part of each profile stays what it was."""
        moved: dict[Template, Profile] = {}
        for profile in list(self._profiles.values()):
            parts: dict[tuple[LabelPairs, tuple[NamedPort, ...]], list[Template]] = {}
            for template in profile.templates:
                labels = tuple(pair for pair in template.labels if pair[0] in keys)
                ports = tuple(port for port in template.ports if port.name in names)
                parts.setdefault((labels, ports), []).append(template)
            self._split_profile(profile, parts, moved)
        if moved:
            self._move_templates(moved)

    def _split_profile(
        self,
        profile: Profile,
        parts: dict[tuple[LabelPairs, tuple[NamedPort, ...]], list[Template]],
        moved: dict[Template, Profile],
    ) -> None:
        old_labels, old_ports = profile.labels, profile.ports
        staying = max(parts, key=lambda part: sum(template.addresses for template in parts[part]))
        if staying != ((), ()):  # first of all, since what is left over may need the old key
            del self._profiles[profile.key]
            profile.labels, profile.ports = _finer(old_labels, staying[0]), _finer(old_ports, staying[1])
            self._profiles[profile.key] = profile
            self.dirty.update(dict.fromkeys(profile.cells.values() if staying[1] else ()))
        for part, templates in parts.items():
            if part != staying:
                labels, ports = _finer(old_labels, part[0]), _finer(old_ports, part[1])
                target = self._enter_profile(Profile(profile.namespace, labels, ports, profile.matched))
                moved.update(dict.fromkeys(templates, target))

    def _move_templates(self, moved: dict[Template, Profile]) -> None:
        find = self._blocks.find
        for key, template in self._template_of.items():
            target = moved.get(template)
            if target is not None:
                blocks = find(key)
                self._move(key, template.profile.cells[blocks], self._cell(target, blocks))
        for template, target in moved.items():
            del template.profile.templates[template]
            template.profile = target
            target.templates[template] = None

    def _set_blocks(self) -> None:
        """Put addresses into the cells of the blocks there are now; only those are looked at that a change is about."""
        old, self._blocks = self._blocks, BlockTable(self._peers.blocks())
        for first, last, before, after in changes(old, self._blocks):
            for key in list(self._between(first, last)):
                template = self._template_of.get(key)
                cell = None if template is None else template.profile.cells.get(before)
                if template is not None and cell is not None and key in cell.addresses:
                    self._move(key, cell, self._cell(template.profile, after))

    def _between(self, first: bytes, last: bytes) -> Iterator[bytes]:
        """The keys of a stretch, those that are gone or double included."""
        if self._unsorted:
            if len(self._sorted) + len(self._unsorted) > 2 * len(self._template_of) + _FEW_PEERS:
                self._sorted = list(self._template_of)
            else:
                self._sorted += self._unsorted
            self._unsorted = []
            self._sorted.sort()
        begin, end = bisect_left(self._sorted, first), bisect_right(self._sorted, last)
        return iter(self._sorted[begin:end])

    # ── templates, profiles, cells ──────────────────────────────────────────────────────────────

    def _make_template(
        self, namespace: str | None, labels: LabelPairs, ports: tuple[NamedPort, ...]
    ) -> Template:
        asked = tuple(pair for pair in labels if pair[0] in self._keys)
        named = tuple(sorted(port for port in ports if port.name in self._names))
        profile = self._profiles.get((namespace, asked, named))
        if profile is None:
            matched = self._match(namespace, asked)
            profile = self._enter_profile(Profile(namespace, asked, named, matched))
        template = Template(namespace, labels, ports, profile)
        profile.templates[template] = None
        self._templates[(namespace, labels, ports)] = template
        return template

    def _enter_profile(self, profile: Profile) -> Profile:
        known = self._profiles.setdefault(profile.key, profile)
        self._in_namespace.setdefault(known.namespace, {})[known] = None
        return known

    def _leave_template(self, template: Template) -> None:
        template.addresses -= 1
        if template.addresses:
            return
        del self._templates[(template.namespace, template.labels, template.ports)]
        profile = template.profile
        del profile.templates[template]
        if not profile.templates:
            del self._profiles[profile.key]
            same = self._in_namespace[profile.namespace]
            del same[profile]
            if not same:
                del self._in_namespace[profile.namespace]

    def _cell(self, profile: Profile, blocks: BlockSet) -> Cell:
        cell = profile.cells.get(blocks)
        if cell is None:
            cell = profile.cells[blocks] = Cell(profile, blocks)
            self.dirty[cell] = None
        return cell

    def _move(self, key: bytes, old: Cell | None, new: Cell | None) -> None:
        """Move an address between cells; a new cell begins with the class of the first address that comes."""
        if old is new:
            return
        waits = False
        if old is not None:
            old.addresses.discard(key)
            waits = self._forget_arrival(old, key)
        if new is not None:
            self._arrive(key, old, new, waits=waits)
        if old is not None:
            if old.peer_class is not None and (new is None or new.peer_class is not old.peer_class):
                self.departed.add((old.peer_class, new))
            if not old.addresses:
                self._drop_cell(old)

    def _arrive(self, key: bytes, old: Cell | None, new: Cell, *, waits: bool) -> None:
        """``waits``: the maps do not even say yet what the old cell's class is."""
        inherited = old.peer_class if old is not None else None
        if not new.addresses and new.peer_class is None and inherited is not None:
            new.peer_class = inherited
            inherited.users += 1
        if new.peer_class is not None and (waits or new.peer_class is not inherited):
            self.arrived.setdefault(new, set()).add(key)
        new.addresses.add(key)

    def _forget_arrival(self, cell: Cell, key: bytes) -> bool:
        waiting = self.arrived.get(cell)
        if waiting is None or key not in waiting:
            return False
        waiting.remove(key)
        if not waiting:
            del self.arrived[cell]
        return True

    def _drop_cell(self, cell: Cell) -> None:
        del cell.profile.cells[cell.blocks]
        self.dirty.pop(cell, None)
        for entry, port in cell.hits:
            self._watches.count(entry, port, -1)
        if cell.peer_class is not None:
            cell.peer_class.leave()

    def _count_hits(self, cell: Cell) -> None:
        """Tell the watches which numbers the cell's addresses have now."""
        hits = self._watches.hits(cell.base, cell.profile.ports) if cell.profile.ports else []
        for entry, port in hits:
            self._watches.count(entry, port, 1)
        for entry, port in cell.hits:
            self._watches.count(entry, port, -1)
        cell.hits = hits
