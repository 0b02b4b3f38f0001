"""The loop in which every workload controller runs: changes become keys, and keys are reconciled one at a time.

A controller gets only the key and reads the state itself, so it does the same whatever event came, and however late.
Nothing here knows a kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from fast.kube import WorkQueue
from fast_playground.apiserver.api import ApiError, Object
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.resource_verbs import Verbs

_RETRY_SECONDS = (0.05, 5.0)
_logger = structlog.get_logger()


class Key(NamedTuple):
    """What is to be reconciled; ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str


K = TypeVar("K")
#: Gives the keys that are concerned when an object was changed or deleted.
KeysOf = Callable[[Object], Iterable[K]]


async def find(api: Verbs, gvr: GVR, key: Key) -> Object | None:
    """Read what a key names; None if it is gone."""
    try:
        return await api.get(gvr, key.name, key.namespace or None)
    except ApiError as error:
        if error.reason == "NotFound":
            return None
        raise


async def delete_if_there(api: Verbs, gvr: GVR, identity: Mapping[str, str], **how: Any) -> bool:
    """Delete one object if it is still the same one; tell whether it was.

    Args:
        api: The verbs.
        gvr: The resource.
        identity: Its ``name``, ``namespace`` and ``uid``, as in its metadata.
        how: Arguments of ``Verbs.delete``.
    """
    place, uid = identity.get("namespace") or None, {"uid": identity["uid"]}
    try:
        await api.delete(gvr, identity["name"], place, preconditions=uid, **how)
    except ApiError as error:
        if error.reason not in ("NotFound", "Conflict"):
            raise
        return False  # it is gone, or another object has its name now
    return True


def own_key(obj: Object) -> list[Key]:
    """Give the key of the object itself."""
    return [Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])]


def controller_key(kind: str) -> KeysOf[Key]:
    """Give the key of the object's controller, if that is of a kind."""

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
        api: The verbs.
        sources: The resources to follow, and which keys a change of each concerns.
    """

    def __init__(self, name: str, api: Verbs, sources: Mapping[GVR, KeysOf[K]]) -> None:
        self._name = name
        self._api = api
        self._sources = dict(sources)
        self._queue: WorkQueue[K] = WorkQueue(backoff_seconds=_RETRY_SECONDS)
        self._group: asyncio.TaskGroup | None = None

    async def reconcile(self, key: K) -> float | None:
        """Reconcile one key; give the seconds after which to look again, or None.

        If this raises, the key comes again after a growing wait.
        """
        raise NotImplementedError

    def follow(self, gvr: GVR, keys_of: KeysOf[K]) -> None:
        """Follow one more resource, unless it is followed already."""
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
            self._queue.shut_down()

    async def _follow(self, gvr: GVR, keys_of: KeysOf[K]) -> None:
        while True:
            try:
                async for _, _, obj in self._api.subscribe(gvr):
                    for key in keys_of(obj):
                        self._queue.add(key)
            except ApiError as error:
                if error.reason == "NotFound":  # its CustomResourceDefinition is gone
                    del self._sources[gvr]
                    return
                # The changes since are no longer kept. The new subscription brings every key again.
                _logger.info("following again", controller=self._name, resource=gvr, reason=error.message)
            await asyncio.sleep(_RETRY_SECONDS[0])

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                again = await self.reconcile(key)
            except ApiError as error:
                _logger.debug("will retry", controller=self._name, key=key, reason=error.message)
                self._queue.add_rate_limited(key)
            except Exception:  # one bad object must not stop the others
                _logger.exception("a controller failed", controller=self._name, key=key)
                self._queue.add_rate_limited(key)
            else:
                self._queue.forget(key)
                if again is not None:
                    self._queue.add_after(key, again)
            finally:
                self._queue.done(key)
