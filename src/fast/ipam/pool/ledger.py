"""Indexes over the view of a store: records by attachment, pod and sticky key; free addresses by pool.

Follows the store's changes and answers questions; decides nothing and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, IpsSpec, pool_addresses
from fast.errors import InvalidRange
from fast.ipam.pool.free_addresses import NumberSet, PoolBook
from fast.ipam.pool.pool_counts import PoolCounts
from fast.ipam.pool.pool_index import PoolIndex
from fast.ipam.rules.claim_request import AttachmentKey
from fast.ipam.rules.record_states import holder_of, is_retained
from fast.ipam.store.record_store import EndpointChange, PoolChange, ReadStore
from fast.net import AddressRange, IPAddress, RangeSet, record_name

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class PoolEntry:
    """One pool: the object, and its book (None if its spec cannot be read; ``problem`` says why)."""

    pool: Ips
    book: PoolBook | None
    problem: str = ""


class Ledger:
    """Indexes over a store's view.

    Args:
        store: Followed from now on; what it knows already is read in.
        node_name: Records by attachment and by pod are indexed for this node only: that is what an agent asks for,
            and it keeps 100,000 records of other nodes cheap.
        clock: Monotonic seconds.
    """

    def __init__(self, store: ReadStore, node_name: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._node_name = node_name
        self._clock = clock
        self._mine: dict[str, IpEndpoint] = {}
        self._by_attachment: dict[AttachmentKey, set[str]] = {}
        self._by_pod_uid: dict[str, set[str]] = {}
        self._by_sticky_key: dict[str, set[str]] = {}
        self._bound: Counter[str] = Counter()
        self._retained: Counter[str] = Counter()
        self._taken = {4: NumberSet(), 6: NumberSet()}  # every record's address as a number, by IP version
        self.unrecorded: set[IPAddress] = set()  # on sandboxes of this node, though not recorded so
        self._vanished: dict[str, IpEndpoint] = {}
        self._reserved: dict[str, frozenset[IPAddress]] = {}
        self.pools: dict[str, PoolEntry] = {}
        self._index_of_pools = PoolIndex()
        self._written = PoolIndex()  # with what is reserved
        for endpoint in store.endpoints.values():
            self._index(endpoint, +1)
            if (address := endpoint.find_address()) is not None:
                self._taken[address.version].add(int(address))
        for pool in store.pools.values():
            self._open_pool(pool)
        store.subscribe(self._endpoint_changed, self._pool_changed)

    # ── questions ──

    def of_attachment(self, key: AttachmentKey) -> tuple[IpEndpoint, ...]:
        """This node's records of (container_id, ifname)."""
        return self._named(self._by_attachment.get(key, ()))

    def of_pod(self, uid: str) -> tuple[IpEndpoint, ...]:
        """This node's records of the pod of that UID."""
        return self._named(self._by_pod_uid.get(uid, ())) if uid else ()

    def of_sticky_key(self, key: str) -> tuple[IpEndpoint, ...]:
        """Every node's records of the sticky key, and retained ones."""
        return self._named(self._by_sticky_key.get(key, ())) if key else ()

    def mine(self) -> tuple[IpEndpoint, ...]:
        """This node's records."""
        return tuple(self._mine.values())

    def counts(self, pool: str) -> PoolCounts:
        """Count a pool's addresses; only records count if its spec cannot be read."""
        entry = self.pools.get(pool)
        book, now = entry.book if entry else None, self._clock()
        return PoolCounts(
            size=book.size if book else 0,
            bound=self._bound[pool],
            retained=self._retained[pool],
            free=book.free_count(now) if book else 0,
            cooling=book.cooling_count(now) if book else 0,
        )

    def books_of(self, address: IPAddress) -> Iterable[PoolBook]:
        """The books of every pool that holds the address (pools may overlap)."""
        found = (self.pools[name].book for name in self._index_of_pools.holding(address))
        return [book for book in found if book is not None]

    def reserve(self, owner: str, addresses: Iterable[IPAddress]) -> set[str]:
        """Never give these addresses, which belong to ``owner`` (such as ``node n1``), instead of those before.

        Returns:
            The pools for which that makes a difference.
        """
        before, now = self._reserved.pop(owner, frozenset()), frozenset(addresses)
        if now:
            self._reserved[owner] = now
        changed = {name for address in before ^ now for name in self._written.holding(address)}
        for name in changed:
            self._open_pool(self.pools[name].pool)
        return changed

    def reserved_in(self, pool: str) -> dict[IPAddress, str]:
        """Give the addresses of the pool's ranges that are never given, each with its owner."""
        return {
            address: owner
            for owner, addresses in sorted(self._reserved.items())
            for address in sorted(addresses, key=int)
            if pool in self._written.holding(address)
        }

    def holding(self, address: IPAddress) -> list[str]:
        """The names of the pools that hold the address."""
        return self._index_of_pools.holding(address)

    def overlapping(self, pool: str) -> dict[str, AddressRange]:
        """The other pools that share addresses with this one, each with the first range that both hold."""
        return self._index_of_pools.overlapping(pool)

    def vanished(self, address: IPAddress, key: AttachmentKey) -> IpEndpoint | None:
        """This node's last record of the address, if it went away and the attachment held it."""
        record = self._vanished.get(record_name(address))
        return record if record is not None and holder_of(record) == key else None

    def forget_vanished(self, but: Collection[AttachmentKey]) -> None:
        """Forget the records that went away, except those of these attachments."""
        self._vanished = {name: item for name, item in self._vanished.items() if holder_of(item) in but}

    def _named(self, names: Iterable[str]) -> tuple[IpEndpoint, ...]:
        return tuple(self._store.endpoints[name] for name in sorted(names))

    # ── following the view ──

    def _endpoint_changed(self, change: EndpointChange) -> None:
        if change.old is not None:
            if change.old.metadata.name in self._mine and change.new is None:
                self._vanished[change.old.metadata.name] = change.old
            self._index(change.old, -1)
        if change.new is not None:
            self._index(change.new, +1)
        if (change.old is None) == (change.new is None):
            return
        shown = change.new or change.old
        address = shown.find_address() if shown is not None else None
        if address is None:
            return
        taken = self._taken[address.version]
        if change.new is not None:
            taken.add(int(address))
        else:
            taken.discard(int(address))
        for book in self.books_of(address):
            if change.new is not None:
                book.take(address)
            else:
                book.release(address, self._clock())

    def _index(self, endpoint: IpEndpoint, sign: int) -> None:
        name, spec = endpoint.metadata.name, endpoint.spec
        (self._retained if is_retained(endpoint) else self._bound)[spec.pool] += sign
        if spec.sticky_key:
            _link(self._by_sticky_key, spec.sticky_key, name, sign)
        if spec.node != self._node_name or is_retained(endpoint):
            return
        if sign > 0:
            self._mine[name] = endpoint
        else:
            self._mine.pop(name, None)
        _link(self._by_attachment, (spec.container_id, spec.interface), name, sign)
        if spec.pod.uid:
            _link(self._by_pod_uid, spec.pod.uid, name, sign)

    def _pool_changed(self, change: PoolChange) -> None:
        if change.new is None:
            if change.old is not None:
                self.pools.pop(change.old.metadata.name, None)
                self._index_of_pools.discard(change.old.metadata.name)
                self._written.discard(change.old.metadata.name)
            return
        known = self.pools.get(change.new.metadata.name)
        if known is not None and _addressing(known.pool.spec) == _addressing(change.new.spec):
            known.pool = change.new
            if known.book is not None:
                known.book.release_delay_seconds = change.new.spec.release_delay_seconds
        else:
            self._open_pool(change.new)

    def _open_pool(self, pool: Ips) -> None:
        """Open a pool's book: what is in use comes from the view, what cools from the book before."""
        name = pool.metadata.name
        before = self.pools.get(name)
        try:
            usable = pool_addresses(pool.spec).usable
        except InvalidRange as error:
            log.warning("pool cannot be used", pool=name, error=str(error))
            self._written.discard(name)
            self._forget_book(pool, str(error))
            return
        self._written.put(name, usable)
        usable = usable.without(self._reserved_ranges(usable.ranges[0].version))
        if not usable:
            self._forget_book(pool, "every address of its ranges belongs to a node or a Service")
            return
        book = PoolBook(usable, pool.spec.release_delay_seconds)
        book.take_all(self._taken[book.version])
        if before is not None and before.book is not None:
            book.adopt_cooling(before.book)
        self.pools[name] = PoolEntry(pool, book)
        self._index_of_pools.put(name, usable)

    def _forget_book(self, pool: Ips, problem: str) -> None:
        """Note that nothing can be given from the pool."""
        self.pools[pool.metadata.name] = PoolEntry(pool, None, problem)
        self._index_of_pools.discard(pool.metadata.name)

    def _reserved_ranges(self, version: int) -> RangeSet:
        return RangeSet(
            AddressRange.of(address)
            for addresses in self._reserved.values()
            for address in addresses
            if address.version == version
        )


def _addressing(spec: IpsSpec) -> tuple[object, ...]:
    """What of a pool's spec decides which addresses it has."""
    return (spec.subnet, spec.ips, spec.exclude_ips)


def _link(index: dict[K, set[str]], key: K, name: str, sign: int) -> None:
    """Put a record's name under a key of an index, or take it away."""
    if sign > 0:
        index.setdefault(key, set()).add(name)
    elif key in index:
        index[key].discard(name)
        if not index[key]:
            del index[key]
