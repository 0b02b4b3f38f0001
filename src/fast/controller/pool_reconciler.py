"""Reconciles one Ips at a time: its status, its finalizer, events about it. Acts on the state it finds."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import structlog

from fast.api.ips import FINALIZER_IN_USE, Ips, IpsStatus
from fast.api.meta import Condition
from fast.api.resources import IPENDPOINTS, IPSES
from fast.api.timestamps import now_text
from fast.controller.census import Census
from fast.controller.pool_conditions import EXHAUSTED, PoolState, status_of
from fast.errors import Conflict, NotFound
from fast.ipam.store.record_store import Store
from fast.kube import EventRecorder, KubeClient, WorkQueue

log = structlog.get_logger()

#: A pool's status is written at most so often.
_WRITE_EVERY_SECONDS = 1.0
#: After this time a pool is looked at again whose records the watch does not show yet.
_LOOK_AGAIN_SECONDS = 1.0
#: Below this share of free addresses a pool is low; it must recover to twice that before it can be low again.
_LOW_SHARE = 0.10


class PoolReconciler:
    """Keeps Ipses' status in step with the records.

    Args:
        client: Writes status and finalizers.
        store: The view of pools.
        census: Counts.
        events: Tells users.
        queue: Takes pools that must be looked at again.
        gc_stopped: Says why the breaker holds addresses of a pool back; empty if it holds none.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        census: Census,
        events: EventRecorder,
        queue: WorkQueue[str],
        gc_stopped: Callable[[str], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._store = store
        self._census = census
        self._events = events
        self._queue = queue
        self._gc_stopped = gc_stopped
        self._clock = clock
        self._written_at: dict[str, float] = {}
        self._newest: dict[str, Ips] = {}  # as the API server answered, until the watch shows it
        self._low: set[str] = set()

    async def reconcile(self, name: str) -> None:
        """Bring one pool's status and finalizer to what the records say; writes only what differs.

        Raises:
            KubeError: The API server refused or is away; the queue tries again.
        """
        pool = self._current(name)
        if pool is None:
            for book in (self._written_at, self._newest):
                book.pop(name, None)
            self._low.discard(name)
            return
        try:
            pool = await self._ensure_finalizer(pool)
            if pool is not None:
                await self._ensure_status(pool)
        except (Conflict, NotFound):  # changed or gone meanwhile: the watch brings it, then again
            self._newest.pop(name, None)
            self._queue.add_after(name, 0.2)

    def _current(self, name: str) -> Ips | None:
        """The pool as last seen: by the watch, or in the answer to an own write, if that is newer."""
        watched, answered = self._store.pools.get(name), self._newest.get(name)
        if watched is None or answered is None or watched.metadata.uid != answered.metadata.uid:
            return watched
        if watched.metadata.version >= answered.metadata.version:
            del self._newest[name]
            return watched
        return answered

    async def _ensure_finalizer(self, pool: Ips) -> Ips | None:
        """Hold the pool from the first look on, and until its last address is free; None if it was let go.

        A finalizer that came with the first record would come too late for a pool that is deleted in between. What the
        watch shows is no evidence that nobody holds an address: before the pool is let go, its records are read live.
        """
        meta = pool.metadata
        held, in_use = FINALIZER_IN_USE in meta.finalizers, bool(self._census.facts(meta.name).records)
        deleting = meta.deletion_timestamp is not None
        if held and deleting and not in_use:
            listed = await self._client.list(IPENDPOINTS, field_selector=f"spec.pool={meta.name}")
            if listed.items or listed.undecodable:
                self._queue.add_after(meta.name, _LOOK_AGAIN_SECONDS)
                return pool
            await self._write_finalizers(pool, [item for item in meta.finalizers if item != FINALIZER_IN_USE])
            log.info("pool let go: no address of it is in use", pool=meta.name)
            return None
        if not held and not deleting:
            return await self._write_finalizers(pool, [*meta.finalizers, FINALIZER_IN_USE])
        return pool

    async def _write_finalizers(self, pool: Ips, finalizers: list[str]) -> Ips:
        meta = pool.metadata
        patch = {"metadata": {"resourceVersion": meta.resource_version, "finalizers": finalizers}}
        return self._answered(await self._client.patch(IPSES, meta.name, patch))

    async def _ensure_status(self, pool: Ips) -> None:
        name = pool.metadata.name
        state = self._state(pool)
        status = status_of(pool, state, now_text())
        self._tell_when_low(pool, state)
        if status == pool.status:
            return
        wait = self._written_at.get(name, float("-inf")) + _WRITE_EVERY_SECONDS - self._clock()
        if wait > 0:
            self._queue.add_after(name, wait)
            return
        self._written_at[name] = self._clock()
        patch = {"metadata": {"uid": pool.metadata.uid}, "status": msgspec.to_builtins(status)}
        self._answered(await self._client.patch(IPSES, name, patch, subresource="status"))
        self._tell_when_exhausted(pool, status)

    def _answered(self, pool: Ips) -> Ips:
        self._newest[pool.metadata.name] = pool
        return pool

    def _state(self, pool: Ips) -> PoolState:
        name = pool.metadata.name
        facts = self._census.facts(name)
        deleting = pool.metadata.deletion_timestamp is not None
        return PoolState(
            counts=self._census.counts(name),
            problem=self._census.problem(name),
            overlap=self._census.overlap(pool),
            holders=self._census.records(facts.records) if deleting else (),
            outside=self._census.records(facts.outside),
            gc_stopped=self._gc_stopped(name),
            reserved=self._census.reserved(name),
        )

    def _tell_when_low(self, pool: Ips, state: PoolState) -> None:
        name, counts = pool.metadata.name, state.counts
        if counts.free > 2 * _LOW_SHARE * counts.size:
            self._low.discard(name)
        elif 0 < counts.free < _LOW_SHARE * counts.size and name not in self._low:
            self._low.add(name)
            self._events.event(
                pool, "Warning", "PoolLow", f"less than {_LOW_SHARE:.0%} of {counts.size} addresses are free"
            )

    def _tell_when_exhausted(self, pool: Ips, status: IpsStatus) -> None:
        before = pool.status.conditions if isinstance(pool.status, IpsStatus) else []
        if _is_true(status.conditions, EXHAUSTED) and not _is_true(before, EXHAUSTED):
            self._events.event(
                pool, "Warning", "PoolExhausted", f"all {status.total_ip_count} addresses are in use"
            )


def _is_true(conditions: list[Condition], kind: str) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in conditions)
