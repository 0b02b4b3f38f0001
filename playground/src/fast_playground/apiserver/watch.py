"""The latest changes of one resource, and how to follow them. No HTTP, no selectors.

The log itself is every watcher's buffer: a watcher is only a position in it. So nothing grows with slow watchers; one
that falls behind what the log keeps is told so and cut off.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fast_playground.apiserver.status import expired

if TYPE_CHECKING:
    from fast_playground.apiserver.storage import Record

#: How many events of a resource are kept for watchers that reconnect and for further pages.
KEPT = 10_000


class Event:
    """One change: ``record`` is the state after it (of a deletion: the last one), ``old`` the state before."""

    __slots__ = ("key", "old", "record", "type")

    def __init__(self, kind: str, key: str, record: Record, old: Record | None) -> None:
        self.type = kind
        self.key = key
        self.record = record
        self.old = old


class EventLog:
    """The last events of a resource in the order of their versions.

    Args:
        version: The store's version when the log begins: what was before is not known.
    """

    def __init__(self, version: int) -> None:
        self.oldest = version
        self._events: list[Event] = []
        self._versions: list[int] = []
        self._waiting: set[asyncio.Event] = set()
        self._rendered: dict[tuple[int, bytes], bytes] = {}
        self.closed = False

    @property
    def newest(self) -> int:
        """The version of the last event."""
        return self._versions[-1] if self._versions else self.oldest

    def append(self, event: Event) -> None:
        """Add a committed event; call ``wake`` after the last one of a group."""
        self._events.append(event)
        self._versions.append(event.record.version)
        if len(self._events) > KEPT * 5 // 4:  # trimmed in pieces: cutting a list's head costs its length
            cut = len(self._events) - KEPT
            self.oldest = self._versions[cut - 1]
            del self._events[:cut], self._versions[:cut]

    def since(self, version: int) -> list[Event]:
        """The events after ``version``. Raises ApiError: 410 if some of them are no longer kept."""
        if version < self.oldest:
            raise expired(f"too old resource version: {version} ({self.oldest + 1})")
        start = bisect_right(self._versions, version)
        return self._events[start:] if start < len(self._events) else []

    def render(self, version: int, prefix: bytes) -> bytes:
        """All events after ``version`` as lines of a watch; made once for all watchers at the same place.

        Args:
            version: The watcher's position.
            prefix: What objects begin with: their kind and apiVersion.
        """
        key = (version, prefix)
        if (lines := self._rendered.get(key)) is None:
            lines = b"".join(line(e.type, e.record.raw, prefix) for e in self.since(version))
            self._rendered[key] = lines
        return lines

    def wake(self) -> None:
        """Wake the watchers."""
        self._rendered.clear()
        for waiting in self._waiting:
            waiting.set()

    def close(self) -> None:
        """End all watches: the resource is no longer served."""
        self.closed = True
        self.wake()

    def register(self, waiting: asyncio.Event) -> None:
        """Have ``waiting`` set at every change."""
        self._waiting.add(waiting)

    def unregister(self, waiting: asyncio.Event) -> None:
        """Stop setting ``waiting``."""
        self._waiting.discard(waiting)

    @property
    def watchers(self) -> int:
        """How many watchers there are."""
        return len(self._waiting)


def line(kind: str, raw: bytes, prefix: bytes) -> bytes:
    """One line of a watch's answer."""
    return b'{"type":"%s","object":%s%s}\n' % (kind.encode(), prefix, raw[1:])


class Follower:
    """Waits until one of several logs changes.

    Args:
        logs: What to follow.
    """

    def __init__(self, logs: Iterable[EventLog]) -> None:
        self._logs = list(logs)
        self._moved = asyncio.Event()
        for log in self._logs:
            log.register(self._moved)

    async def moved(self) -> None:
        """Sleep until there is something new."""
        await self._moved.wait()
        self._moved.clear()

    def close(self) -> None:
        """Stop following."""
        for log in self._logs:
            log.unregister(self._moved)
