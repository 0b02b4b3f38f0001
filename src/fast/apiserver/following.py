"""Following resources in process: what ``Api.subscribe`` returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from fast.apiserver.api import Change
from fast.apiserver.registry import Kind
from fast.apiserver.storage import Store
from fast.apiserver.watch import Follower


class ResourceSubscription:
    """A snapshot of some resources, then their changes. Bounded: the store's log is its only buffer.

    Args:
        store: Where the objects live.
        kinds: What to follow.
    """

    def __init__(self, store: Store, kinds: Sequence[Kind]) -> None:
        self._store = store
        self._kinds = kinds
        self._snapshot = [(kind, list(store.bucket(kind.storage).records.values())) for kind in kinds]
        self._version = store.version
        self._follower = Follower(store.bucket(kind.storage).log for kind in kinds)
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Go through it; raises ApiError 410 where the receiver is too late."""
        try:
            while self._snapshot:
                kind, records = self._snapshot.pop(0)
                for record in records:
                    yield "ADDED", kind.gvr, kind.whole(record.decode())
            while not self._closed:
                for change in self._pending():
                    yield change
                if self._version == self._store.version:
                    await self._follower.moved()
        finally:
            self.close()

    def _pending(self) -> list[Change]:
        """The changes since the last look, in their order."""
        found = [
            (event.record.version, event, kind)
            for kind in self._kinds
            for event in self._store.bucket(kind.storage).log.since(self._version)
        ]
        found.sort(key=lambda item: item[0])
        self._version = self._store.version
        return [(event.type, kind.gvr, kind.whole(event.record.decode())) for _, event, kind in found]

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._follower.poke()
        self._follower.close()
