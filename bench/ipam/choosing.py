"""Measures the time to choose an address and the memory of a pool, by size and addresses in use."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Iterable

import click

from fast.api.ips import IpsSpec, pool_addresses
from fast.ipam.pool.free_addresses import PoolBook

SUBNETS = ("10.0.0.0/15", "10.0.0.0/8", "fd00::/64")
IN_USE = (100, 1_000, 10_000, 100_000)


def book_of(subnet: str, numbers: Iterable[int]) -> PoolBook:
    """Open the book of a pool, with the addresses of these numbers in use."""
    usable = pool_addresses(IpsSpec(subnet=subnet)).usable
    book, first = PoolBook(usable), usable.ranges[0]
    for number in numbers:
        book.take(first.address(first.first + number))
    return book


def microseconds(book: PoolBook, skip: int, rounds: int) -> float:
    """Return the median time of a choice in microseconds, over rounds of 1,000."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(1_000):
            book.candidate(0.0, skip)
        found.append((time.perf_counter() - began) * 1_000)
    return statistics.median(found)


def kibibytes(subnet: str, in_use: int) -> float:
    """Return the memory of the book, in KiB."""
    tracemalloc.start()
    book = book_of(subnet, range(in_use))
    size = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    del book
    return size


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    """Measure every pool with every number of addresses in use."""
    print(f"{'pool':14}{'in use':>10}{'lowest, us':>12}{'200th, us':>12}{'memory, KiB':>14}")
    for subnet in SUBNETS:
        for in_use in IN_USE:
            book = book_of(subnet, range(in_use))
            lowest, skipped = microseconds(book, 0, rounds), microseconds(book, 200, rounds)
            print(f"{subnet:14}{in_use:10,}{lowest:12.2f}{skipped:12.2f}{kibibytes(subnet, in_use):14.0f}")


if __name__ == "__main__":
    main()
