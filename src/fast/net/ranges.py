"""Ranges of addresses and sets of them, as pairs of integers: a /8 or an IPv6 /64 costs as much as a single address.

Every bound is inclusive. No function here expands a range in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from fast.errors import InvalidRange
from fast.net.address import IPAddress, IPNetwork, parse_address

_IPV4 = 4


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """Addresses ``first`` to ``last``, both inclusive, of one family. Made by :func:`parse_range` or :meth:`of`."""

    version: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise InvalidRange(
                f"range {self.address(self.first)}-{self.address(self.last)} is reversed: the first address comes first"
            )

    @classmethod
    def of(cls, first: IPAddress, last: IPAddress | None = None) -> AddressRange:
        """Make the range from ``first`` to ``last`` (default: ``first`` alone).

        Raises:
            InvalidRange: The range is reversed, or its ends are of different families.
        """
        last = first if last is None else last
        if first.version != last.version:
            raise InvalidRange(f"range {first}-{last} mixes IPv4 and IPv6")
        return cls(first.version, int(first), int(last))

    @classmethod
    def of_network(cls, network: IPNetwork) -> AddressRange:
        """Make the range of every address of the network, its first and last included."""
        return cls(network.version, int(network.network_address), int(network.broadcast_address))

    def address(self, value: int) -> IPAddress:
        """Make the address of this range's family with that integer value."""
        return IPv4Address(value) if self.version == _IPV4 else IPv6Address(value)

    @property
    def size(self) -> int:
        """The number of addresses."""
        return self.last - self.first + 1

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.version and self.first <= int(address) <= self.last

    def covers(self, other: AddressRange) -> bool:
        """Whether every address of ``other`` is in this range."""
        return self.version == other.version and self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        first, last = self.address(self.first), self.address(self.last)
        return str(first) if first == last else f"{first}-{last}"


def parse_subnet(text: str) -> IPNetwork:
    """Read a CIDR; host bits, such as in ``10.244.0.1/16``, are dropped.

    Raises:
        InvalidRange: The text is not a CIDR.
    """
    try:
        if "/" not in text:
            raise ValueError("no prefix length")
        return ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise InvalidRange(f"{text!r} is not a subnet in CIDR form, such as 10.244.0.0/16") from error


def parse_range(text: str) -> AddressRange:
    """Read ``a-b``, ``a`` or a CIDR (all of its addresses, first and last included).

    Raises:
        InvalidRange: The text is none of these, or the range is reversed or mixes families.
    """
    first, dash, last = text.partition("-")
    if dash:
        return AddressRange.of(parse_address(first), parse_address(last))
    if "/" in text:
        return AddressRange.of_network(parse_subnet(text))
    return AddressRange.of(parse_address(text))


class RangeSet:
    """An immutable set of addresses of one family, held as sorted, disjoint, non-adjacent ranges.

    Membership is O(log r) in the number of ranges; iteration is lazy and ascending.
    """

    __slots__ = ("_firsts", "ranges", "size")

    def __init__(self, ranges: Iterable[AddressRange] = ()) -> None:
        """Merge the ranges, in any order, overlapping or not; InvalidRange if they mix families."""
        merged: list[AddressRange] = []
        for item in sorted(ranges):
            if merged and merged[-1].version != item.version:
                raise InvalidRange(f"{merged[-1]} and {item} are of different families; a pool holds one")
            if merged and item.first <= merged[-1].last + 1:
                merged[-1] = AddressRange(item.version, merged[-1].first, max(merged[-1].last, item.last))
            else:
                merged.append(item)
        self.ranges = tuple(merged)
        self._firsts = [item.first for item in merged]
        self.size = sum(item.size for item in merged)

    def __contains__(self, address: IPAddress) -> bool:
        value = int(address)
        index = bisect_right(self._firsts, value) - 1
        if index < 0:
            return False
        found = self.ranges[index]
        return value <= found.last and address.version == found.version

    def __iter__(self) -> Iterator[IPAddress]:
        for item in self.ranges:
            for value in range(item.first, item.last + 1):
                yield item.address(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))

    def without(self, other: RangeSet) -> RangeSet:
        """Give the addresses of this set that are not in ``other``. The cost depends on the number of ranges only."""
        left: list[AddressRange] = []
        for item in self.ranges:
            first = item.first
            for hole in other.ranges:
                if hole.version != item.version or hole.last < first or hole.first > item.last:
                    continue
                if hole.first > first:
                    left.append(AddressRange(item.version, first, hole.first - 1))
                first = hole.last + 1
            if first <= item.last:
                left.append(AddressRange(item.version, first, item.last))
        return RangeSet(left)

    def overlaps(self, other: RangeSet) -> AddressRange | None:
        """Give the first range of addresses that both sets contain, or None."""
        for mine in self.ranges:
            for theirs in other.ranges:
                if mine.version == theirs.version and mine.first <= theirs.last and theirs.first <= mine.last:
                    return AddressRange(
                        mine.version, max(mine.first, theirs.first), min(mine.last, theirs.last)
                    )
        return None
