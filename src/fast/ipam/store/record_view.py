"""The view of the records: what the watch showed, and on top of it this process's own newer writes.

Without it a claim just made would be invisible until its event came back, and the next claim would choose the same
address. Pure bookkeeping; no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fast.api.ipendpoint import IpEndpoint
from fast.ipam.store.record_store import EndpointChange


@dataclass(slots=True)
class _OwnWrite:
    """A write of this process that the watch has not shown yet. Until it does, older events are ignored."""

    uid: str
    version: int
    deleted: bool
    written_at: float


class EndpointView:
    """Records by name, with subscribers told of every change.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.endpoints: dict[str, IpEndpoint] = {}
        self._own: dict[str, _OwnWrite] = {}
        self._clock = clock
        self._asking: list[set[str]] = []
        self._subscribers: list[Callable[[EndpointChange], None]] = []

    def subscribe(self, subscriber: Callable[[EndpointChange], None]) -> None:
        """Call the function for every change from now on."""
        self._subscribers.append(subscriber)

    def observed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> None:
        """Take what the watch showed, unless an own write is newer."""
        shown = new or old
        if shown is None:
            return
        name = shown.metadata.name
        own = self._own.get(name)
        if own is not None:
            if self._is_echo(own, old, new):
                return
            del self._own[name]
        self._put(name, new)

    @staticmethod
    def _is_echo(own: _OwnWrite, old: IpEndpoint | None, new: IpEndpoint | None) -> bool:
        """Whether the event is older than the own write (race: own-write-echo)."""
        if new is None:  # a deletion counts if it is of the object that this process wrote or deleted
            return old is None or old.metadata.uid != own.uid
        if new.metadata.uid == own.uid:
            return own.deleted or new.metadata.version < own.version
        return new.metadata.version <= own.version

    @contextmanager
    def asking(self) -> Iterator[Collection[str]]:
        """Give the UIDs of the records that go out of the view while a request is under way.

        The watch may be faster than an answer: a record that it showed as gone must not come back with the answer.
        """
        gone: set[str] = set()
        self._asking.append(gone)
        try:
            yield gone
        finally:
            self._asking = [other for other in self._asking if other is not gone]

    def answered(self, endpoint: IpEndpoint, gone: Collection[str]) -> None:
        """Show a record that this process created, replaced or read live, unless the view knows a newer one.

        Args:
            endpoint: As the API server answered.
            gone: From :meth:`asking`, around the request.
        """
        name, meta = endpoint.metadata.name, endpoint.metadata
        current = self.endpoints.get(name)
        if meta.uid in gone or (current is not None and current.metadata.version > endpoint.metadata.version):
            return
        if current is not None and name not in self._own and current.metadata.is_same_version(meta):
            return  # the watch has shown it already, and will not again
        self._remember(endpoint, deleted=False)
        self._put(name, endpoint)

    def removed(self, endpoint: IpEndpoint, gone: Collection[str]) -> None:
        """Remove a record that this process deleted, or found gone."""
        current = self.endpoints.get(endpoint.metadata.name)
        if endpoint.metadata.uid in gone or (
            current is not None and current.metadata.uid != endpoint.metadata.uid
        ):
            return
        self._remember(endpoint, deleted=True)
        self._put(endpoint.metadata.name, None)

    def unconfirmed(self, older_than_seconds: float) -> list[str]:
        """Give the names of records whose own write the watch has not shown for that long."""
        limit = self._clock() - older_than_seconds
        return [name for name, own in self._own.items() if own.written_at <= limit]

    def forget(self, name: str) -> None:
        """Forget the own write: from now on the watch decides about this record."""
        self._own.pop(name, None)

    def _remember(self, endpoint: IpEndpoint, *, deleted: bool) -> None:
        meta = endpoint.metadata
        self._own[meta.name] = _OwnWrite(meta.uid, meta.version, deleted, self._clock())

    def _put(self, name: str, new: IpEndpoint | None) -> None:
        old = self.endpoints.get(name)
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            for gone in self._asking:
                gone.add(old.metadata.uid)
        if new is None:
            self.endpoints.pop(name, None)
        else:
            self.endpoints[name] = new
        if old is None and new is None:
            return
        if old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            self._tell(EndpointChange(old, None))
            old = None
        self._tell(EndpointChange(old, new))

    def _tell(self, change: EndpointChange) -> None:
        for subscriber in self._subscribers:
            subscriber(change)
