"""A pool costs what is in use of it, whatever its size; and the next address is found in a few steps."""

import random
import sys
import tracemalloc
from functools import partial
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.ips import IpsSpec, pool_addresses
from fast.api.meta import ObjectMeta
from fast.ipam.pool.free_addresses import NumberSet, PoolBook
from fast.ipam.pool.ledger import Ledger

IN_USE = 100_000
SUBNETS = ("10.0.0.0/8", "fd00::/64")


def book_of(subnet, numbers):
    """The book of a pool, with the addresses of these numbers in use."""
    usable = pool_addresses(IpsSpec(subnet=subnet)).usable
    book = PoolBook(usable)
    first = usable.ranges[0]
    for number in numbers:
        book.take(first.address(first.first + number))
    return book


def bytes_of(subnet, numbers):
    tracemalloc.start()
    try:
        book = book_of(subnet, numbers)
        assert book.free_count(0.0) == book.size - len(numbers)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def steps_of(work):
    """Functions called, in Python and C, to do the work."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_a_huge_pool_costs_what_a_pool_of_just_the_addresses_in_use_costs():
    numbers = range(IN_USE)
    snug = bytes_of("10.0.0.0/15", numbers)
    assert snug < 20 * IN_USE
    for subnet in SUBNETS:
        assert bytes_of(subnet, numbers) < 1.2 * snug + 20_000


def test_addresses_in_use_that_lie_scattered_cost_a_block_each_at_most():
    numbers = random.Random(1).sample(range(1 << 40), 20_000)
    assert bytes_of("fd00::/64", numbers) < 300 * 20_000


@pytest.mark.parametrize("subnet", SUBNETS)
def test_choosing_takes_about_as_many_steps_with_a_hundred_thousand_in_use_as_with_a_hundred(subnet):
    few, many = book_of(subnet, range(100)), book_of(subnet, range(IN_USE))
    first = few.usable.ranges[0]
    assert many.candidate(0.0) == first.address(first.first + IN_USE)
    for skip in (0, 7, 200):
        most = steps_of(partial(few.candidate, 0.0, skip)) + 30
        assert steps_of(partial(many.candidate, 0.0, skip)) < most


def test_choosing_from_a_pool_with_one_address_left_takes_a_few_steps():
    book = book_of("10.0.0.0/15", [number for number in range((1 << 17) - 2) if number != 77_777])
    assert str(book.candidate(0.0)) == "10.1.47.210"
    assert steps_of(partial(book.candidate, 0.0)) < 60


def test_opening_a_pool_takes_a_few_steps_for_256_addresses_in_use():
    cluster = FakeCluster()
    for number in range(20_000):
        name = str(IPv4Address("10.0.0.0") + number)
        cluster.endpoints[name] = IpEndpoint(metadata=ObjectMeta(name=name), spec=IpEndpointSpec(pool="a"))
    ledger = Ledger(FakeStore(cluster), "n1", lambda: 0.0)
    steps = steps_of(lambda: ledger._open_pool(a_pool("a", subnet="10.0.0.0/8")))
    book = ledger.pools["a"].book
    assert book.free_count(0.0) == book.size - 19_999  # 10.0.0.0 is none of the pool's
    assert steps < 20 * 20_000 / 256


@given(
    st.lists(st.integers(0, 2000)),
    st.lists(st.integers(0, 2000)),
    st.integers(0, 2000),
    st.integers(0, 2000),
)
def test_the_numbers_of_a_span_are_taken_over_as_if_one_by_one(mine, theirs, first, last):
    whole, one_by_one, other = NumberSet(), NumberSet(), NumberSet()
    for number in theirs:
        other.add(number)
    for number in mine:
        whole.add(number)
        one_by_one.add(number)
    whole.add_from(other, first, last)
    for number in theirs:
        if first <= number <= last:
            one_by_one.add(number)
    assert (whole.size, whole._blocks) == (one_by_one.size, one_by_one._blocks)
    assert whole.next_absent(0) == one_by_one.next_absent(0)
