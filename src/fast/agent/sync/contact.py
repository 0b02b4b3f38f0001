"""Whether the API server can be reached: judged by the informers, and by a request if all of them are silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from prometheus_client import Gauge

from fast.agent.readiness import Readiness
from fast.errors import KubeError
from fast.kube import Informer

log = structlog.get_logger()

CONDITION = "api-server"

_POLL_SECONDS = 0.5
#: A watch that breaks comes back within the first back-off; only a longer absence is worth reporting.
_PATIENCE_SECONDS = 3.0
#: While others are heard, one that fails has a few tries more: then it is refused, not just unlucky.
_PATIENCE_WITH_SOME_SECONDS = 15.0
#: A server that hangs keeps its connections, so the watches see nothing wrong. Silence and limit together stay well
#: below 15 s. In a cluster with more than a few nodes some watch always has news, and nothing is asked.
SILENCE_SECONDS = 5.0
ANSWER_SECONDS = 5.0

_UP = Gauge("fast_agent_api_server_up", "1 while the agent is in contact with the API server.")


class Contact:
    """Watches each informer by itself: what others hear does not make up for one that is refused."""

    def __init__(
        self,
        informers: Sequence[Informer[Any]],
        readiness: Readiness,
        *,
        ask: Callable[[], Awaitable[object]],
        synced: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            informers: The ones that the agent cannot do without.
            readiness: Told about condition ``api-server``.
            ask: Makes a cheap request of the API server.
            synced: Called once, when every informer has its first list.
            clock: Monotonic seconds, the informers' clock.
        """
        self._informers = informers
        self._readiness = readiness
        self._ask = ask
        self._synced = synced
        self._clock = clock
        self._heard_at = float("-inf")
        self._hangs = False

    async def run(self) -> None:
        """Judge for ever."""
        self._readiness.missing(CONDITION, "pools, addresses, pods and nodes have not been read yet")
        for informer in self._informers:
            await informer.wait_synced()
        self._synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_in_silence())
            while True:
                self._judge()
                await asyncio.sleep(_POLL_SECONDS)

    async def _ask_in_silence(self) -> None:
        while True:
            await self.ask_if_silent()
            await asyncio.sleep(_POLL_SECONDS)

    async def ask_if_silent(self) -> None:
        """Ask the server if nothing was heard of it for a while, and note whether it answered in time."""
        if self._clock() - self._last_heard() < SILENCE_SECONDS:
            self._hangs = False
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._ask()
        except TimeoutError:
            self._hangs = True
            return
        except KubeError as error:  # refused, or no connection: that is the informers' to report
            log.debug("the API server was asked for a sign of life", error=str(error))
        self._hangs = False
        self._heard_at = self._clock()

    def _last_heard(self) -> float:
        return max(self._heard_at, *(informer.last_contact for informer in self._informers))

    def _judge(self) -> None:
        now = self._clock()
        failing = {
            informer.resource.plural: now - informer.failing_since
            for informer in self._informers
            if informer.failing_since is not None
        }
        all_fail = len(failing) == len(self._informers)
        limit = _PATIENCE_SECONDS if all_fail else _PATIENCE_WITH_SOME_SECONDS
        unread = [plural for plural, seconds in failing.items() if seconds > limit]
        reason = ""
        if unread:
            reason = f"it cannot be reached, or refuses: {', '.join(unread)} cannot be read"
        elif self._hangs:
            reason = f"it hangs: no answer within {ANSWER_SECONDS:.0f} s, and nothing from the watches"
        _UP.set(not reason)
        if reason:
            self._readiness.missing(CONDITION, reason, allows_add=True)
        else:
            self._readiness.met(CONDITION)
