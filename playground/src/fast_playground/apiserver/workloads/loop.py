"""The loop every workload controller runs in: changes become keys, keys are reconciled one at a time, with retries.

A controller's function gets only the key and reads the state itself, so that it does the same whatever event came, and
however late. Nothing about any kind here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from fast_playground.apiserver.api import ApiError, Object
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.resource_verbs import Verbs

_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 5.0
_logger = structlog.get_logger()


class Key(NamedTuple):
    """What is to be reconciled; ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str


K = TypeVar("K")
#: Gives the keys that an object, changed or deleted, is of concern to.
KeysOf = Callable[[Object], Iterable[K]]


async def find(api: Verbs, gvr: GVR, key: Key) -> Object | None:
    """Read what a key names; None: it is gone."""
    try:
        return await api.get(gvr, key.name, key.namespace or None)
    except ApiError as error:
        if error.reason == "NotFound":
            return None
        raise


async def delete_if_there(api: Verbs, gvr: GVR, identity: Mapping[str, str], **how: Any) -> bool:
    """Delete exactly one object; tell whether it was still there.

    Args:
        api: Where.
        gvr: The resource.
        identity: Its ``name``, ``namespace`` and ``uid``, as in its metadata.
        how: As ``Verbs.delete``.
    """
    place, uid = identity.get("namespace") or None, {"uid": identity["uid"]}
    try:
        await api.delete(gvr, identity["name"], place, preconditions=uid, **how)
    except ApiError as error:
        if error.reason not in ("NotFound", "Conflict"):
            raise
        return False  # it is gone, or another has its name by now
    return True


def own_key(obj: Object) -> list[Key]:
    """Concern the object itself."""
    return [Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])]


def controller_key(kind: str) -> KeysOf[Key]:
    """Concern the object's controlling owner, where that is of a kind."""

    def keys(obj: Object) -> list[Key]:
        owner = controller_of(obj)
        return [Key(obj["metadata"]["namespace"], owner["name"])] if owner and owner["kind"] == kind else []

    return keys


def controller_of(obj: Object) -> Object | None:
    """Find the owner reference of the controller that manages the object."""
    references: list[Object] = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


class ControlLoop(Generic[K]):
    """One controller.

    Args:
        name: For logs.
        api: Where to follow the changes.
        sources: What to follow, and which keys a change of it concerns.
    """

    def __init__(self, name: str, api: Verbs, sources: Mapping[GVR, KeysOf[K]]) -> None:
        self._name = name
        self._api = api
        self._sources = dict(sources)
        self._pending: dict[K, None] = {}  # in order of arrival, each once
        self._retries: dict[K, float] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    async def reconcile(self, key: K) -> float | None:
        """Make one key right; give the seconds after which to look again, or None.

        An ApiError is retried later, ever more slowly.
        """
        raise NotImplementedError

    def add(self, key: K) -> None:
        """Have a key reconciled soon."""
        self._pending[key] = None
        self._wake.set()

    def follow(self, gvr: GVR, keys_of: KeysOf[K]) -> None:
        """Follow one more resource, if it is not followed yet."""
        if gvr not in self._sources:
            self._sources[gvr] = keys_of
            if self._group is not None:
                self._group.create_task(self._follow(gvr, keys_of))

    async def run(self) -> None:
        """Follow and reconcile until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for gvr, keys_of in self._sources.items():
                    self._group.create_task(self._follow(gvr, keys_of))
                self._group.create_task(self._work())
        finally:
            self._group = None
            for timer in self._timers.values():
                timer.cancel()

    async def _follow(self, gvr: GVR, keys_of: KeysOf[K]) -> None:
        while True:
            try:
                async for _, _, obj in self._api.subscribe(gvr):
                    for key in keys_of(obj):
                        self.add(key)
            except ApiError as error:
                if error.reason == "NotFound":  # its CustomResourceDefinition is gone
                    del self._sources[gvr]
                    return
                # We are too late for what is kept: the new snapshot brings every key again.
                _logger.info("following anew", controller=self._name, resource=gvr, reason=error.message)
            await asyncio.sleep(_FIRST_RETRY_SECONDS)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            while self._pending:
                key = next(iter(self._pending))
                del self._pending[key]
                await self._reconcile_one(key)
            self._wake.clear()

    async def _reconcile_one(self, key: K) -> None:
        try:
            again = await self.reconcile(key)
        except ApiError as error:
            again = min(self._retries.get(key, _FIRST_RETRY_SECONDS / 2) * 2, _LAST_RETRY_SECONDS)
            self._retries[key] = again
            _logger.debug("will retry", controller=self._name, key=key, reason=error.message)
        except Exception:  # one bad object must not stop the others
            _logger.exception("a controller failed", controller=self._name, key=key)
            again = self._retries[key] = _LAST_RETRY_SECONDS
        else:
            self._retries.pop(key, None)
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if again is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(again, self._due, key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
