"""Events that ``kubectl describe`` shows: queued, aggregated, rate limited. Recording never blocks or raises."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import structlog

from fast.api.core import Event, EventSource, ObjectReference
from fast.api.meta import HasMetadata, ObjectMeta
from fast.api.resources import EVENTS, reference_to
from fast.api.timestamps import now_text
from fast.errors import FastError, NotFound
from fast.kube.client import KubeClient

log = structlog.get_logger()

_V = TypeVar("_V")

EventType = Literal["Normal", "Warning"]

_REMEMBERED = 4096  # Events and buckets kept in memory; the least recently used go first
_QUEUE_LENGTH = 1000
_MESSAGE_BYTES = 1024  # what the API server accepts
_CLUSTER_SCOPED_NAMESPACE = (
    "default"  # where Events about cluster-scoped objects live, by Kubernetes' convention
)
_DROP_LOG_SECONDS = 60.0


@dataclass(slots=True)
class _Told:
    """An Event that was written: its name and how often it happened."""

    name: str
    count: int


@dataclass(slots=True)
class _Bucket:
    """A token bucket of one object."""

    tokens: float
    at: float


@dataclass(frozen=True, slots=True)
class _Occurrence:
    about: ObjectReference
    type: EventType
    reason: str
    message: str
    when: str

    @property
    def key(self) -> tuple[str, ...]:
        about = self.about
        return (about.kind, about.namespace, about.name, about.uid, self.type, self.reason, self.message)


class EventRecorder:
    """Writes core/v1 Events in the background.

    The same event about the same object is one Event with a count. An object may have ``burst`` events at once and then
    one every ``refill_seconds``; more are dropped and counted. While the server cannot be reached, Events are lost.

    Attributes:
        dropped: How many events were not written, for any reason.
    """

    def __init__(
        self,
        client: KubeClient,
        component: str,
        *,
        host: str = "",
        burst: int = 25,
        refill_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a recorder. It writes from the first event on, in the running event loop, until :meth:`close`.

        Args:
            client: Speaks to the server.
            component: The reporter, such as ``fast-agent``.
            host: The node, if there is one.
            burst: Events that one object may have at once.
            refill_seconds: After how long an object may have one more.
            clock: Seconds that never jump back.
        """
        self._client = client
        self._source = EventSource(component, host)
        self._burst = burst
        self._refill_seconds = refill_seconds
        self._clock = clock
        self._queue: asyncio.Queue[_Occurrence] = asyncio.Queue(_QUEUE_LENGTH)
        self._told: OrderedDict[tuple[str, ...], _Told] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._writer: asyncio.Task[None] | None = None
        self._drop_logged_at = float("-inf")
        self.dropped = 0

    def event(self, obj: HasMetadata | ObjectReference, type: EventType, reason: str, message: str) -> None:
        """Record that something happened to an object. Returns at once and never raises.

        Args:
            obj: One of the structs of :mod:`fast.api`, or a reference.
            type: ``Normal`` or ``Warning``.
            reason: One CamelCase word, such as ``PoolExhausted``.
            message: For people. Repeated messages are counted in one Event, so leave out what varies.
        """
        try:
            about = obj if isinstance(obj, ObjectReference) else reference_to(obj)
            message = message.encode()[:_MESSAGE_BYTES].decode(errors="ignore")
            occurrence = _Occurrence(about, type, reason, message, now_text())
            if not self._allowed(about):
                self._drop(occurrence, "rate limit")
                return
            self._queue.put_nowait(occurrence)
            if self._writer is None or self._writer.done():
                self._writer = asyncio.get_running_loop().create_task(self._write(), name="event-recorder")
        except asyncio.QueueFull:
            self._drop(occurrence, "queue full")
        except Exception:
            self.dropped += 1
            log.exception("event could not be recorded", reason=reason)

    async def close(self, *, timeout_seconds: float = 2.0) -> None:
        """Write what is queued, within the time limit, and stop."""
        if self._writer is None:
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._queue.join()
        except TimeoutError:
            self.dropped += self._queue.qsize()
        self._writer.cancel()
        await asyncio.wait({self._writer})
        self._writer = None

    def _allowed(self, about: ObjectReference) -> bool:
        """Take a token of the object's bucket, if one is left."""
        key = (about.kind, about.namespace, about.name, about.uid)
        now = self._clock()
        bucket = self._buckets.pop(key, None) or _Bucket(float(self._burst), now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) / self._refill_seconds)
        bucket.at = now
        _remember(self._buckets, key, bucket)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _drop(self, occurrence: _Occurrence, why: str) -> None:
        self.dropped += 1
        if (now := self._clock()) - self._drop_logged_at >= _DROP_LOG_SECONDS:
            self._drop_logged_at = now
            log.warning("events dropped", why=why, reason=occurrence.reason, dropped_so_far=self.dropped)

    async def _write(self) -> None:
        while True:
            occurrence = await self._queue.get()
            try:
                await self._write_one(occurrence)
            except FastError as error:
                self.dropped += 1
                log.warning("event not written", reason=occurrence.reason, error=str(error))
            except Exception:
                self.dropped += 1
                log.exception("event not written", reason=occurrence.reason)
            finally:
                self._queue.task_done()

    async def _write_one(self, occurrence: _Occurrence) -> None:
        told = self._told.get(occurrence.key)
        if told is not None and await self._count_up(told, occurrence):
            self._told.move_to_end(occurrence.key)
            return
        event = self._event_of(occurrence)
        await self._client.create(EVENTS, event)
        _remember(self._told, occurrence.key, _Told(event.metadata.name, 1))

    async def _count_up(self, told: _Told, occurrence: _Occurrence) -> bool:
        """Increase the known Event's count; False if the server has deleted it (it does after an hour)."""
        patch = {"count": told.count + 1, "lastTimestamp": occurrence.when}
        try:
            await self._client.patch(EVENTS, told.name, patch, _namespace_of(occurrence.about))
        except NotFound:
            return False
        told.count += 1
        return True

    def _event_of(self, occurrence: _Occurrence) -> Event:
        about = occurrence.about
        return Event(
            # Unique without asking the server, in the usual form.
            metadata=ObjectMeta(
                name=f"{about.name[:200]}.{time.time_ns():x}", namespace=_namespace_of(about)
            ),
            involved_object=about,
            type=occurrence.type,
            reason=occurrence.reason,
            message=occurrence.message,
            first_timestamp=occurrence.when,
            last_timestamp=occurrence.when,
            source=self._source,
        )


def _remember(table: OrderedDict[tuple[str, ...], _V], key: tuple[str, ...], value: _V) -> None:
    """Add an entry to a table of bounded size."""
    table[key] = value
    if len(table) > _REMEMBERED:
        table.popitem(last=False)


def _namespace_of(about: ObjectReference) -> str:
    return about.namespace or _CLUSTER_SCOPED_NAMESPACE
