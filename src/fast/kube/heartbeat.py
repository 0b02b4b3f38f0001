"""Heartbeats by coordination.k8s.io Leases: a writer that renews one, and a reader that knows how long each is silent.

The reader never compares the Lease's wall-clock times with its own clock: silence is the time since it last saw the
Lease change, or since it began to look (as in ``lease``). What silence means is decided by the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from fast.api.core import Lease, LeaseSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import LEASES
from fast.api.timestamps import now_micro_text
from fast.errors import Conflict, FastError, NotFound
from fast.kube.client import KubeClient
from fast.kube.informer import Change, Informer
from fast.kube.lease import boot_seconds

log = structlog.get_logger()


class Heartbeat:
    """Renews one Lease in an interval, whatever fails in between."""

    def __init__(
        self, client: KubeClient, namespace: str, name: str, holder: str, *, interval_seconds: float
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            client: Speaks to the server.
            namespace: The Lease's namespace.
            name: The Lease's name.
            holder: The ``holderIdentity`` to write.
            interval_seconds: Between two renewals.
        """
        self._client = client
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._interval_seconds = interval_seconds
        self._failing = False

    async def run(self) -> None:
        """Renew until cancelled. A renewal that fails is retried after a tenth of the interval."""
        while True:
            wait = self._interval_seconds
            try:
                await self.beat()
                self._failing = False
            except FastError as error:
                if not self._failing:
                    log.warning("heartbeat failed", lease=self._name, error=str(error))
                self._failing = True
                wait /= 10
            await asyncio.sleep(wait)

    async def beat(self) -> None:
        """Renew once; creates the Lease if there is none.

        Raises:
            KubeError: The server refused or cannot be reached.
        """
        try:
            patch = {"spec": {"holderIdentity": self._holder, "renewTime": now_micro_text()}}
            await self._client.patch(LEASES, self._name, patch, self._namespace)
        except NotFound:
            await self._create()

    async def _create(self) -> None:
        now = now_micro_text()
        spec = LeaseSpec(
            holder_identity=self._holder,
            lease_duration_seconds=max(1, round(self._interval_seconds * 3)),
            acquire_time=now,
            renew_time=now,
        )
        try:
            metadata = ObjectMeta(name=self._name, namespace=self._namespace)
            await self._client.create(LEASES, Lease(metadata=metadata, spec=spec))
        except Conflict:
            return  # created by an earlier process of ours just now: the next beat renews it


class Silence:
    """How long Leases of a namespace have been silent, by their names. Feed it from an informer of Leases.

    Args:
        informer: Of the Leases; :meth:`run` of it is the caller's.
        clock: Seconds that never jump; those of a suspended machine count.
    """

    def __init__(self, informer: Informer[Lease], *, clock: Callable[[], float] = boot_seconds) -> None:
        self._informer = informer
        self._clock = clock
        self._began = clock()
        self._changed: dict[str, float] = {}
        informer.add_handler(self._lease_changed)

    def seconds(self, name: str) -> float:
        """Give for how many seconds nobody was seen to renew the Lease; 0 until the informer is synced.

        For a Lease that does not exist, and that this reader never saw, it is the time since the reader began: so
        nobody counts as silent just because the reader has started.
        """
        if not self._informer.synced:
            self._began = self._clock()
            return 0.0
        return max(0.0, self._clock() - self._changed.get(name, self._began))

    def _lease_changed(self, change: Change[Lease]) -> None:
        """Note a renewal. A deletion is none: what was silent before it stays silent."""
        if change.new is not None:
            self._changed[change.new.metadata.name] = self._clock()
