"""Carrying out the DELs that wait as tombstones: all of them before the first ADD, later ones as they appear."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Gauge

from fast.agent.cni.tombstones import Tombstones
from fast.agent.readiness import Readiness
from fast.errors import DatapathError, FastError, KubeError
from fast.ipam import AttachmentKey

log = structlog.get_logger()

CONDITION = "tombstones"

_WAITING = Gauge("fast_cni_tombstones", "DELs that wait on disk to be carried out.")
_REFUSED = Gauge(
    "fast_cni_tombstones_refused",
    "DELs that wait on disk as kernel or API server refuse them for good; they keep no pod from the node.",
)

#: Carries out the DEL that waits for an attachment, if one still does.
CarryOut = Callable[[AttachmentKey], Awaitable[None]]


class TombstoneReplay:
    """Works off the tombstones."""

    def __init__(self, tombstones: Tombstones, carry_out: CarryOut, readiness: Readiness) -> None:
        self._tombstones = tombstones
        self._carry_out = carry_out
        self._readiness = readiness

    async def run(self, interval_seconds: float) -> None:
        """Work them off for ever. The first round that leaves nothing to wait for makes the condition true, for good.

        A later one (the API server was away for a while) stands in nobody's way: an ADD of the same attachment
        carries it out. Only a directory that cannot be read does, for as long as it cannot: no ADD would be served.
        """
        replayed = False
        while True:
            try:
                problem = await self.replay()
            except OSError as error:
                self._readiness.missing(
                    CONDITION, f"{self._tombstones.directory} cannot be read: {error.strerror}"
                )
            else:
                replayed = replayed or not problem
                if replayed:
                    self._readiness.met(CONDITION)
                else:
                    self._readiness.missing(CONDITION, problem)
            await asyncio.sleep(interval_seconds)

    async def replay(self) -> str:
        """Carry out each waiting DEL once.

        Returns:
            What keeps the first ADD waiting; empty where nothing does. DELs that kernel or API server refuse for a
            reason that waiting does not mend are tried again each round, too, but nobody waits for them.

        Raises:
            OSError: The directory cannot be read.
        """
        left = refused = 0
        problem = ""
        for key in await asyncio.to_thread(lambda: list(self._tombstones.waiting())):
            try:
                await self._carry_out(key)
            except FastError as error:
                log.warning("tombstone not carried out", containerid=key[0], ifname=key[1], error=str(error))
                left += 1
                if isinstance(error, DatapathError | KubeError) and not error.retryable:
                    refused += 1
                else:
                    problem = f"the DEL of {key[0]} {key[1]} waits: {error}"
            else:
                log.info("tombstone carried out", containerid=key[0], ifname=key[1])
        _WAITING.set(left)
        _REFUSED.set(refused)
        return problem
