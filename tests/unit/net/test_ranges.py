"""Ranges and sets of them behave as sets of addresses do, whatever their size."""

from __future__ import annotations

import itertools
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.errors import InvalidRange
from fast.net import AddressRange, RangeSet, parse_range, parse_subnet

BASE = int(IPv4Address("10.0.0.0"))
UNIVERSE = 64  # small enough to compare with real sets

POINTS = st.integers(0, UNIVERSE - 1)
RANGES = st.tuples(POINTS, POINTS).map(lambda ends: AddressRange(4, BASE + min(ends), BASE + max(ends)))
SETS = st.lists(RANGES, max_size=8)


def members(ranges) -> set[int]:
    """The oracle: the addresses one by one."""
    return {value for item in ranges for value in range(item.first, item.last + 1)}


@given(SETS)
def test_a_set_has_the_addresses_of_its_ranges_each_once_and_ascending(ranges):
    found = [int(address) for address in RangeSet(ranges)]
    assert found == sorted(members(ranges))
    assert RangeSet(ranges).size == len(found)


@given(SETS)
def test_a_sets_ranges_are_sorted_disjoint_and_not_adjacent(ranges):
    merged = RangeSet(ranges).ranges
    assert all(one.last + 1 < other.first for one, other in itertools.pairwise(merged))


@given(SETS, POINTS)
def test_membership_is_that_of_the_ranges(ranges, point):
    assert (IPv4Address(BASE + point) in RangeSet(ranges)) == (BASE + point in members(ranges))


@given(SETS, SETS)
def test_without_takes_away_exactly_the_others_addresses(ranges, others):
    left = RangeSet(ranges).without(RangeSet(others))
    assert members(left.ranges) == members(ranges) - members(others)


@given(SETS, SETS)
def test_overlaps_gives_addresses_of_both_or_none(ranges, others):
    found = RangeSet(ranges).overlaps(RangeSet(others))
    both = members(ranges) & members(others)
    if found is None:
        assert not both
    else:
        assert members([found]) <= both


@given(SETS)
def test_a_sets_text_reads_back_as_the_same_set(ranges):
    text = str(RangeSet(ranges))
    assert RangeSet(parse_range(item) for item in text.split(", ") if item) == RangeSet(ranges)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_a_range_is_read_with_both_ends_or_refused_as_reversed(first, last):
    text = f"{first}-{last}"
    if first <= last:
        found = parse_range(text)
        assert first in found
        assert last in found
        assert found.size == int(last) - int(first) + 1
    else:
        with pytest.raises(InvalidRange, match="reversed"):
            parse_range(text)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.data())
def test_a_cidr_is_all_of_its_addresses_host_bits_or_not(address, data):
    prefix = data.draw(st.integers(0, address.max_prefixlen))
    network = ip_network(f"{address}/{prefix}", strict=False)
    found = parse_range(f"{address}/{prefix}")
    assert (found.address(found.first), found.address(found.last)) == (network[0], network[-1])
    assert parse_subnet(f"{address}/{prefix}") == network


def test_a_point_zero_or_255_inside_a_range_is_an_address_like_any_other():
    found = RangeSet([parse_range("10.244.10.0-10.244.90.0")])
    for address in ("10.244.10.0", "10.244.10.255", "10.244.11.0", "10.244.90.0"):
        assert ip_address(address) in found
    assert ip_address("10.244.90.1") not in found


@pytest.mark.parametrize("text", ["10.0.0.0/8", "fd00::/64", "::/0"])
def test_a_huge_range_costs_nothing(text):
    began = time.perf_counter()
    found = RangeSet([parse_range(text)])
    rest = found.without(
        RangeSet([parse_range(text.replace("/8", "/9").replace("/64", "/65").replace("/0", "/1"))])
    )
    assert rest.size == found.size // 2
    next(iter(found))
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an IP address"),
        ("-", "not an IP address"),
        ("10.0.0.1-", "not an IP address"),
        ("10.0.0.1-10.0.0.2-10.0.0.3", "not an IP address"),
        ("10.0.0.9-10.0.0.1", "reversed"),
        ("10.0.0.1-fd00::1", "mixes"),
        ("10.0.0.0/33", "not a subnet"),
        ("10.0.0.0/", "not a subnet"),
        ("garbage", "not an IP address"),
    ],
)
def test_text_that_is_no_range_is_refused_with_the_reason(text, why):
    with pytest.raises(InvalidRange, match=why):
        parse_range(text)


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/x", "", "/24", "fd00::/129"])
def test_text_that_is_no_subnet_is_refused(text):
    with pytest.raises(InvalidRange, match="not a subnet"):
        parse_subnet(text)


def test_a_set_of_both_families_is_refused():
    with pytest.raises(InvalidRange, match="different families"):
        RangeSet([parse_range("10.0.0.1"), parse_range("fd00::1")])


def test_an_address_of_the_other_family_is_in_no_range():
    assert IPv6Address(BASE) not in parse_range("10.0.0.0/8")
    assert IPv6Address(BASE) not in RangeSet([parse_range("10.0.0.0/8")])


@given(SETS, SETS)
def test_sets_are_equal_exactly_when_they_have_the_same_addresses(ranges, others):
    one, other = RangeSet(ranges), RangeSet(others)
    assert (one == other) == (members(ranges) == members(others))
    if one == other:
        assert hash(one) == hash(other)
