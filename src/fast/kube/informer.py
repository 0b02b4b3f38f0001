"""A local copy of a resource that follows the server by list and watch, through every fault.

Keeps the copy and calls handlers, which decide what a change means. tests/fakes/nasty_server.py has the faults that it
is tested against.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec
import structlog

from fast.api.meta import HasMetadata
from fast.api.resources import Resource
from fast.errors import Expired, FastError, KubeError, Throttled, Unavailable
from fast.kube.client import KubeClient, decoder_of, metadata_of
from fast.kube.status_errors import error_of_event

log = structlog.get_logger()

T = TypeVar("T", bound=HasMetadata)

#: The longest time that applying events may block the event loop.
_SLICE_SECONDS = 0.005
#: A watch that ends cleanly before this time, without an event, is a fault: continuing at once would be a hot loop.
_SHORTEST_WATCH_SECONDS = 1.0
#: After this many refused watches in a row, the version is dropped and the resource listed again: a server restored
#: from a backup has no version as new as ours, and may say so by any error.
_MOST_REFUSALS = 5


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What happened to one object: added (``old`` is None), deleted (``new`` is None), or changed.

    An object that was deleted and recreated under the same name makes two changes, even if the server sent one event.
    """

    old: T | None
    new: T | None

    @property
    def current(self) -> T:
        """The new object, or the last known state of one that was deleted."""
        found = self.new if self.new is not None else self.old
        assert found is not None, "a change has at least one side"
        return found


@dataclass(frozen=True, slots=True)
class Timing:
    """The informer's waiting times, in seconds."""

    #: The server ends a watch after a random time between these, so that agents do not reconnect all at once.
    watch: tuple[int, int] = (240, 480)
    #: Without a byte for this long a watch counts as dead and is opened again from its last version. Servers send a
    #: bookmark every minute.
    silence: float = 120.0
    #: The first and the longest wait after a failure; each is stretched by a random factor of 1 to 2.
    backoff: tuple[float, float] = (0.5, 15.0)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_event = msgspec.json.Decoder(_Event).decode


class Informer(Generic[T]):
    """Follows one resource (or a selection of it).

    Everything runs in one event loop; handlers are called synchronously in it, in the order of changes, after
    ``cache`` has the change. A handler must not raise (it is logged and the others go on) and should return within
    microseconds.

    Attributes:
        cache: The copy, by ``namespace/name`` or ``name``. Empty until synced; stale, not empty, while the server
            cannot be reached.
        undecodable: Key → error, of objects that do not fit the type. Such an object keeps its last good state in
            ``cache``.
        resource: The resource that is followed.
        last_contact: ``time.monotonic()`` of the last byte from the server; ``-inf`` before the first.
        failing_since: ``time.monotonic()`` of the first failure after the last contact; None if there was none.
        relists: How many lists were completed.
        failures: How many times list or watch failed.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource[T],
        namespace: str | None = None,
        field_selector: str = "",
        label_selector: str = "",
        *,
        transform: Callable[[T], T] | None = None,
        timing: Timing = Timing(),
        page_size: int = 500,
    ) -> None:
        """Make an informer; nothing happens before :meth:`run`.

        Args:
            client: Speaks to the server.
            resource: What to follow; its ``type`` decides how much memory an object takes.
            namespace: Only objects of this namespace.
            field_selector: Such as ``spec.nodeName=n1``.
            label_selector: Such as ``app=busybox``.
            transform: Applied to every object before it is kept, to drop or share what takes memory. Must keep the
                metadata.
            timing: Waiting times.
            page_size: Objects per page of the list.
        """
        self._client = client
        self._namespace = namespace
        self._selectors = {"field_selector": field_selector, "label_selector": label_selector}
        self._decode = decoder_of(resource.type).decode
        self._transform = transform
        self._timing = timing
        self._page_size = page_size
        self._objects: dict[str, T] = {}
        self._handlers: tuple[Callable[[Change[T]], None], ...] = ()
        self._synced = asyncio.Event()
        self._version: str | None = None
        self.cache: Mapping[str, T] = MappingProxyType(self._objects)
        self.resource = resource
        self.undecodable: dict[str, str] = {}
        self.last_contact = float("-inf")
        self.failing_since: float | None = None
        self.relists = 0
        self.failures = 0

    @property
    def synced(self) -> bool:
        """Whether a list was ever completed."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait until the first list was completed; :meth:`run` must be running."""
        await self._synced.wait()

    def add_handler(self, handler: Callable[[Change[T]], None]) -> None:
        """Call ``handler`` with every change from now on, and at once with an addition for each object known."""
        self._handlers = (*self._handlers, handler)
        for obj in list(self._objects.values()):
            self._call(handler, Change(None, obj))

    async def run(self) -> None:
        """Follow the server until cancelled. Never returns, and raises nothing but CancelledError."""
        first, longest = self._timing.backoff
        delay, refusals = first, 0
        while True:
            began = time.monotonic()
            try:
                if self._version is None:
                    await self._list()
                    refusals = 0
                if await self._watch():
                    delay, refusals = first, 0
                    continue
                error: FastError = Unavailable(
                    f"watch {self.resource.plural} ended at once, without an event"
                )
            except FastError as caught:
                error = caught
            self.failures += 1
            if self.failing_since is None:
                self.failing_since = time.monotonic()
            refusals += _is_refusal(error)
            if isinstance(error, Expired) or refusals >= _MOST_REFUSALS:
                self._version = None
            if time.monotonic() - began > longest:
                delay = first
            asked = error.retry_after_seconds if isinstance(error, KubeError) else None
            wait = max(delay * random.uniform(1, 2), asked or 0.0)
            log.warning(
                "informer interrupted",
                resource=self.resource.plural,
                error=str(error),
                retry_in=round(wait, 1),
            )
            await asyncio.sleep(wait)
            delay = min(delay * 2, longest)

    async def _list(self) -> None:
        """Bring the copy to the server's state; what the list lacks was deleted without a watch event."""
        seen: set[str] = set()
        undecodable: dict[str, str] = {}
        version = ""
        pages = self._client.list_pages(
            self.resource, self._namespace, limit=self._page_size, **self._selectors
        )
        async for page in pages:
            self._heard()
            if page.first:
                seen.clear()
                undecodable.clear()
            for raw in page.items:
                obj = self._read(raw, undecodable)
                if obj is not None:
                    seen.add(obj.metadata.key)
                    self._put(obj)
            version = page.resource_version
            await asyncio.sleep(0)
        self.undecodable = undecodable
        for key in [key for key in self._objects if key not in seen and key not in undecodable]:
            self._drop(key)
        self._version = version
        self.relists += 1
        self._synced.set()

    async def _watch(self) -> bool:
        """Follow one watch to its clean end. False if it ended at once without an event."""
        assert self._version is not None, "a list comes before the watch"
        began = time.monotonic()
        events = 0
        async with self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            timeout_seconds=random.randint(*self._timing.watch),
            silence_seconds=self._timing.silence,
            **self._selectors,
        ) as chunks:
            slice_began = self._heard()
            async with aclosing(_lines(chunks)) as lines:
                async for line in lines:
                    self._apply(line)
                    events += 1
                    if self._heard() - slice_began > _SLICE_SECONDS:
                        await asyncio.sleep(0)
                        slice_began = time.monotonic()
        return events > 0 or time.monotonic() - began >= _SHORTEST_WATCH_SECONDS

    def _heard(self) -> float:
        """Note a sign of life from the server; gives the time."""
        self.last_contact, self.failing_since = time.monotonic(), None
        return self.last_contact

    def _apply(self, line: bytes) -> None:
        """Apply one event to the copy."""
        try:
            event = _decode_event(line)
            if event.type in {"ADDED", "MODIFIED"}:
                self._version = self._apply_object(event.object)
            elif event.type == "ERROR":
                raise error_of_event(f"watch {self.resource.plural}", event.object)
            else:
                metadata = metadata_of(event.object)
                if event.type == "DELETED":
                    self.undecodable.pop(metadata.key, None)
                    self._drop(metadata.key)
                self._version = metadata.resource_version  # of a BOOKMARK, too
        except msgspec.MsgspecError as error:
            # What the event said is lost; only a list can tell.
            self._version = None
            raise Unavailable(f"watch {self.resource.plural}: an event cannot be read: {error}") from error

    def _apply_object(self, raw: msgspec.Raw) -> str:
        """Apply an added or changed object; gives its version."""
        obj = self._read(raw, self.undecodable)
        if obj is None:
            return metadata_of(raw).resource_version
        if self.undecodable:
            self.undecodable.pop(obj.metadata.key, None)
        self._put(obj)
        return obj.metadata.resource_version

    def _read(self, raw: msgspec.Raw, undecodable: dict[str, str]) -> T | None:
        """Decode an object; one that does not fit goes into ``undecodable`` and does not stop the others."""
        try:
            obj = self._decode(raw)
            return obj if self._transform is None else self._transform(obj)
        except Exception as error:  # a transform of the caller's may raise anything
            key = _key_of(raw)
            log.warning("object does not fit", resource=self.resource.plural, key=key, error=str(error))
            undecodable[key] = str(error)
            return None

    def _put(self, obj: T) -> None:
        metadata = obj.metadata
        key = metadata.key
        old = self._objects.get(key)
        if old is not None and old.metadata.uid != metadata.uid:
            self._drop(key)
            old = None
        if old is not None and old.metadata.resource_version == metadata.resource_version:
            return  # a relist repeats what is known
        self._objects[key] = obj
        self._tell(Change(old, obj))

    def _drop(self, key: str) -> None:
        old = self._objects.pop(key, None)
        if old is not None:
            self._tell(Change(old, None))

    def _tell(self, change: Change[T]) -> None:
        for handler in self._handlers:
            self._call(handler, change)

    def _call(self, handler: Callable[[Change[T]], None], change: Change[T]) -> None:
        try:
            handler(change)
        except Exception:
            log.exception("handler failed", resource=self.resource.plural, key=change.current.metadata.key)


def _is_refusal(error: FastError) -> bool:
    """Whether the server answered with an error other than 429."""
    return isinstance(error, KubeError) and error.status > 0 and not isinstance(error, Throttled)


def _key_of(raw: msgspec.Raw) -> str:
    """The key of an object that does not fit its type; its metadata nearly always does."""
    try:
        return metadata_of(raw).key
    except msgspec.MsgspecError:
        return "(unreadable metadata)"


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Cut chunks of any size into lines. An incomplete last line is dropped: the next watch starts before it."""
    parts: list[bytes] = []  # of a line longer than a chunk; joined once, so a 1 MiB event is copied once
    async for chunk in chunks:
        begin, end = 0, chunk.find(b"\n")
        while end >= 0:
            line = chunk[begin:end]
            if parts:
                line = b"".join((*parts, line))
                parts.clear()
            if line and not line.isspace():
                yield line
            begin, end = end + 1, chunk.find(b"\n", end + 1)
        if begin < len(chunk):
            parts.append(chunk[begin:])
