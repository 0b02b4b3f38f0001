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


class Listener:
    """One reader of new events.

    Attributes:
        lost: How many events it was too slow for since it last asked (:meth:`take_lost`).
    """

    def __init__(self, waiting: int) -> None:
        self._queue: asyncio.Queue[TrafficEvent] = asyncio.Queue(waiting)
        self.lost = 0

    def offer(self, event: TrafficEvent) -> None:
        """Queue an event, or count it as lost. Never blocks."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost += 1

    async def next(self) -> TrafficEvent:
        """Wait for the next event."""
        return await self._queue.get()

    def take_lost(self) -> int:
        """Give how many events were lost since the last call."""
        lost, self.lost = self.lost, 0
        return lost


class EventLog:
    """Keeps drops, and passes every event on to those who listen.

    Args:
        listening: Told whether somebody listens: with the first listener and after the last one. New flows and
            samples are only worth their cost then.
        kept: How many drops are kept.
    """

    def __init__(self, listening: Callable[[bool], None] = lambda _: None, *, kept: int = KEPT_DROPS) -> None:
        self._drops: deque[TrafficEvent] = deque(maxlen=kept)
        self._listeners: set[Listener] = set()
        self._listening = listening

    def add(self, events: Iterable[TrafficEvent]) -> None:
        """Take events in, oldest first."""
        for event in events:
            if event.kind == "drop":
                self._drops.append(event)
            for listener in self._listeners:
                listener.offer(event)

    def drops(self) -> list[TrafficEvent]:
        """Give the drops that are kept, oldest first."""
        return list(self._drops)

    @contextmanager
    def listen(self, waiting: int = WAITING) -> Iterator[Listener]:
        """Listen to what comes from now on."""
        listener = Listener(waiting)
        self._listeners.add(listener)
        if len(self._listeners) == 1:
            self._listening(True)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._listening(False)
