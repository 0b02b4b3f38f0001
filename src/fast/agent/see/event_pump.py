"""Reads the programs' ring buffer in a thread of its own, and hands what it read to the event loop.

The agent is the only reader: what is read is gone from the ring.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from fast.datapath.bpf.layout import Event
from fast.errors import DatapathError

log = structlog.get_logger()

_POLL_SECONDS = 0.1
_RETRY_SECONDS = 5.0
#: Events named per second at most: naming costs some 20 µs, so a storm takes 4% of a processor.
MOST_PER_SECOND = 2000


class Reader(Protocol):
    """Reads the ring: :class:`fast.datapath.bpf.event_ring.EventReader`."""

    def read(self, timeout_seconds: float = 0) -> list[Event]:
        """Give what is there, after waiting for the first."""

    def close(self) -> None:
        """Let go of the ring."""


class EventPump:
    """Moves events from the ring to a function that is called in the event loop.

    Args:
        open_reader: Opens the ring; DatapathError if it is not there yet.
        deliver: Called in the event loop with events, oldest first.
        skipped: Called in the event loop with how many events of a storm were read but not delivered.
        most_per_second: Delivered at most.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        deliver: Callable[[Sequence[Event]], None],
        skipped: Callable[[int], None],
        *,
        most_per_second: int = MOST_PER_SECOND,
    ) -> None:
        self._open_reader = open_reader
        self._deliver = deliver
        self._skipped = skipped
        self._most_per_read = max(1, int(most_per_second * _POLL_SECONDS))
        self._stop = threading.Event()

    async def run(self) -> None:
        """Pump until cancelled; a ring that cannot be read is tried again."""
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(target=self._pump, args=(loop, failed), name="fast-events", daemon=True)
        thread.start()
        try:
            await failed
        finally:
            self._stop.set()

    def _pump(self, loop: asyncio.AbstractEventLoop, failed: asyncio.Future[None]) -> None:
        try:
            self._keep_reading(loop)
        except Exception as error:  # a bug: let the agent see it
            if not self._stop.is_set():
                loop.call_soon_threadsafe(failed.set_exception, error)

    def _keep_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        told = ""
        while not self._stop.is_set():
            try:
                reader = self._open_reader()
                try:
                    self._read_until_it_fails(reader, loop)
                finally:
                    reader.close()
            except DatapathError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("the datapath's events cannot be read; trying again", error=told)
                self._stop.wait(_RETRY_SECONDS)

    def _read_until_it_fails(self, reader: Reader, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            events = reader.read(_POLL_SECONDS)
            if not events:
                continue
            loop.call_soon_threadsafe(self._deliver, events[: self._most_per_read])
            if len(events) > self._most_per_read:
                loop.call_soon_threadsafe(self._skipped, len(events) - self._most_per_read)
            self._stop.wait(
                _POLL_SECONDS
            )  # several at once: the ring is large, a wake-up costs more than an event
