"""One lock an attachment: calls for the same one take turns, different ones do not wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fast.ipam.rules.claim_request import AttachmentKey

T = TypeVar("T")


class AttachmentLocks:
    """The locks of the attachments that a call is working on right now; none is kept for the others."""

    def __init__(self) -> None:
        self._locks: dict[AttachmentKey, asyncio.Lock] = {}
        self._users: dict[AttachmentKey, int] = {}

    @asynccontextmanager
    async def hold(self, key: AttachmentKey) -> AsyncIterator[None]:
        """Wait for the attachment's turn and keep it until the block ends."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]

    def is_held(self, key: AttachmentKey) -> bool:
        """Return whether a call holds the attachment's lock."""
        lock = self._locks.get(key)
        return lock is not None and lock.locked()

    @property
    def in_flight(self) -> frozenset[AttachmentKey]:
        """The attachments that a call works on or waits for: garbage collection leaves them alone."""
        return frozenset(self._users)


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end, however often the caller is cancelled meanwhile; the caller's locks stay held.

    For clean-up after a cancellation, which the caller raises again. Raises what ``work`` raises.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
