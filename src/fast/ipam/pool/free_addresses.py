"""Which addresses of a pool are available: lowest first, recently released last. Pure bookkeeping; no I/O.

Memory follows the addresses in use, never the size of the pool (a /8 or an IPv6 /64 costs nothing by itself), and
choosing an address costs O(log n).
"""

from __future__ import annotations

from collections.abc import Iterable

from fast.net import IPAddress, RangeSet

_BITS = 256
_FULL = (1 << _BITS) - 1


class NumberSet:
    """A set of whole numbers that finds the lowest *absent* ones quickly.

    Made of blocks of 256 bits; empty blocks are not kept. The full blocks are such a set themselves, so that a run of
    any length is skipped in one step a level. Add, remove and search cost O(log n).
    """

    __slots__ = ("_blocks", "_full", "size")

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._full: NumberSet | None = None
        self.size = 0

    def __contains__(self, number: int) -> bool:
        return bool(self._blocks.get(number // _BITS, 0) >> number % _BITS & 1)

    def add(self, number: int) -> bool:
        """Put the number in; False if it was in already."""
        block, bit = divmod(number, _BITS)
        return self._put(block, 1 << bit)

    def add_from(self, other: NumberSet, first: int, last: int) -> None:
        """Put the other set's numbers in ``first..last`` in; costs what their blocks cost, not each number."""
        low, high = first // _BITS, last // _BITS
        theirs = other._blocks
        for block in range(low, high + 1) if high - low < len(theirs) else theirs:
            if low <= block <= high and (bits := theirs.get(block, 0)):
                if block == low:
                    bits = bits >> first % _BITS << first % _BITS
                if block == high:
                    bits &= (2 << last % _BITS) - 1
                self._put(block, bits)

    def _put(self, block: int, bits: int) -> bool:
        """Set bits of a block; False if all of them were set."""
        before = self._blocks.get(block, 0)
        after = before | bits
        if after == before:
            return False
        self._blocks[block] = after
        self.size += (after ^ before).bit_count()
        if after == _FULL:
            self._full = self._full or NumberSet()
            self._full.add(block)
        return True

    def discard(self, number: int) -> bool:
        """Take the number out; False if it was not in."""
        block, bit = divmod(number, _BITS)
        before = self._blocks.get(block, 0)
        after = before & ~(1 << bit)
        if after == before:
            return False
        if before == _FULL and self._full is not None:
            self._full.discard(block)
        if after:
            self._blocks[block] = after
        else:
            del self._blocks[block]
        self.size -= 1
        return True

    def next_absent(self, number: int) -> int:
        """Give the lowest number from ``number`` on that is not in the set."""
        block, bit = divmod(number, _BITS)
        room = ~self._blocks.get(block, 0) & _FULL >> bit << bit
        if not room:
            block = self._next_block(block)
            room = ~self._blocks.get(block, 0) & _FULL
        return block * _BITS + _lowest_bit(room)

    def nth_absent(self, first: int, last: int, skip: int) -> tuple[int | None, int]:
        """Give the absent number in ``first..last`` that comes after ``skip`` lower absent ones.

        Returns:
            The number and 0; if there are too few, None and how many are still to be skipped.
        """
        position = first
        while position <= last:
            block, bit = divmod(position, _BITS)
            room = ~self._blocks.get(block, 0) & _FULL >> bit << bit
            if block == last // _BITS:
                room &= (2 << last % _BITS) - 1
            count = room.bit_count()
            if skip < count:
                for _ in range(skip):
                    room &= room - 1
                return block * _BITS + _lowest_bit(room), 0
            skip -= count
            position = self._next_block(block) * _BITS
        return None, skip

    def _next_block(self, block: int) -> int:
        """The next block that is not full."""
        return self._full.next_absent(block + 1) if self._full else block + 1


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


class PoolBook:
    """Which addresses of one pool are free and which available, as far as this process knows.

    An address is *blocked* while a record of it is in the view (of this or an overlapping pool), while it cools
    after its release, and, for a short time, after the API server said that it is taken though the view does not
    show it (*doubted*).

    Args:
        usable: The pool's addresses.
        release_delay_seconds: How long a released address goes last in line.
        doubt_seconds: How long a collision is believed without being confirmed by the view.
    """

    def __init__(
        self, usable: RangeSet, release_delay_seconds: float = 30.0, doubt_seconds: float = 5.0
    ) -> None:
        self.usable = usable
        self.release_delay_seconds = release_delay_seconds
        self.doubt_seconds = doubt_seconds
        self._blocked = NumberSet()
        self._cooling: dict[int, float] = {}  # released at; in order of release
        self._doubted: dict[int, float] = {}  # collided at; in order of collision
        self._version = usable.ranges[0].version

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self._version and address in self.usable

    @property
    def version(self) -> int:
        """4 or 6."""
        return self._version

    @property
    def size(self) -> int:
        """The number of usable addresses."""
        return self.usable.size

    def take(self, address: IPAddress) -> None:
        """A record of the address is in the view."""
        value = int(address)
        self._cooling.pop(value, None)
        self._doubted.pop(value, None)
        self._blocked.add(value)

    def take_all(self, taken: NumberSet) -> None:
        """Records of these addresses (as numbers, of the pool's version) are in the view; for a new book."""
        for item in self.usable.ranges:
            self._blocked.add_from(taken, item.first, item.last)

    def release(self, address: IPAddress, now: float) -> None:
        """The record went away: the address cools from ``now`` (monotonic seconds) on."""
        value = int(address)
        self._doubted.pop(value, None)
        self._cooling.pop(value, None)
        self._blocked.add(value)
        self._cooling[value] = now

    def doubt(self, address: IPAddress, now: float) -> None:
        """The API server said that the address is taken. The view may show its record later, or never."""
        value = int(address)
        if self._cooling.pop(value, None) is None and value in self._blocked and value not in self._doubted:
            return  # a record of it is in the view already
        self._doubted.pop(value, None)
        self._blocked.add(value)
        self._doubted[value] = now

    def undoubt(self, address: IPAddress) -> None:
        """The API server refused to record the address, for whatever reason: it is as free as before."""
        value = int(address)
        if self._doubted.pop(value, None) is not None:
            self._blocked.discard(value)

    def cooling(self, now: float) -> dict[IPAddress, float]:
        """Addresses that cool, oldest release first, with the seconds that each has left."""
        self._expire(now)
        make = self.usable.ranges[0].address
        return {make(value): at + self.release_delay_seconds - now for value, at in self._cooling.items()}

    def adopt_cooling(self, other: PoolBook) -> None:
        """Take over what another book of the same pool knew about releases, after the pool's spec changed."""
        make = other.usable.ranges[0].address
        for value, at in other._cooling.items():
            address = make(value)
            if address in self and value not in self._blocked:
                self.release(address, at)

    def free_count(self, now: float) -> int:
        """The number of addresses without a record, whether they cool or not."""
        self._expire(now)
        return self.size - self._blocked.size + len(self._cooling) + len(self._doubted)

    def available_count(self, now: float) -> int:
        """The number of addresses that an ADD may get now: without a record, not cooling, not doubted."""
        self._expire(now)
        return self.size - self._blocked.size

    def cooling_count(self, now: float) -> int:
        """The number of addresses that cool."""
        self._expire(now)
        return len(self._cooling)

    def candidate(self, now: float, skip: int = 0) -> IPAddress | None:
        """Choose the lowest available address after ``skip`` others (counted round), else the one that cools longest.

        Returns:
            None if every address is in use. O(log n), plus O(skip).
        """
        available = self.available_count(now)
        if available:
            return self._nth_available(skip % available)
        if self._cooling:
            oldest_first = iter(self._cooling)
            for _ in range(skip % len(self._cooling)):
                next(oldest_first)
            return self.usable.ranges[0].address(next(oldest_first))
        return None

    def _nth_available(self, skip: int) -> IPAddress | None:
        for item in self.usable.ranges:
            found, skip = self._blocked.nth_absent(item.first, item.last, skip)
            if found is not None:
                return item.address(found)
        return None

    def _expire(self, now: float) -> None:
        """Make available what has cooled, and what was doubted and never confirmed."""
        for waiting, seconds in (
            (self._cooling, self.release_delay_seconds),
            (self._doubted, self.doubt_seconds),
        ):
            for value in _until(waiting, now - seconds):
                del waiting[value]
                self._blocked.discard(value)


def _until(waiting: dict[int, float], limit: float) -> Iterable[int]:
    """The entries at the front (the oldest) whose time is not after ``limit``."""
    due = []
    for value, at in waiting.items():
        if at > limit:
            break
        due.append(value)
    return due
