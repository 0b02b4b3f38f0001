"""A waiting time between two rounds of work, which can be changed during a wait."""

from __future__ import annotations

import asyncio


class Interval:
    """An interval in seconds, shared by all loops that wait for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._changed = asyncio.Event()

    def change(self, seconds: float) -> None:
        """Change the interval. A running wait is measured from its start."""
        self._seconds = seconds
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the interval. A change during the wait counts."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (left := began + self._seconds - loop.time()) > 0:
            changed = self._changed
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                return
