"""Carrying out the DELs that wait as tombstones: all of them before the first ADD, later ones as they appear."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Gauge

from fast.agent.readiness import Readiness
from fast.agent.tombstones import Tombstones
from fast.cni import CniCall
from fast.errors import FastError
from fast.ipam import AttachmentKey

log = structlog.get_logger()

CONDITION = "tombstones"

_WAITING = Gauge("fast_cni_tombstones", "DELs that wait on disk to be carried out.")

#: Carries out a DEL; False where it has to wait on.
Delete = Callable[[AttachmentKey, CniCall], Awaitable[bool]]


class TombstoneReplay:
    """Works off the tombstones."""

    def __init__(self, tombstones: Tombstones, delete: Delete, readiness: Readiness) -> None:
        self._tombstones = tombstones
        self._delete = delete
        self._readiness = readiness

    async def run(self, interval_seconds: float) -> None:
        """Work them off for ever. The first round that leaves none makes the condition ``tombstones`` true, for good.

        A later one (the API server was away for a while) stands in nobody's way: an ADD of the same attachment
        carries it out.
        """
        while True:
            left = await self.replay()
            if not left:
                self._readiness.met(CONDITION)
            await asyncio.sleep(interval_seconds)

    async def replay(self) -> int:
        """Carry out each waiting DEL; gives how many still wait."""
        left = 0
        for key, call in await asyncio.to_thread(lambda: list(self._tombstones.waiting())):
            try:
                done = await self._delete(key, call)
            except FastError as error:
                log.warning("tombstone not carried out", containerid=key[0], ifname=key[1], error=str(error))
                done = False
            if done:
                log.info("tombstone carried out", containerid=key[0], ifname=key[1])
            left += not done
        _WAITING.set(left)
        return left
