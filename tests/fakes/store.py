"""A store without an API server: records in a dict, views that lag as long as a test wants, answers that get lost.

Held to the same contract as the real one by tests/unit/ipam/test_store_contract.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Literal, TypeVar

import msgspec

from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, IpsSpec
from fast.api.meta import ObjectMeta
from fast.errors import Conflict, Forbidden, NotFound, Throttled, Unavailable
from fast.ipam.rules.sticky_keys import LABEL_STICKY_KEY, sticky_labels
from fast.ipam.store.record_store import EndpointChange, PoolChange
from fast.ipam.store.record_view import EndpointView

Verb = Literal["create", "replace", "delete", "get", "list"]
_T = TypeVar("_T")
_OPERATIONS: dict[Verb, str] = {"create": "CREATE", "replace": "UPDATE", "delete": "DELETE"}


class Fate(Enum):
    """What becomes of a request."""

    ANSWERED = "answered"
    LOST = "the server never saw it"
    ANSWER_LOST = "the server did it, the answer never came"
    THROTTLED = "the server refused it, for now"


class FakeCluster:
    """What an API server knows: the truth, and every change in order."""

    def __init__(self) -> None:
        self.endpoints: dict[str, IpEndpoint] = {}
        self.pools: dict[str, Ips] = {}
        self.log: list[EndpointChange | PoolChange] = []
        self.calls = 0
        self.watchers: list[Callable[[], None]] = []
        self._counter = 0

    def _tell(self, change: EndpointChange | PoolChange) -> None:
        self.log.append(change)
        for watcher in self.watchers:
            watcher()

    def next_number(self) -> int:
        self._counter += 1
        return self._counter

    def put_pool(self, pool: Ips) -> None:
        old = self.pools.get(pool.metadata.name)
        pool.metadata.resource_version = str(self.next_number())
        self.pools[pool.metadata.name] = pool
        self._tell(PoolChange(old, pool))

    def drop_pool(self, name: str) -> None:
        self._tell(PoolChange(self.pools.pop(name), None))

    def create(self, endpoint: IpEndpoint) -> IpEndpoint:
        self.calls += 1
        name = endpoint.metadata.name
        if name in self.endpoints:
            raise Conflict(f"ipendpoints {name!r} already exists", status=409, reason="AlreadyExists")
        number = self.next_number()
        created = _stamped(endpoint, uid=f"uid-{number}", version=number)
        self.endpoints[name] = created
        self._tell(EndpointChange(None, created))
        return created

    def replace(self, endpoint: IpEndpoint) -> IpEndpoint:
        self.calls += 1
        current = self._current(endpoint)
        if current.spec == endpoint.spec:
            return current  # a write that changes nothing keeps the resourceVersion, as in Kubernetes
        replaced = _stamped(endpoint, uid=current.metadata.uid, version=self.next_number())
        self.endpoints[endpoint.metadata.name] = replaced
        self._tell(EndpointChange(current, replaced))
        return replaced

    def delete(self, endpoint: IpEndpoint) -> None:
        self.calls += 1
        current = self._current(endpoint)
        self.next_number()
        del self.endpoints[endpoint.metadata.name]
        self._tell(EndpointChange(current, None))

    def get(self, name: str) -> IpEndpoint | None:
        self.calls += 1
        return self.endpoints.get(name)

    def of_sticky_keys(self, *keys: str) -> list[IpEndpoint]:
        self.calls += 1
        labels = {sticky_labels(key)[LABEL_STICKY_KEY] for key in keys}
        return [
            endpoint
            for endpoint in self.endpoints.values()
            if endpoint.metadata.labels.get(LABEL_STICKY_KEY) in labels
        ]

    def names_in_pool(self, pool: str) -> set[str]:
        self.calls += 1
        return {name for name, item in self.endpoints.items() if item.spec.pool == pool}

    def _current(self, endpoint: IpEndpoint) -> IpEndpoint:
        """The record, where it still is the version that the write is meant for."""
        meta = endpoint.metadata
        current = self.endpoints.get(meta.name)
        if current is None:
            raise NotFound(f"ipendpoints {meta.name!r} not found", status=404, reason="NotFound")
        if (current.metadata.uid, current.metadata.resource_version) != (meta.uid, meta.resource_version):
            raise Conflict(f"ipendpoints {meta.name!r}: changed since", status=409, reason="Conflict")
        return current


async def _answered(verb: Verb, name: str) -> Fate:
    return Fate.ANSWERED


class FakeStore:
    """One process's store on a FakeCluster.

    Args:
        cluster: The truth.
        lagging: The view shows what others wrote only when :meth:`deliver` is called; else at once.
        gate: Asked before each request what becomes of it; may wait as long as it likes.
        admission: Says why a write is refused (operation, new object, old object); empty if it is not.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        *,
        lagging: bool = False,
        gate: Callable[[Verb, str], Awaitable[Fate]] = _answered,
        admission: Callable[[str, Any, Any], str] = lambda operation, new, old: "",
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._cluster = cluster
        self._gate = gate
        self._admission = admission
        self._view = EndpointView(clock)
        self._pools: dict[str, Ips] = dict(cluster.pools)
        self._pool_subscribers: list[Callable[[PoolChange], None]] = []
        self._cursor = len(cluster.log)
        for endpoint in cluster.endpoints.values():
            self._view.observed(None, endpoint)
        if not lagging:
            cluster.watchers.append(self.deliver)

    @property
    def endpoints(self) -> Mapping[str, IpEndpoint]:
        return self._view.endpoints

    @property
    def pools(self) -> Mapping[str, Ips]:
        return self._pools

    @property
    def behind(self) -> int:
        """How many changes the view has yet to show."""
        return len(self._cluster.log) - self._cursor

    def subscribe(
        self, endpoint: Callable[[EndpointChange], None], pool: Callable[[PoolChange], None]
    ) -> None:
        self._view.subscribe(endpoint)
        self._pool_subscribers.append(pool)

    def deliver(self, count: int | None = None) -> None:
        """Show the next ``count`` changes (None: all), as a watch would."""
        end = len(self._cluster.log) if count is None else min(self._cursor + count, len(self._cluster.log))
        while self._cursor < end:
            change = self._cluster.log[self._cursor]
            self._cursor += 1
            if isinstance(change, EndpointChange):
                self._view.observed(change.old, change.new)
            else:
                self._show_pool(change)

    async def create(self, endpoint: IpEndpoint) -> IpEndpoint:
        with self._view.asking() as gone:
            created = await self._write("create", endpoint, lambda: self._cluster.create(endpoint))
            self._view.answered(created, gone)
        return created

    async def replace(self, endpoint: IpEndpoint) -> IpEndpoint:
        with self._view.asking() as gone:
            try:
                replaced = await self._write("replace", endpoint, lambda: self._cluster.replace(endpoint))
            except NotFound:
                self._view.removed(endpoint, gone)
                raise
            self._view.answered(replaced, gone)
        return replaced

    async def delete(self, endpoint: IpEndpoint) -> None:
        with self._view.asking() as gone:
            try:
                await self._write("delete", endpoint, lambda: self._cluster.delete(endpoint))
            except NotFound:
                self._view.removed(endpoint, gone)
                raise
            self._view.removed(endpoint, gone)

    async def refresh(self, name: str) -> IpEndpoint | None:
        known = self._view.endpoints.get(name)
        with self._view.asking() as gone:
            found = await self._call("get", name, lambda: self._cluster.get(name))
            if found is not None:
                self._view.answered(found, gone)
            elif known is not None:
                self._view.removed(known, gone)
        return self._view.endpoints.get(name)

    async def names_in_pool(self, pool: str) -> set[str]:
        return await self._call("list", pool, lambda: self._cluster.names_in_pool(pool))

    async def refresh_sticky(self, *keys: str) -> None:
        with self._view.asking() as gone:
            for endpoint in await self._call("list", keys[0], lambda: self._cluster.of_sticky_keys(*keys)):
                self._view.answered(endpoint, gone)

    async def _write(self, verb: Verb, endpoint: IpEndpoint, request: Callable[[], _T]) -> _T:
        def admitted() -> _T:
            old = self._cluster.endpoints.get(endpoint.metadata.name)
            new = None if verb == "delete" else endpoint
            conflict = (
                old is not None
                if verb == "create"
                else old is None or not old.metadata.is_same_version(endpoint.metadata)
            )
            if not conflict:  # which the API server finds before it asks for admission
                plain = [None if item is None else msgspec.to_builtins(item) for item in (new, old)]
                if why := self._admission(_OPERATIONS[verb], *plain):
                    raise Forbidden(why, status=403, reason="Forbidden")
            return request()

        return await self._call(verb, endpoint.metadata.name, admitted)

    async def _call(self, verb: Verb, name: str, request: Callable[[], _T]) -> _T:
        fate = await self._gate(verb, name)
        if fate is Fate.LOST:
            raise Unavailable(f"{verb} {name}: connection reset")
        if fate is Fate.THROTTLED:
            raise Throttled(f"{verb} {name}: too many requests", status=429)
        result = request()
        if fate is Fate.ANSWER_LOST:
            raise Unavailable(f"{verb} {name}: connection reset after the request was sent")
        return result

    def _show_pool(self, change: PoolChange) -> None:
        if change.new is not None:
            self._pools[change.new.metadata.name] = change.new
        elif change.old is not None:
            self._pools.pop(change.old.metadata.name, None)
        for subscriber in self._pool_subscribers:
            subscriber(change)


def _stamped(endpoint: IpEndpoint, *, uid: str, version: int) -> IpEndpoint:
    metadata = msgspec.structs.replace(endpoint.metadata, uid=uid, resource_version=str(version))
    return IpEndpoint(metadata=metadata, spec=endpoint.spec)


def a_pool(name: str = "default-ips", *ips: str, subnet: str = "10.244.0.0/16", **fields: object) -> Ips:
    """A pool as a user writes it."""
    spec = msgspec.convert({"subnet": subnet, "ips": ips, **fields}, type=IpsSpec)
    return Ips(metadata=ObjectMeta(name=name), spec=spec)
