"""A time between two rounds of work that may be changed while it is being waited for."""

from __future__ import annotations

import asyncio


class Interval:
    """An interval in seconds, shared by whoever works by it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._changed = asyncio.Event()

    def change(self, seconds: float) -> None:
        """Change the interval. A running wait is measured from its start."""
        self._seconds = seconds
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the interval, as long as it is by the end of the wait."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (left := began + self._seconds - loop.time()) > 0:
            changed = self._changed
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                return
