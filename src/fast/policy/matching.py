"""The tables of peers and watches: what the rule sets of this node ask about addresses, interned and counted.

A peer has a number from the first rule set that uses it until a while after the last one. Which pods and nodes it
matches is found through an index of labels; blocks are ``blocks``'s, named ports ``Watches``'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fast.policy.label_selectors import Selector, SelectorIndex
from fast.policy.peers import AnyPeer, BlockPeer, NodePeer, Peer, PodPeer
from fast.policy.policy_objects import NamedPort, Namespace
from fast.policy.rulesets import Watch

Labels = Mapping[str, str]


class Namespaces:
    """Labels by namespace. One that is gone keeps its last labels while pods of it are left."""

    def __init__(self) -> None:
        self._known: dict[str, Namespace] = {}
        self._gone: set[str] = set()

    def find(self, name: str) -> Namespace | None:
        """The namespace as last seen; None if it never was."""
        return self._known.get(name)

    def set(self, namespace: Namespace) -> Namespace | None:
        """Take over what a namespace says now; give what it said before."""
        before = self._known.get(namespace.name)
        self._known[namespace.name] = namespace
        self._gone.discard(namespace.name)
        return before

    def remove(self, name: str) -> None:
        """Note that a namespace is gone; :meth:`forget` drops it."""
        if name in self._known:
            self._gone.add(name)

    @property
    def some_gone(self) -> bool:
        """Whether there may be something to forget."""
        return bool(self._gone)

    def forget(self, used: Iterable[str]) -> None:
        """Drop the namespaces that are gone, except those that something is still in."""
        for name in self._gone.difference(used):
            del self._known[name]
            self._gone.discard(name)


def selects_namespace(selector: Selector, namespace: Namespace | None) -> bool:
    """Whether a selector selects a namespace; one that nobody has seen yet is selected only by the empty selector."""
    if not selector.requirements:
        return True
    return namespace is not None and selector.matches(namespace.labels)


@dataclass(slots=True)
class _Entry:
    peer: Peer
    users: int = 0
    unused_since_ns: int = 0


class Peers:
    """Interned peers ↔ numbers. Numbers are never used twice."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._entries: dict[int, _Entry] = {}
        self._numbers: dict[Peer, int] = {}
        self._index: SelectorIndex[int] = SelectorIndex()
        self._keys: Counter[str] = Counter()
        self._next = 1
        self._unused: dict[int, None] = {}
        #: The peers that came since the addresses were last settled.
        self.added: dict[int, None] = {}
        self._added_keys: set[str] = set()
        self._blocks: dict[int, BlockPeer] = {}
        self._blocks_changed = False

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> Peer:
        return self._entries[number].peer

    def find(self, peer: Peer) -> int | None:
        """The peer's number, if it is in use."""
        return self._numbers.get(peer)

    def take_added(self) -> list[int]:
        """Give the peers that came since this was last asked."""
        added = list(self.added)
        self.added.clear()
        return added

    def take_keys(self) -> frozenset[str]:
        """Give the label keys that peers began to ask for since this was last asked."""
        keys = frozenset(self._added_keys)
        self._added_keys.clear()
        return keys

    def take_blocks_changed(self) -> bool:
        """Whether blocks came or went since this was last asked."""
        changed, self._blocks_changed = self._blocks_changed, False
        return changed

    def blocks(self) -> dict[int, BlockPeer]:
        """The blocks in use, by number."""
        return self._blocks

    def acquire(self, peer: Peer) -> int:
        """Use a peer once more; the first use makes it known."""
        number = self._numbers.get(peer)
        if number is None:
            number = self._next
            self._next += 1
            self._numbers[peer] = number
            self._entries[number] = _Entry(peer)
            self._enter(number, peer)
            self.added[number] = None
        entry = self._entries[number]
        entry.users += 1
        self._unused.pop(number, None)
        return number

    def release(self, number: int, now_ns: int) -> None:
        """Use a peer once less. It goes on being matched until it is dropped."""
        entry = self._entries[number]
        entry.users -= 1
        if not entry.users:
            entry.unused_since_ns = now_ns
            self._unused[number] = None

    def unused(self, before_ns: int) -> list[int]:
        """The peers that nobody has used since a moment."""
        return [number for number in self._unused if self._entries[number].unused_since_ns <= before_ns]

    @property
    def oldest_unused_ns(self) -> int | None:
        """Since when the first of the unused peers is unused."""
        return min((self._entries[number].unused_since_ns for number in self._unused), default=None)

    def drop(self, number: int) -> None:
        """Forget an unused peer: no address matches it any more."""
        entry = self._entries.pop(number)
        assert not entry.users
        del self._unused[number]
        del self._numbers[entry.peer]
        self._leave(number, entry.peer)
        self.added.pop(number, None)

    def _enter(self, number: int, peer: Peer) -> None:
        for scope, selector in _places(peer):
            self._index.add(scope, selector, number)
        for key in _label_keys(peer):
            if not self._keys[key]:
                self._added_keys.add(key)
            self._keys[key] += 1
        if isinstance(peer, BlockPeer):
            self._blocks[number] = peer
            self._blocks_changed = True

    def _leave(self, number: int, peer: Peer) -> None:
        for scope, selector in _places(peer):
            self._index.remove(scope, selector, number)
        for key in _label_keys(peer):
            self._keys[key] -= 1
            if not self._keys[key]:
                del self._keys[key]
        if isinstance(peer, BlockPeer):
            del self._blocks[number]
            self._blocks_changed = True

    def match(self, namespace: str | None, labels: Labels) -> frozenset[int]:
        """Give every peer that a pod of the namespace with these labels is (or, without a namespace, a node)."""
        if namespace is None:
            candidates = set(self._index.candidates(_NODES, labels))
        else:
            candidates = set(self._index.candidates((_PODS, namespace), labels))
            candidates.update(self._index.candidates(_PODS, labels))
            known = self._namespaces.find(namespace)
            candidates.update(self._index.candidates(_NAMESPACES, known.labels if known else {}))
        return frozenset(number for number in candidates if self.is_one(number, namespace, labels))

    def is_one(self, number: int, namespace: str | None, labels: Labels) -> bool:
        """Whether a pod of the namespace with these labels (or a node) is this peer, as far as labels go."""
        peer = self._entries[number].peer
        if isinstance(peer, NodePeer):
            return namespace is None and peer.nodes.matches(labels)
        if not isinstance(peer, PodPeer) or namespace is None:
            return False
        if peer.namespaces is None:
            return peer.namespace == namespace and peer.pods.matches(labels)
        return peer.pods.matches(labels) and selects_namespace(
            peer.namespaces, self._namespaces.find(namespace)
        )


_PODS, _NAMESPACES, _NODES = "pods", "namespaces", "nodes"


def _places(peer: Peer) -> list[tuple[object, Selector]]:
    """Where the index keeps a peer: by its pods' labels, else by its namespaces'."""
    if isinstance(peer, NodePeer):
        return [(_NODES, peer.nodes)]
    if not isinstance(peer, PodPeer):
        return []
    if peer.namespaces is None:
        return [((_PODS, peer.namespace), peer.pods)]
    if peer.pods.requirements:
        return [(_PODS, peer.pods)]
    return [(_NAMESPACES, peer.namespaces)]


def _label_keys(peer: Peer) -> frozenset[str]:
    if isinstance(peer, NodePeer):
        return peer.nodes.keys
    return peer.pods.keys if isinstance(peer, PodPeer) else frozenset()


#: A watched number: (protocol, port).
Number = tuple[int, int]


@dataclass(slots=True)
class WatchEntry:
    """A watch in use, and how many cells have each number."""

    watch: Watch
    base: int | None
    users: int = 0
    numbers: Counter[Number] = field(default_factory=Counter)


class Watches:
    """The named ports of egress rules, and the numbers they have among the addresses that the rules' peers match."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._entries: dict[Watch, WatchEntry] = {}
        self.by_name: dict[str, list[WatchEntry]] = {}
        self._changed: dict[Watch, None] = {}
        self._shrunk: dict[Watch, None] = {}
        self._added: list[WatchEntry] = []
        self._added_names: set[str] = set()

    def take_changed(self) -> list[Watch]:
        """Give the watches whose set of numbers changed since this was last asked."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def end_plan(self) -> bool:
        """Let the next plan see the watches that lost a number; give whether there are any.

        Not this plan: the address that had the number changes in it, and rules must not change under it at once.
        """
        self._changed.update(self._shrunk)
        self._shrunk.clear()
        return bool(self._changed)

    def take_added(self) -> list[WatchEntry]:
        """Give the watches that came since this was last asked."""
        added, self._added = self._added, []
        return added

    def take_names(self) -> frozenset[str]:
        """Give the port names that watches began to ask for since this was last asked."""
        names = frozenset(self._added_names)
        self._added_names.clear()
        return names

    def acquire(self, watch: Watch) -> WatchEntry:
        """Use a watch once more, and the peer it is about."""
        base = None if isinstance(watch.base, AnyPeer) else self._peers.acquire(watch.base)
        entry = self._entries.get(watch)
        if entry is None:
            entry = self._entries[watch] = WatchEntry(watch, base)
            if watch.port.name not in self.by_name:
                self._added_names.add(watch.port.name)
            self._added.append(entry)
            self.by_name.setdefault(watch.port.name, []).append(entry)
        entry.users += 1
        return entry

    def release(self, watch: Watch, now_ns: int) -> None:
        """Use a watch once less."""
        entry = self._entries[watch]
        if entry.base is not None:
            self._peers.release(entry.base, now_ns)
        entry.users -= 1
        if not entry.users:
            del self._entries[watch]
            same_name = self.by_name[watch.port.name]
            same_name.remove(entry)
            if not same_name:
                del self.by_name[watch.port.name]

    def numbers(self, watch: Watch) -> tuple[Number, ...]:
        """The numbers of a watch, sorted."""
        entry = self._entries.get(watch)
        return tuple(sorted(entry.numbers)) if entry else ()

    def hits(self, base: frozenset[int], ports: tuple[NamedPort, ...]) -> list[tuple[WatchEntry, NamedPort]]:
        """Give the watches that an address with these peers and ports has a number for."""
        return [
            (entry, port)
            for port in ports
            for entry in self.by_name.get(port.name, ())
            if entry.watch.port.matches(port.name, port.protocol)
            and (entry.base is None or entry.base in base)
        ]

    def count(self, entry: WatchEntry, port: NamedPort, by: int) -> None:
        """Note that a cell more (or less) has this number."""
        number = (port.protocol, port.port)
        had = entry.numbers[number]
        entry.numbers[number] = had + by
        if not entry.numbers[number]:
            del entry.numbers[number]
        if not had:
            self._changed[entry.watch] = None
        elif not had + by:
            self._shrunk[entry.watch] = None
