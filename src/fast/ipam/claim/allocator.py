"""Chooses an address for one family of a claim and writes the record. Ownership is decided in ``rules``."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from fast.api.ipendpoint import IpEndpoint
from fast.api.meta import ObjectMeta
from fast.errors import (
    AddressConflict,
    Conflict,
    InvalidConfig,
    IPAMError,
    KubeError,
    PoolExhausted,
    PoolNotAllowed,
    PoolNotFound,
    Unavailable,
)
from fast.ipam.claim.contention import Contention
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.pool.ledger import Ledger, PoolEntry
from fast.ipam.rules.claim_request import Attachment, ClaimRequest, NodeIdentity
from fast.ipam.rules.claim_rules import held_by
from fast.ipam.rules.record_states import bound
from fast.ipam.rules.sticky_keys import sticky_labels
from fast.ipam.store.record_store import Store
from fast.ipam.store.record_writes import Writes
from fast.net import IPAddress, record_name

#: How often the records of a pool that seems exhausted are listed at most.
_LOOK_EVERY_SECONDS = 5.0
#: How many records that the list lacks are looked up: each is an address to try.
_MOST_LOOKED_UP = 8


@dataclass(frozen=True, slots=True)
class FamilyPlan:
    """One address of a claim: the pools to try, in order, and the one address asked for, if any.

    ``refusals`` says why each pool that was left out does not serve.
    """

    version: int
    pools: tuple[str, ...]
    address: IPAddress | None = None
    refusals: tuple[str, ...] = ()


class Allocator:
    """Chooses addresses and creates their records.

    Args:
        store: Where records are read live.
        ledger: What is free.
        writes: Writes records.
        metrics: Counts collisions.
        clock: Monotonic seconds.
        rng: Randomness of the skips.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        writes: Writes,
        metrics: IpamMetrics,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._writes = writes
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._contention: dict[str, Contention] = {}
        self._looked_at: dict[str, float] = {}

    # ── planning ──

    def plan(self, request: ClaimRequest, node: NodeIdentity) -> tuple[FamilyPlan, ...]:
        """Sort a request into one plan a family, in the order in which the families are named.

        Raises:
            PoolNotFound: A pool that is named does not exist.
            PoolNotAllowed: Every pool of a family refuses the pod by its affinities, or is being deleted.
            InvalidConfig: An address asked for lies in none of the pools.
        """
        names = self._pools_to_consider(request)
        by_family: dict[int, list[str]] = {}
        refusals: dict[int, list[tuple[type[IPAMError], str]]] = {}
        for name in names:
            entry = self._ledger.pools[name]
            error = refusal(entry, request, node)
            version = entry.book.version if entry.book is not None else 0
            if error is None:
                by_family.setdefault(version, []).append(name)
            else:
                refusals.setdefault(version, []).append(error)
        for version, errors in refusals.items():
            if version not in by_family:
                kind = errors[0][0]
                raise kind("; ".join(text for _, text in errors))
        said = {version: tuple(text for _, text in texts) for version, texts in refusals.items()}
        wanted: dict[int, IPAddress] = {address.version: address for address in request.addresses}
        for version, address in wanted.items():
            by_family[version] = self._pools_with(address, by_family.get(version, []))
        return tuple(
            FamilyPlan(version, tuple(pools), wanted.get(version), said.get(version, ()))
            for version, pools in by_family.items()
        )

    def _pools_to_consider(self, request: ClaimRequest) -> list[str]:
        """The pools named; if nobody named one, those that hold an address asked for."""
        names = list(request.pools)
        if not request.pools_named and request.addresses:
            holding = [
                name
                for name, entry in sorted(self._ledger.pools.items())
                if entry.book is not None and any(address in entry.book for address in request.addresses)
            ]
            families = {address.version for address in request.addresses}
            others = [
                name
                for name in names
                if (entry := self._ledger.pools.get(name))
                and entry.book
                and entry.book.version not in families
            ]
            names = [*holding, *others]
            if not holding:
                asked = ", ".join(map(str, request.addresses))
                raise InvalidConfig(f"address {asked} is in no Ips of this cluster")
        for name in names:
            if name not in self._ledger.pools:
                raise PoolNotFound(f"there is no Ips named {name!r}")
        return names

    def _pools_with(self, address: IPAddress, names: list[str]) -> list[str]:
        """Those of the pools that hold the address."""
        found = [
            name for name in names if (book := self._ledger.pools[name].book) is not None and address in book
        ]
        if not found:
            raise InvalidConfig(
                f"address {address} is in none of the pools it may come from ({', '.join(names)})"
            )
        return found

    def families(self, request: ClaimRequest) -> frozenset[int]:
        """The IP versions of the pools that the request names, as far as known, whether they serve it or not."""
        books = (entry.book for name in request.pools if (entry := self._ledger.pools.get(name)) is not None)
        return frozenset(book.version for book in books if book is not None)

    # ── claiming ──

    async def require_candidate(self, plan: FamilyPlan) -> None:
        """Raise PoolExhausted if no pool of the plan has an address left; asked before anything is written."""
        if plan.address is None:
            for pool in plan.pools:
                if self._has_candidate(pool) or await self._has_candidate_live(pool):
                    return
            raise self._exhausted(plan)

    async def _has_candidate_live(self, pool: str) -> bool:
        """Look at the API server before a pool counts as exhausted (race: stalled-watch).

        Not more often than every few seconds for one pool: many pods may wait for an address of it.
        """
        now = self._clock()
        if now - self._looked_at.get(pool, float("-inf")) < _LOOK_EVERY_SECONDS:
            return False
        self._looked_at[pool] = now
        there = await self._store.names_in_pool(pool)
        shown = (name for name, item in self._store.endpoints.items() if item.spec.pool == pool)
        for name in list(islice((name for name in shown if name not in there), _MOST_LOOKED_UP)):
            await self._store.refresh(name)
        return self._has_candidate(pool)

    def _has_candidate(self, pool: str) -> bool:
        entry = self._ledger.pools.get(pool)
        return (
            entry is not None and entry.book is not None and entry.book.candidate(self._clock()) is not None
        )

    def _exhausted(self, plan: FamilyPlan) -> PoolExhausted:
        counts = [f"pool {pool} is exhausted ({self._ledger.counts(pool)})" for pool in plan.pools]
        return PoolExhausted("; ".join((*counts, *plan.refusals)))

    async def create(
        self, plan: FamilyPlan, attachment: Attachment, node: NodeIdentity, sticky_key: str
    ) -> IpEndpoint:
        """Create a record on an available address: one API write, unless others want the same address.

        Raises:
            PoolExhausted: No pool of the plan has an address left; the message has each one's counts.
            AddressConflict: The one address asked for is taken; the message says by whom.
            KubeError: The API server refused otherwise, or did not answer.
        """
        if plan.address is not None:
            return await self._create_exactly(plan.address, plan.pools[0], attachment, node, sticky_key)
        for pool in plan.pools:
            record = await self._create_in(pool, attachment, node, sticky_key)
            if record is None and await self._has_candidate_live(pool):
                record = await self._create_in(pool, attachment, node, sticky_key)
            if record is not None:
                return record
        raise self._exhausted(plan)

    async def _create_in(
        self, pool: str, attachment: Attachment, node: NodeIdentity, sticky_key: str
    ) -> IpEndpoint | None:
        """Create a record on some address of the pool; None if it has none left.

        Race two-claimants: the API server accepts one record of a name; the loser tries the next candidate. A
        collision blocks the candidate only for a while, as the view should show its record soon. A candidate that
        comes up again is looked up first, so that a stale view cannot make the search run in circles, and a pool of
        exactly N addresses serves N pods.
        """
        contention = self._contention.setdefault(pool, Contention(self._rng))
        collided: set[IPAddress] = set()
        while (entry := self._ledger.pools.get(pool)) is not None and entry.book is not None:
            now = self._clock()
            address = entry.book.candidate(now, contention.skip(now, len(collided)))
            if address is None:
                return None
            if address in self._ledger.unrecorded:  # race: lost-record: a sandbox of this node has it
                entry.book.doubt(address, now)
                continue
            if address in collided and await self._store.refresh(record_name(address)) is not None:
                continue  # the view has it now
            try:
                record = await self._write(address, pool, attachment, node, sticky_key)
            except Conflict as error:
                if not error.already_exists:
                    raise
                collided.add(address)
                contention.collided(len(collided))
                self._metrics.conflicts.labels(pool).inc()
                continue
            contention.claimed(len(collided))
            return record
        return None

    async def _create_exactly(
        self, address: IPAddress, pool: str, attachment: Attachment, node: NodeIdentity, sticky_key: str
    ) -> IpEndpoint:
        if address in self._ledger.unrecorded:
            raise AddressConflict(f"address {address} is on a sandbox of this node whose record was lost")
        try:
            return await self._write(address, pool, attachment, node, sticky_key)
        except Conflict as error:
            self._metrics.conflicts.labels(pool).inc()
            holder = await self._store.refresh(record_name(address))
            raise AddressConflict(f"address {address} {held_by(holder, attachment)}") from error

    async def _write(
        self, address: IPAddress, pool: str, attachment: Attachment, node: NodeIdentity, sticky_key: str
    ) -> IpEndpoint:
        """Create the record. While the request runs, no other claim of this process chooses the address.

        That holds for the first seconds; after that, the API server decides which of two claims was first.
        """
        spec = bound(pool, attachment, node, sticky_key)
        for book in self._ledger.books_of(address):
            book.doubt(address, self._clock())
        metadata = ObjectMeta(name=record_name(address), labels=sticky_labels(sticky_key))
        try:
            return await self._writes.bind(IpEndpoint(metadata=metadata, spec=spec))
        except (Conflict, Unavailable):  # somebody has it, or nobody knows
            raise
        except KubeError:
            for book in self._ledger.books_of(address):
                book.undoubt(address)
            raise


def refusal(
    entry: PoolEntry, request: ClaimRequest, node: NodeIdentity
) -> tuple[type[IPAMError], str] | None:
    """Say why a pool serves no claim of the request on the node, as an error's type and text; None if it does."""
    pool, spec = entry.pool, entry.pool.spec
    name = f"pool {pool.metadata.name}"
    if entry.book is None:
        return PoolNotFound, f"{name} cannot be used: {entry.problem}"
    if pool.metadata.deletion_timestamp is not None:
        return PoolNotFound, f"{name} is being deleted"
    for selector, labels, what in (
        (spec.pod_affinity, request.pod_labels, "podAffinity"),
        (spec.namespace_affinity, request.namespace_labels, "namespaceAffinity"),
        (spec.node_affinity, node.labels, "nodeAffinity"),
    ):
        if selector is not None and not selector.matches(labels):
            return PoolNotAllowed, f"{name} does not allow this pod: its {what} does not match"
    return None
