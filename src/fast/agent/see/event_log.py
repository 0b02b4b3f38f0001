"""The last events of this node, and who listens to new ones.

Everything is bounded: a listener that is too slow loses events, and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from fast.agent.see.traffic_event import TrafficEvent

#: Drops that are kept for whoever asks later.
KEPT_DROPS = 4096
#: Events that wait for one listener at most.
WAITING = 1024
DROPS = frozenset({"drop"})


class Listener:
    """One reader of new events.

    Attributes:
        kinds: Of the events it gets.
        lost: How many events it missed since it last asked (:meth:`take_lost`).
    """

    def __init__(self, kinds: frozenset[str], waiting: int) -> None:
        self._queue: asyncio.Queue[TrafficEvent] = asyncio.Queue(waiting)
        self.kinds = kinds
        self.lost = 0

    def offer(self, event: TrafficEvent) -> None:
        """Queue an event of its kinds, or count it as lost. Never blocks."""
        if event.kind not in self.kinds:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost += 1

    async def next(self) -> TrafficEvent:
        """Wait for the next event."""
        return await self._queue.get()

    def take_lost(self) -> int:
        """Return how many events were lost since the last call."""
        lost, self.lost = self.lost, 0
        return lost


class EventLog:
    """Keeps drops, and passes events on to those who listen.

    Args:
        listening: Told which kinds are listened to, whenever that changes. New flows and samples are only worth their
            cost if somebody listens.
        kept: How many drops are kept.
    """

    def __init__(
        self, listening: Callable[[frozenset[str]], None] = lambda _: None, *, kept: int = KEPT_DROPS
    ) -> None:
        self._drops: deque[TrafficEvent] = deque(maxlen=kept)
        self._listeners: set[Listener] = set()
        self._listening = listening
        self._kinds: frozenset[str] = frozenset()

    def add(self, events: Iterable[TrafficEvent]) -> None:
        """Take events in, oldest first."""
        for event in events:
            if event.kind == "drop":
                self._drops.append(event)
            for listener in self._listeners:
                listener.offer(event)

    def missed(self, events: int) -> None:
        """Tell every listener of events that happened but cannot be shown: there were too many."""
        for listener in self._listeners:
            listener.lost += events

    def drops(self) -> list[TrafficEvent]:
        """Return the drops that are kept, oldest first."""
        return list(self._drops)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of events that somebody listens to."""
        return self._kinds

    @contextmanager
    def listen(self, kinds: frozenset[str] = DROPS, *, waiting: int = WAITING) -> Iterator[Listener]:
        """Listen to what comes from now on."""
        listener = Listener(kinds, waiting)
        self._listeners.add(listener)
        self._count_listeners()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._count_listeners()

    def _count_listeners(self) -> None:
        kinds = frozenset().union(*(listener.kinds for listener in self._listeners))
        if kinds != self._kinds:
            self._kinds = kinds
            self._listening(kinds)
