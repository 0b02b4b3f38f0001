"""One lock an attachment: calls for the same one take turns, different ones do not wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fast.ipam.rules.claim_request import AttachmentKey


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

    @property
    def in_flight(self) -> frozenset[AttachmentKey]:
        """The attachments that a call works on or waits for: garbage collection leaves them alone."""
        return frozenset(self._users)
