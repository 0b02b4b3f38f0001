"""Whether the API server can be reached, judged by the informers; nothing is asked of the server for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import Gauge

from fast.agent.readiness import Readiness
from fast.kube import Informer

CONDITION = "api-server"

_POLL_SECONDS = 0.5
#: A watch that breaks comes back within the first back-off; only an absence longer than that is worth telling.
_PATIENCE_SECONDS = 3.0

_UP = Gauge("fast_agent_api_server_up", "1 while the agent is in contact with the API server.")


class Contact:
    """Watches the informers' failures and contacts."""

    def __init__(
        self,
        informers: Sequence[Informer[Any]],
        readiness: Readiness,
        *,
        synced: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            informers: The ones that the agent cannot do without.
            readiness: Told about condition ``api-server``.
            synced: Called once, when every informer has its first list.
            clock: Monotonic seconds, the informers' clock.
        """
        self._informers = informers
        self._readiness = readiness
        self._synced = synced
        self._clock = clock
        self._failures = 0
        self._failing_since: float | None = None

    async def run(self) -> None:
        """Judge for ever."""
        self._readiness.missing(CONDITION, "pools, addresses, pods and nodes have not been read yet")
        for informer in self._informers:
            await informer.wait_synced()
        self._synced()
        while True:
            self._judge()
            await asyncio.sleep(_POLL_SECONDS)

    def _judge(self) -> None:
        failures = sum(informer.failures for informer in self._informers)
        contact = max(informer.last_contact for informer in self._informers)
        if failures > self._failures and self._failing_since is None:
            self._failing_since = self._clock()
        elif self._failing_since is not None and contact > self._failing_since:
            self._failing_since = None
        self._failures = failures
        away = self._failing_since is not None and self._clock() - self._failing_since > _PATIENCE_SECONDS
        _UP.set(not away)
        if away:
            self._readiness.missing(CONDITION, "it cannot be reached", passing=True)
        else:
            self._readiness.met(CONDITION)
