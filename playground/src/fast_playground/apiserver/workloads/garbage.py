"""Garbage collection by ``ownerReferences``: deletes what lost its owners. Foreground deletion, orphaning.

Whether an owner still lives is read each time; the index only says which objects name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, GVR
from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, KeysOf, delete_if_there, find
from fast_playground.apiserver.workloads.owned_pods import MANAGER, is_terminating

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Ref(NamedTuple):
    """One object, exactly: the resource, where it is, and its UID."""

    gvr: GVR
    namespace: str
    name: str
    uid: str


class GarbageCollector(ControlLoop[Ref]):
    """Follows every kind but Events, and reconciles owners.

    Args:
        api: Where the objects are.
        registry: Which kinds there are, also those of CustomResourceDefinitions made later.
    """

    def __init__(self, api: Verbs, registry: Registry) -> None:
        super().__init__("garbage", api, {})
        self._registry = registry
        self._dependents: dict[str, set[Ref]] = {}  # by the owner's UID
        self._follow_all()

    def _follow_all(self) -> None:
        for kind in self._registry:
            if kind.gvr != EVENTS:
                self.follow(kind.gvr, self._owners_of(kind.gvr))

    def _owners_of(self, gvr: GVR) -> KeysOf[Ref]:
        def keys(obj: Object) -> Iterator[Ref]:
            if gvr == CUSTOM_RESOURCE_DEFINITIONS:
                self._follow_all()
            metadata = obj["metadata"]
            me = Ref(gvr, metadata.get("namespace", ""), metadata["name"], metadata["uid"])
            if me.uid in self._dependents or _holds(obj):
                yield me
            for reference in metadata.get("ownerReferences") or []:
                if owner := self._resolve(reference, me.namespace):
                    self._dependents.setdefault(owner.uid, set()).add(me)
                    yield owner

        return keys

    def _resolve(self, reference: Object, namespace: str) -> Ref | None:
        """Resolve an owner reference; None if its kind is unknown, in which case the owner counts as alive."""
        kind = self._registry.find_kind(reference["apiVersion"], reference["kind"])
        if kind is None:
            return None
        return Ref(kind.gvr, namespace if kind.namespaced else "", reference["name"], reference["uid"])

    async def reconcile(self, owner: Ref) -> float | None:
        """Do to an owner's dependents what its state asks for."""
        obj = await self._find(owner)
        if obj is None:
            await self._collect(owner)
        elif is_terminating(obj) and (held := _holds(obj)):
            if held == FOREGROUND:
                await self._delete_dependents(owner)
            else:
                await self._release_dependents(owner)
            if held == ORPHAN or not await self._live_dependents(owner):
                await self._drop_finalizer(owner, obj, held)
        return None

    async def _find(self, ref: Ref) -> Object | None:
        """Read the object of exactly this UID; None: it is gone."""
        obj = await find(self._api, ref.gvr, Key(ref.namespace, ref.name))
        return obj if obj and obj["metadata"]["uid"] == ref.uid else None

    async def _live_dependents(self, owner: Ref) -> list[tuple[Ref, Object]]:
        """Read the objects that name the owner, and forget those that no longer do."""
        known = self._dependents.get(owner.uid, set())
        live = []
        for ref in sorted(known):
            obj = await self._find(ref)
            if obj and any(item["uid"] == owner.uid for item in _references(obj)):
                live.append((ref, obj))
            else:
                known.discard(ref)
        if not known:
            self._dependents.pop(owner.uid, None)
        return live

    async def _collect(self, owner: Ref) -> None:
        """Delete the dependents of an owner that is gone; those that another owner keeps forget it."""
        for ref, obj in await self._live_dependents(owner):
            others = [item for item in _references(obj) if item["uid"] != owner.uid]
            if await self._any_alive(others, ref.namespace):
                await self._release(ref, others)
            elif not is_terminating(obj):
                await delete_if_there(self._api, ref.gvr, ref._asdict(), propagation="Background")

    async def _any_alive(self, references: Iterable[Object], namespace: str) -> bool:
        for reference in references:
            ref = self._resolve(reference, namespace)
            if ref is None or await self._find(ref):
                return True
        return False

    async def _delete_dependents(self, owner: Ref) -> None:
        for ref, obj in await self._live_dependents(owner):
            if not is_terminating(obj):
                propagation = "Foreground" if self._dependents.get(ref.uid) else "Background"
                await delete_if_there(self._api, ref.gvr, ref._asdict(), propagation=propagation)

    async def _release_dependents(self, owner: Ref) -> None:
        """Take the owner out of its dependents' references, so that they outlive it."""
        for ref, obj in await self._live_dependents(owner):
            await self._release(ref, [item for item in _references(obj) if item["uid"] != owner.uid])

    async def _release(self, ref: Ref, owners: list[Object]) -> None:
        """Set the owners of a dependent to these."""
        patch = {"metadata": {"ownerReferences": owners or None, "uid": ref.uid}}
        await self._api.patch(ref.gvr, ref.name, patch, ref.namespace or None, options=MANAGER)

    async def _drop_finalizer(self, owner: Ref, obj: Object, finalizer: str) -> None:
        left = [item for item in obj["metadata"]["finalizers"] if item != finalizer]
        version = obj["metadata"]["resourceVersion"]
        patch = {"metadata": {"finalizers": left or None, "resourceVersion": version}}
        await self._api.patch(owner.gvr, owner.name, patch, owner.namespace or None, options=MANAGER)


def _holds(obj: Object) -> str | None:
    """Find the finalizer by which the collector holds an object, if any."""
    finalizers = obj["metadata"].get("finalizers") or []
    return next((item for item in (ORPHAN, FOREGROUND) if item in finalizers), None)


def _references(obj: Object) -> list[Object]:
    references: list[Object] = obj["metadata"].get("ownerReferences") or []
    return references
