"""The tables of classes and of rule sets in the maps, and the peers entries between them.

A class is a set of peers; a rule set's page has bits for each peer it uses. The peers map has an entry for each pair of
page and class that have a peer in common. Numbers of classes and pages are never used twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fast.policy.map_layout import RuleSetFlag, RuleSetValue
from fast.policy.peers import BlockPeer, Peer
from fast.policy.policy_objects import Tier
from fast.policy.rulesets import Page, RuleSetContent

#: The class of what matches no peer; it has no entries.
NO_CLASS = 0


@dataclass(slots=True, eq=False)
class PeerClass:
    """A set of peers that addresses have. ``entries``: page → bits, as in the peers map."""

    number: int
    peers: frozenset[int]
    key: object
    idle: dict[PeerClass, None] = field(repr=False)
    entries: dict[int, int] = field(default_factory=dict)
    users: int = 0
    unused_since_ns: int | None = None

    def leave(self) -> None:
        """Have a user less: a cell of addresses, or a block's prefix."""
        self.users -= 1
        if not self.users:
            self.idle[self] = None


@dataclass(slots=True, eq=False)
class RuleSet:
    """A rule set with its numbers: ``number`` is its first page's."""

    content: RuleSetContent
    digest: bytes
    pages: list[Page]
    numbers: list[int]
    peers: dict[Peer, int]
    users: int = 0
    unused_since_ns: int | None = None

    @property
    def number(self) -> int:
        """What a pod's entry refers to it by."""
        return self.numbers[0]

    @property
    def ports(self) -> int:
        """How many entries of the ports map it needs."""
        return sum(len(page.ports) for page in self.pages)

    @property
    def values(self) -> list[RuleSetValue]:
        """Its pages as the maps hold them."""
        following = [*self.numbers[1:], 0]
        return [
            RuleSetValue(
                page.any,
                page.any_pod,
                page.accept,
                page.deny,
                page.np_first,
                page.baseline_first,
                self.flags,
                following[index],
            )
            for index, page in enumerate(self.pages)
        ]

    @property
    def flags(self) -> RuleSetFlag:
        """What all its pages say of it."""
        flags = RuleSetFlag(0)
        if self.content.isolated:
            flags |= RuleSetFlag.NP_ISOLATED
        if any(isinstance(peer, BlockPeer) for peer in self.peers):
            flags |= RuleSetFlag.HAS_BLOCKS
        if self.has_tiers:
            flags |= RuleSetFlag.HAS_TIERS
        return flags

    @property
    def has_tiers(self) -> bool:
        """Whether a ClusterNetworkPolicy is in it, so that a match more may revoke."""
        return any(group.tier is not Tier.NETWORK_POLICY for group in self.content.groups)


class PeersMap:
    """Classes and pages, and every entry of the peers map as their product."""

    def __init__(self) -> None:
        self._classes: dict[object, PeerClass] = {}
        self._having: dict[int, dict[PeerClass, None]] = {}
        self._uses: dict[int, dict[int, int]] = {}
        self.rule_sets: dict[bytes, RuleSet] = {}
        self.of_page: dict[int, RuleSet] = {}
        self.next_class = 1
        self.next_page = 1
        #: Entries of the peers and of the ports map.
        self.entries = 0
        self.ports = 0
        #: Classes that came since this was last cleared.
        self.added: dict[PeerClass, None] = {}
        self._idle: dict[PeerClass, None] = {}
        self._bridged: dict[int, dict[PeerClass, None]] = {}
        self.none = PeerClass(NO_CLASS, frozenset(), None, self._idle, users=1)
        self._known: dict[int, dict[int, int]] = {}
        self._known_pages: frozenset[int] = frozenset()
        self._taken: set[int] = set()

    @property
    def classes(self) -> Iterable[PeerClass]:
        """All classes but the empty one."""
        return self._classes.values()

    # ── classes ─────────────────────────────────────────────────────────────────────────────────

    def get_class(self, peers: frozenset[int], hint: int = 0) -> PeerClass:
        """Give the class of a set of peers; a new one gets its entries for all rule sets there are.

        ``hint``: the class that the maps had before a restart where this one is wanted.
        """
        if not peers:
            return self.none
        found = self._classes.get(peers)
        if found is None:
            found = self._add_class(peers, hint)
        return found

    def know(self, meanings: dict[int, dict[int, int]], pages: frozenset[int]) -> None:
        """Restart: tell what each class in the maps means to the pages that stay, so that it keeps its number."""
        self._known, self._known_pages = meanings, pages
        self._taken.clear()

    def _take_known(self, entries: dict[int, int], hint: int) -> bool:
        """Whether the class in the maps with this number means the same; each is taken once."""
        meaning = {page: entries[page] for page in entries.keys() & self._known_pages}
        if not hint or hint in self._taken or self._known.get(hint, {}) != meaning:
            return False
        self._taken.add(hint)
        return True

    def drop_unwanted(self, wanted: set[PeerClass]) -> None:
        """Drop classes that came since the last plan and are not needed after all; no map has heard of them."""
        for added in list(self.added):
            if not added.users and added not in wanted:
                self.drop_class(added)

    def unused_classes(self, before_ns: int, now_ns: int) -> list[PeerClass]:
        """Drop and give the classes that no address has had since a moment."""
        dropped = []
        for idle in list(self._idle):
            if idle.users or idle is self.none:
                idle.unused_since_ns = None
                del self._idle[idle]
            elif idle.unused_since_ns is None:
                idle.unused_since_ns = now_ns
            elif idle.unused_since_ns <= before_ns:
                self.drop_class(idle)
                dropped.append(idle)
        return dropped

    def unused_rule_sets(self, before_ns: int) -> list[RuleSet]:
        """Give the rule sets that no pod has had since a moment."""
        return [
            rule_set
            for rule_set in self.rule_sets.values()
            if not rule_set.users
            and rule_set.unused_since_ns is not None
            and rule_set.unused_since_ns <= before_ns
        ]

    def idle(self) -> list[PeerClass | RuleSet]:
        """Give what will be removed if nobody uses it again."""
        rule_sets = [rule_set for rule_set in self.rule_sets.values() if not rule_set.users]
        return [*self._idle, *rule_sets]

    def revoked(self, old: PeerClass, new: PeerClass | None) -> list[RuleSet]:
        """Give the rule sets that may deny with the new class (None: the address is gone) what they allowed before."""
        after = {} if new is None else new.entries
        found = [self.of_page[page] for page, bits in old.entries.items() if bits & ~after.get(page, 0)]
        for page, bits in after.items():
            rule_set = self.of_page[page]
            if rule_set.has_tiers and bits & ~old.entries.get(page, 0):
                found.append(rule_set)
        return found

    def _add_class(self, peers: frozenset[int], hint: int) -> PeerClass:
        entries: dict[int, int] = {}
        for peer in peers:
            for page, bits in self._uses.get(peer, {}).items():
                entries[page] = entries.get(page, 0) | bits
        number = hint
        if not self._take_known(entries, hint):
            number = self.next_class
            self.next_class += 1
        return self._enter_class(PeerClass(number, peers, peers, self._idle, entries))

    def _enter_class(self, added: PeerClass) -> PeerClass:
        self._classes[added.key] = added
        for peer in added.peers:
            self._having.setdefault(peer, {})[added] = None
        self.entries += len(added.entries)
        self.added[added] = None
        return added

    def bridge(self, before: PeerClass, after: PeerClass, leaving: Iterable[int]) -> PeerClass:
        """Give a class for addresses that change from one class to another while pods change their rule set.

        To the pages that are leaving it means what the class before meant, to all others what the class after means. So
        whoever still has an old rule set gets the old verdict. It is ``after`` itself if these mean the same.
        """
        pages = _pages_that_differ(before, after, leaving)
        if not pages:
            return after
        entries = {page: bits for page, bits in after.entries.items() if page not in pages}
        entries.update({page: before.entries[page] for page in pages if page in before.entries})
        number = self.next_class
        self.next_class += 1
        bridge = PeerClass(number, after.peers, (number, after.peers), self._idle, entries)
        for page in pages:
            self._bridged.setdefault(page, {})[bridge] = None
        return self._enter_class(bridge)

    def count_bridge(self, before: PeerClass, after: PeerClass, leaving: Iterable[int]) -> int:
        """Return how many entries :meth:`bridge` would add at most."""
        if not _pages_that_differ(before, after, leaving):
            return 0
        return len(before.entries.keys() | after.entries.keys())

    def drop_class(self, unused: PeerClass) -> None:
        """Forget a class that no address has."""
        assert not unused.users
        del self._classes[unused.key]
        self.added.pop(unused, None)
        self._idle.pop(unused, None)
        self.entries -= len(unused.entries)
        for peer in unused.peers:
            having = self._having[peer]
            del having[unused]
            if not having:
                del self._having[peer]

    # ── rule sets ───────────────────────────────────────────────────────────────────────────────

    def find_rule_set(self, digest: bytes) -> RuleSet | None:
        """Give the rule set with this content, if there is one."""
        return self.rule_sets.get(digest)

    def add_rule_set(self, rule_set: RuleSet) -> None:
        """Enter a rule set, with the entries it needs for the classes there are; without numbers, it gets new ones."""
        if not rule_set.numbers:
            rule_set.numbers = list(range(self.next_page, self.next_page + len(rule_set.pages)))
            self.next_page += len(rule_set.pages)
        self.rule_sets[rule_set.digest] = rule_set
        for number, page in zip(rule_set.numbers, rule_set.pages, strict=True):
            self.of_page[number] = rule_set
            for peer, bits in page.uses.items():
                self._use(number, rule_set.peers[peer], bits)
        self.ports += rule_set.ports

    def _use(self, page: int, peer: int, bits: int) -> None:
        self._uses.setdefault(peer, {})[page] = bits
        for having in self._having.get(peer, ()):
            before = having.entries.get(page)
            having.entries[page] = bits | (before or 0)
            self.entries += before is None

    def drop_rule_set(self, rule_set: RuleSet) -> list[tuple[int, int]]:
        """Forget a rule set that no pod has; give the keys of its peers entries."""
        assert not rule_set.users
        del self.rule_sets[rule_set.digest]
        self.ports -= rule_set.ports
        keys = []
        for number, page in zip(rule_set.numbers, rule_set.pages, strict=True):
            del self.of_page[number]
            for peer in page.uses:
                keys += self._use_no_more(number, rule_set.peers[peer])
            keys += self._drop_bridged(number)
        return keys

    def _use_no_more(self, page: int, peer: int) -> list[tuple[int, int]]:
        uses = self._uses[peer]
        del uses[page]
        if not uses:
            del self._uses[peer]
        keys = []
        for having in self._having.get(peer, ()):
            if having.entries.pop(page, None) is not None:
                self.entries -= 1
                keys.append((page, having.number))
        return keys

    def _drop_bridged(self, page: int) -> list[tuple[int, int]]:
        """Drop a page's entries for classes that have them from a class before."""
        bridged = self._bridged.pop(page, {})
        keys = [(page, item.number) for item in bridged if item.entries.pop(page, None) is not None]
        self.entries -= len(keys)
        return keys

    def entries_of(self, rule_set: RuleSet) -> dict[tuple[int, int], int]:
        """Give the peers entries of a rule set."""
        found = {}
        for number, page in zip(rule_set.numbers, rule_set.pages, strict=True):
            for peer in page.uses:
                for having in self._having.get(rule_set.peers[peer], ()):
                    found[(number, having.number)] = having.entries[number]
        return found


def _pages_that_differ(before: PeerClass, after: PeerClass, pages: Iterable[int]) -> list[int]:
    return [page for page in pages if before.entries.get(page) != after.entries.get(page)]
