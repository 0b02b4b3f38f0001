"""Which blocks an address lies in: a longest-prefix table in which each prefix has the full set, holes taken out.

Immutable: a change of blocks makes a new table, and :func:`changes` tells where the two differ.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping

from fast.policy.peers import BlockPeer, Prefix

#: The numbers of the block peers that hold at a place.
BlockSet = frozenset[int]
NO_BLOCKS: BlockSet = frozenset()

_LAST = (1 << 128) - 1


class BlockTable:
    """The blocks in use, by number of the peer."""

    __slots__ = ("_firsts", "_sets", "prefixes")

    def __init__(self, blocks: Mapping[int, BlockPeer]) -> None:
        """Lay the blocks out; O(prefixes × blocks at a place)."""
        added: dict[Prefix, set[int]] = {}
        removed: dict[Prefix, set[int]] = {}
        for number, block in blocks.items():
            added.setdefault(block.prefix, set()).add(number)
            for hole in block.holes:
                removed.setdefault(hole, set()).add(number)
        #: What the kernel's table holds: each block's and hole's prefix with everything that holds there.
        self.prefixes: dict[Prefix, BlockSet] = {}
        self._firsts: list[int] = [0]
        self._sets: list[BlockSet] = [NO_BLOCKS]
        self._lay_out(added, removed)

    def _lay_out(self, added: dict[Prefix, set[int]], removed: dict[Prefix, set[int]]) -> None:
        """Walk the prefixes from low to high, the enclosing ones on a stack."""
        stack: list[tuple[int, BlockSet]] = [(_LAST, NO_BLOCKS)]
        interned: dict[BlockSet, BlockSet] = {NO_BLOCKS: NO_BLOCKS}
        for prefix in sorted({*added, *removed}):
            self._close(stack, prefix.first)
            here = stack[-1][1] | added.get(prefix, NO_BLOCKS)
            here = frozenset(here - removed.get(prefix, NO_BLOCKS))
            here = interned.setdefault(here, here)
            self.prefixes[prefix] = here
            stack.append((prefix.last, here))
            self._open(prefix.first, here)
        self._close(stack, _LAST + 1)

    def _close(self, stack: list[tuple[int, BlockSet]], before: int) -> None:
        """End the prefixes that end before an address; the enclosing one goes on behind each."""
        while len(stack) > 1 and stack[-1][0] < before:
            last, _ = stack.pop()
            if last < _LAST:
                self._open(last + 1, stack[-1][1])

    def _open(self, first: int, blocks: BlockSet) -> None:
        if self._firsts[-1] == first:
            self._sets[-1] = blocks
        else:
            self._firsts.append(first)
            self._sets.append(blocks)

    def find(self, key: bytes) -> BlockSet:
        """Give the blocks that the address with this map key lies in."""
        if len(self._firsts) == 1:
            return NO_BLOCKS
        return self._sets[bisect_right(self._firsts, int.from_bytes(key, "big")) - 1]

    def segments(self) -> Iterator[tuple[int, BlockSet]]:
        """Give where each stretch of equal sets begins, and its set."""
        return zip(self._firsts, self._sets, strict=True)


def changes(old: BlockTable, new: BlockTable) -> Iterator[tuple[bytes, bytes, BlockSet, BlockSet]]:
    """Give the stretches in which the tables differ: first and last key, the old set and the new one."""
    before, after = dict(old.segments()), dict(new.segments())
    firsts = sorted({*before, *after})
    old_set = new_set = NO_BLOCKS
    for index, first in enumerate(firsts):
        old_set, new_set = before.get(first, old_set), after.get(first, new_set)
        if old_set != new_set:
            last = firsts[index + 1] - 1 if index + 1 < len(firsts) else _LAST
            yield first.to_bytes(16, "big"), last.to_bytes(16, "big"), old_set, new_set
