"""Follows the cluster's records and pools: who holds addresses of which pool, and which pools overlap. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips
from fast.errors import InvalidRange
from fast.ipam.pool.ledger import Ledger
from fast.ipam.pool.pool_counts import PoolCounts
from fast.ipam.store.record_store import EndpointChange, PoolChange, ReadStore
from fast.net import AddressRange, IPAddress


@dataclass(slots=True)
class PoolFacts:
    """The names of a pool's records; ``outside`` are those whose address the pool's ranges do not hold."""

    records: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)


class Census:
    """Follows a store.

    Args:
        store: Followed from now on.
        changed: Called with the name of each pool about which something changed.
    """

    def __init__(self, store: ReadStore, changed: Callable[[str], None]) -> None:
        self._store = store
        self._changed = changed
        self._facts: dict[str, PoolFacts] = {}
        self._overlapping: dict[str, dict[str, AddressRange]] = {}
        self._ledger = Ledger(store, "", clock=lambda: 0.0)  # of no node: what cools is free all the same
        for endpoint in store.endpoints.values():
            self._note(endpoint)
        for name in store.pools:
            self._overlapping[name] = self._ledger.overlapping(name)
        store.subscribe(self._endpoint_changed, self._pool_changed)

    def facts(self, pool: str) -> PoolFacts:
        """Give what is known of the pool; if there is no such pool, only its records."""
        return self._facts.setdefault(pool, PoolFacts())

    def counts(self, pool: str) -> PoolCounts:
        """Count the pool's addresses by state."""
        return self._ledger.counts(pool)

    def reserve(self, owner: str, addresses: Iterable[IPAddress]) -> None:
        """Note addresses that are never given, as they belong to ``owner``."""
        for name in self._ledger.reserve(owner, addresses):
            self._changed(name)

    def reserved(self, pool: str) -> dict[IPAddress, str]:
        """Give the addresses of the pool's ranges that are never given, each with its owner."""
        return self._ledger.reserved_in(pool)

    def problem(self, pool: str) -> str:
        """Say why the pool's spec cannot be read; empty if it can."""
        entry = self._ledger.pools.get(pool)
        return entry.problem if entry is not None else ""

    def records(self, names: Iterable[str]) -> list[IpEndpoint]:
        """Give the records of these names, by name."""
        endpoints = self._store.endpoints
        return [endpoints[name] for name in sorted(names) if name in endpoints]

    def overlap(self, pool: Ips) -> tuple[str, AddressRange] | None:
        """Find an *older* pool that holds addresses of this one: its name and the first range that both hold.

        Only the younger of two is at fault, so that nobody can make somebody else's pool unready.
        """
        for name, shared in sorted(self._overlapping.get(pool.metadata.name, {}).items()):
            other = self._store.pools.get(name)
            if other is not None and _age(other) < _age(pool):
                return name, shared
        return None

    def _endpoint_changed(self, change: EndpointChange) -> None:
        if change.old is not None:
            facts = self.facts(change.old.spec.pool)
            facts.records.discard(change.old.metadata.name)
            facts.outside.discard(change.old.metadata.name)
        if change.new is not None:
            self._note(change.new)
        shown = {endpoint.spec.pool for endpoint in (change.old, change.new) if endpoint is not None}
        if (change.old is None) != (change.new is None):  # an overlapping pool has one address less, or more
            for endpoint in (change.old, change.new):
                address = endpoint.find_address() if endpoint is not None else None
                shown.update(self._ledger.holding(address) if address is not None else ())
        for pool in shown:
            self._changed(pool)

    def _note(self, endpoint: IpEndpoint) -> None:
        facts = self.facts(endpoint.spec.pool)
        facts.records.add(endpoint.metadata.name)
        if self._is_outside(endpoint):
            facts.outside.add(endpoint.metadata.name)

    def _is_outside(self, endpoint: IpEndpoint) -> bool:
        entry = self._ledger.pools.get(endpoint.spec.pool)
        if entry is None or entry.book is None:
            return False
        try:
            return endpoint.address not in entry.book
        except InvalidRange:
            return True

    def _pool_changed(self, change: PoolChange) -> None:
        pool = change.new or change.old
        if pool is None:
            return
        name = pool.metadata.name
        touched = {name}
        if change.old is None or change.new is None or change.old.spec != change.new.spec:
            facts = self.facts(name)
            facts.outside = {
                endpoint.metadata.name
                for endpoint in self.records(facts.records)
                if self._is_outside(endpoint)
            }
            if change.new is None and not facts.records:
                del self._facts[name]
            touched |= self._overlaps_changed(name)
        for other in touched:
            self._changed(other)

    def _overlaps_changed(self, name: str) -> set[str]:
        """Find out again which pools this one overlaps; gives those that it did overlap or does now."""
        before, now = self._overlapping.pop(name, {}), self._ledger.overlapping(name)
        if now:
            self._overlapping[name] = now
        for other in before.keys() - now.keys():
            self._overlapping.get(other, {}).pop(name, None)
        for other, shared in now.items():
            self._overlapping.setdefault(other, {})[name] = shared
        return before.keys() | now.keys()


def _age(pool: Ips) -> tuple[str, str]:
    """Sort older pools first; those of one second by name."""
    return pool.metadata.creation_timestamp or "", pool.metadata.name
