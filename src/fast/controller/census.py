"""Counts the cluster's records by pool, record by record as they change, and knows which pools overlap. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, IpsSpec, PoolAddresses, pool_addresses
from fast.errors import InvalidRange
from fast.ipam.rules.ownership import is_retained
from fast.ipam.store.record_store import EndpointChange, PoolChange, Store
from fast.net import AddressRange


@dataclass(slots=True)
class PoolFacts:
    """What is known of one pool: its addresses (None and ``problem`` where its spec cannot be read), and its records.

    ``outside`` names those of its records that its ranges do not hold any more.
    """

    spec: IpsSpec | None = None
    addresses: PoolAddresses | None = None
    problem: str = ""
    records: set[str] = field(default_factory=set)
    retained: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)


class Census:
    """Follows a store.

    Args:
        store: Followed from now on.
        changed: Called with the name of each pool about which something changed.
    """

    def __init__(self, store: Store, changed: Callable[[str], None]) -> None:
        self._store = store
        self._changed = changed
        self._facts: dict[str, PoolFacts] = {}
        for pool in store.pools.values():
            self._read_pool(pool)
        for endpoint in store.endpoints.values():
            self._count(endpoint)
        store.subscribe(self._endpoint_changed, self._pool_changed)

    def facts(self, pool: str) -> PoolFacts:
        """What is known of the pool; of one that nobody wrote down, only its records."""
        return self._facts.setdefault(pool, PoolFacts())

    def records(self, names: Iterable[str]) -> list[IpEndpoint]:
        """The records of these names, by name."""
        endpoints = self._store.endpoints
        return [endpoints[name] for name in sorted(names) if name in endpoints]

    def overlap(self, pool: Ips) -> tuple[str, AddressRange] | None:
        """Find an *older* pool that holds addresses of this one: its name and the first range that both hold.

        Only the younger of two is at fault, so that nobody can make somebody else's pool unready.
        """
        mine = self.facts(pool.metadata.name).addresses
        if mine is None:
            return None
        for name, other in sorted(self._store.pools.items()):
            theirs = self.facts(name).addresses
            if theirs is None or name == pool.metadata.name or _age(other) > _age(pool):
                continue
            if theirs.version == mine.version and theirs.subnet.overlaps(mine.subnet):
                shared = mine.usable.overlaps(theirs.usable)
                if shared is not None:
                    return name, shared
        return None

    def _endpoint_changed(self, change: EndpointChange) -> None:
        if change.old is not None:
            self._uncount(change.old)
        if change.new is not None:
            self._count(change.new)
        touched = {endpoint.spec.pool for endpoint in (change.old, change.new) if endpoint is not None}
        for pool in touched:
            self._changed(pool)

    def _count(self, endpoint: IpEndpoint) -> None:
        name = endpoint.metadata.name
        facts = self.facts(endpoint.spec.pool)
        facts.records.add(name)
        if is_retained(endpoint):
            facts.retained.add(name)
        if _is_outside(endpoint, facts):
            facts.outside.add(name)

    def _uncount(self, endpoint: IpEndpoint) -> None:
        name = endpoint.metadata.name
        facts = self.facts(endpoint.spec.pool)
        for names in (facts.records, facts.retained, facts.outside):
            names.discard(name)

    def _pool_changed(self, change: PoolChange) -> None:
        pool = change.new or change.old
        if pool is None:
            return
        name = pool.metadata.name
        if change.new is not None:
            self._read_pool(change.new)
        else:
            self._forget_pool(name)
        self._changed(name)
        if change.old is None or change.new is None or change.old.spec != change.new.spec:
            for other in self._store.pools:  # who overlaps whom may have changed
                self._changed(other)

    def _read_pool(self, pool: Ips) -> None:
        facts = self.facts(pool.metadata.name)
        if facts.spec == pool.spec:
            return
        facts.spec, facts.addresses, facts.problem = pool.spec, None, ""
        try:
            facts.addresses = pool_addresses(pool.spec)
        except InvalidRange as error:
            facts.problem = str(error)
        facts.outside = {
            endpoint.metadata.name for endpoint in self.records(facts.records) if _is_outside(endpoint, facts)
        }

    def _forget_pool(self, name: str) -> None:
        facts = self.facts(name)
        if facts.records:
            facts.spec, facts.addresses, facts.problem, facts.outside = None, None, "", set()
        else:
            del self._facts[name]


def _age(pool: Ips) -> tuple[str, str]:
    """Sorts older pools first; those of one second by name."""
    return pool.metadata.creation_timestamp or "", pool.metadata.name


def _is_outside(endpoint: IpEndpoint, facts: PoolFacts) -> bool:
    if facts.addresses is None:
        return False
    try:
        return endpoint.address not in facts.addresses.usable
    except InvalidRange:
        return True
