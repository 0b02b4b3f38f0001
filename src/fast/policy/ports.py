"""Port ranges, and the port prefixes that a longest-prefix map needs for them. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

PORT_BITS = 16
LAST_PORT = (1 << PORT_BITS) - 1


class PortRange(msgspec.Struct, frozen=True, order=True):
    """Ports ``first`` to ``last`` of an IP protocol, both included; 0 to 65535 is the whole protocol."""

    protocol: int
    first: int = 0
    last: int = LAST_PORT

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last


class PortPrefix(msgspec.Struct, frozen=True, order=True):
    """What the ports map looks up by: the first ``bits`` bits of ``port``; without a protocol, everything.

    ``protocol`` None goes with 0 bits. The map's prefix length is 32 bits for the rule set alone, 40 with the protocol,
    and up to 56 with the port.
    """

    protocol: int | None
    port: int = 0
    bits: int = 0


#: The prefix of rule groups that ask for no port.
EVERYTHING = PortPrefix(None)


def merge_ranges(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """Give the same ports as sorted, disjoint ranges that do not touch."""
    merged: list[PortRange] = []
    for item in sorted(set(ranges)):
        last = merged[-1] if merged else None
        if last is not None and last.protocol == item.protocol and item.first <= last.last + 1:
            merged[-1] = PortRange(item.protocol, last.first, max(last.last, item.last))
        else:
            merged.append(item)
    return tuple(merged)


def prefixes_of(ports: PortRange) -> list[PortPrefix]:
    """Split a range into the fewest prefixes: at most 30."""
    found, first = [], ports.first
    while first <= ports.last:
        size = (first & -first).bit_length() - 1 if first else PORT_BITS
        while first + (1 << size) - 1 > ports.last:
            size -= 1
        found.append(PortPrefix(ports.protocol, first, PORT_BITS - size))
        first += 1 << size
    return found


def covering(prefix: PortPrefix) -> list[PortPrefix]:
    """Give every prefix that covers this one, itself first, the shortest last."""
    if prefix.protocol is None:
        return [prefix]
    found = []
    for bits in range(prefix.bits, -1, -1):
        mask = LAST_PORT >> bits ^ LAST_PORT
        found.append(PortPrefix(prefix.protocol, prefix.port & mask, bits))
    return [*found, EVERYTHING]


def spread(own: Mapping[PortPrefix, int]) -> dict[PortPrefix, int]:
    """Give each prefix the bits of all that cover it, since the kernel finds the longest one only."""
    spread_out = {}
    for prefix in own:
        bits = 0
        for shorter in covering(prefix):
            bits |= own.get(shorter, 0)
        spread_out[prefix] = bits
    return spread_out
