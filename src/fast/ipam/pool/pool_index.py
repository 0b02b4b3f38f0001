"""Which pools hold an address, and which overlap: found in O(log n) of the number of ranges. No records, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from fast.net import AddressRange, IPAddress, RangeSet


class PoolIndex:
    """The usable addresses of every pool."""

    def __init__(self) -> None:
        self._usable: dict[str, RangeSet] = {}
        self._sorted: dict[int, _Sorted] | None = None  # by IP version; None after a change

    def put(self, name: str, usable: RangeSet) -> None:
        """Set a pool's addresses."""
        self._usable[name] = usable
        self._sorted = None

    def discard(self, name: str) -> None:
        """Forget a pool."""
        if self._usable.pop(name, None) is not None:
            self._sorted = None

    def holding(self, address: IPAddress) -> list[str]:
        """Give the names of the pools that hold the address, sorted."""
        return sorted({name for _, name in self._crossing(AddressRange.of(address))})

    def overlapping(self, name: str) -> dict[str, AddressRange]:
        """Give the other pools that share addresses with this one, each with the first range that both hold."""
        found: dict[str, AddressRange] = {}
        for mine in self._usable.get(name, RangeSet()).ranges:
            for theirs, other in self._crossing(mine):
                shared = AddressRange(
                    mine.version, max(mine.first, theirs.first), min(mine.last, theirs.last)
                )
                if other != name and (other not in found or shared < found[other]):
                    found[other] = shared
        return found

    def _crossing(self, wanted: AddressRange) -> Iterator[tuple[AddressRange, str]]:
        if self._sorted is None:
            self._sorted = {version: _Sorted(self._usable, version) for version in (4, 6)}
        return self._sorted[wanted.version].crossing(wanted)


class _Sorted:
    """The ranges of one IP version by their first address, and up to each the highest last address so far."""

    def __init__(self, usable: dict[str, RangeSet], version: int) -> None:
        self._items = sorted(
            (item, name) for name, found in usable.items() for item in found.ranges if item.version == version
        )
        self._firsts = [item.first for item, _ in self._items]
        self._highest = list(accumulate((item.last for item, _ in self._items), max))

    def crossing(self, wanted: AddressRange) -> Iterator[tuple[AddressRange, str]]:
        index = bisect_right(self._firsts, wanted.last) - 1
        while index >= 0 and self._highest[index] >= wanted.first:
            if self._items[index][0].last >= wanted.first:
                yield self._items[index]
            index -= 1
