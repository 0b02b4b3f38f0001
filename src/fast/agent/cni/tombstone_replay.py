"""Carries out the DELs that wait as tombstones: all of them before the first ADD, later ones as they appear."""

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
#: Whether a DEL could be kept, if the API server were away.
DISK_CONDITION = "state-directory"

_WAITING = Gauge("fast_cni_tombstones", "DELs that wait on disk to be carried out.")
_REFUSED = Gauge(
    "fast_cni_tombstones_refused",
    "DELs that wait on disk because kernel or API server refuse them for good; ADDs are served all the same.",
)

#: Carries out the DEL that waits for an attachment, if one still does.
CarryOut = Callable[[AttachmentKey], Awaitable[None]]


class TombstoneReplay:
    """Carries out tombstones, and watches the disk that they are on."""

    def __init__(self, tombstones: Tombstones, carry_out: CarryOut, readiness: Readiness) -> None:
        self._tombstones = tombstones
        self._carry_out = carry_out
        self._readiness = readiness
        self._failed: dict[AttachmentKey, str] = {}

    async def run(self, interval_seconds: float) -> None:
        """Carry them out for ever. The first round that leaves nothing to wait for meets the condition, for good.

        A later tombstone (the API server was away for a while) does not end readiness: an ADD of the same attachment
        carries it out. A directory that cannot be read does, since no ADD would be served.
        """
        replayed = False
        while True:
            await self._probe_disk()
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

    async def _probe_disk(self) -> None:
        try:
            await asyncio.to_thread(self._tombstones.probe)
        except OSError as error:
            self._readiness.missing(
                DISK_CONDITION,
                f"{self._tombstones.directory} cannot be written: {error.strerror}; without it, no pod can be deleted "
                "while the API server is away: free space, or mount it for writing",
                allows_add=True,
            )
        else:
            self._readiness.met(DISK_CONDITION)

    async def replay(self) -> str:
        """Carry out each waiting DEL once.

        Returns:
            What the first ADD has to wait for; empty if there is nothing. DELs that kernel or API server refuse for
            good are tried again each round, too, but nobody waits for them.

        Raises:
            OSError: The directory cannot be read.
        """
        left = refused = 0
        problem = ""
        failed: dict[AttachmentKey, str] = {}
        for key in await asyncio.to_thread(lambda: list(self._tombstones.waiting())):
            try:
                await self._carry_out(key)
            except FastError as error:
                if self._failed.get(key) != str(error):  # a standing problem is logged once, not each round
                    log.warning(
                        "tombstone not carried out", containerid=key[0], ifname=key[1], error=str(error)
                    )
                failed[key] = str(error)
                left += 1
                if isinstance(error, DatapathError | KubeError) and not error.retryable:
                    refused += 1
                else:
                    problem = f"the DEL of {key[0]} {key[1]} waits: {error}"
            else:
                log.info("tombstone carried out", containerid=key[0], ifname=key[1])
        self._failed = failed
        _WAITING.set(left)
        _REFUSED.set(refused)
        return problem
