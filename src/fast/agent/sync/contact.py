"""Whether the API server can be reached, judged by the informers without extra requests."""

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
#: A broken watch is open again within the first back-off; only a longer outage is reported.
_PATIENCE_SECONDS = 3.0
#: While other informers work, a failing one gets more retries before it counts as refused.
_PATIENCE_WITH_SOME_SECONDS = 15.0

_UP = Gauge("fast_agent_api_server_up", "1 while the agent is in contact with the API server.")


class Contact:
    """Watches each informer: one that is refused counts even if the others work."""

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
            informers: Those that the agent needs.
            readiness: Told about condition ``api-server``.
            synced: Called once, when every informer has its first list.
            clock: Monotonic seconds, the informers' clock.
        """
        self._informers = informers
        self._readiness = readiness
        self._synced = synced
        self._clock = clock

    async def run(self) -> None:
        """Judge until cancelled."""
        self._readiness.missing(CONDITION, "pools, addresses, pods and nodes have not been read yet")
        for informer in self._informers:
            await informer.wait_synced()
        self._synced()
        while True:
            self._judge()
            await asyncio.sleep(_POLL_SECONDS)

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
        _UP.set(not unread)
        if unread:
            reason = f"it cannot be reached, or refuses: {', '.join(unread)} cannot be read"
            self._readiness.missing(CONDITION, reason, allows_add=True)
        else:
            self._readiness.met(CONDITION)
