"""Leader election by a coordination.k8s.io Lease. Decides who leads; the caller decides what a leader does.

The clock is CLOCK_BOOTTIME: it never jumps, and unlike CLOCK_MONOTONIC it runs while the machine is suspended, so a
leader that wakes up late notices. Wall-clock times in the Lease are never compared with the own clock: a holder counts
as dead if the Lease did not change for its duration, measured by the observer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from fast.api.core import Lease, LeaseSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import LEASES
from fast.api.timestamps import now_micro_text
from fast.errors import Conflict, FastError, InvalidConfig, NotFound
from fast.kube.client import KubeClient

log = structlog.get_logger()

_JITTER = 1.2  # followers retry at different times, as in client-go


def boot_seconds() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Terms:
    """The times of a leadership, in seconds.

    A leader that could not renew for ``renew_deadline`` stops; no other may take over before ``duration``. The
    difference is the time its work has to stop.
    """

    duration: int = 15
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry_period * _JITTER > 0:
            raise InvalidConfig(
                "leader election needs lease duration > renew deadline > 1.2 × retry period, not "
                f"{self.duration}, {self.renew_deadline}, {self.retry_period} s"
            )


class LeaderElector:
    """Runs work while, and only while, this process holds a Lease.

    Attributes:
        is_leader: Whether this process is the leader.
        observed_holder: Who held the Lease when it was last read; empty for nobody.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        terms: Terms = Terms(),
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        """Make an elector.

        Args:
            client: Speaks to the server.
            namespace: The Lease's namespace.
            name: The Lease's name.
            identity: Unique among the candidates, such as the pod's name.
            terms: The times.
            clock: Seconds, never jumping.
        """
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms
        self._clock = clock
        self._observed: Lease | None = None
        self._observed_at = float("-inf")
        self.is_leader = False

    @property
    def observed_holder(self) -> str:
        """Who held the Lease when it was last read; empty for nobody."""
        return self._observed.spec.holder_identity if self._observed is not None else ""

    async def run(self, on_started: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run ``on_started``; repeat until that returns or this call is cancelled.

        If leadership is lost, the work is cancelled and awaited before the next wait. If the work returns or raises, or
        this call is cancelled, the Lease is released so that another candidate can take over at once.

        Raises:
            Exception: Whatever ``on_started`` raised.
        """
        while True:
            until = await self._acquire()
            self.is_leader = True
            log.info("leading", lease=self._name, identity=self._identity)
            work = asyncio.ensure_future(_as_coroutine(on_started))
            try:
                await self._hold(work, until)
            finally:
                self.is_leader = False
                finished = work.done()
                await _cancelled(work)
                if finished or _being_cancelled():
                    await self._release()
            if finished:
                return work.result()
            log.warning("leadership lost", lease=self._name, identity=self._identity)

    async def _acquire(self) -> float:
        """Wait until the Lease is ours; gives the time (own clock) until which that is certain."""
        while True:
            until = await self._try_to_hold()
            if until is not None:
                return until
            await asyncio.sleep(self._terms.retry_period * random.uniform(1, _JITTER))

    async def _hold(self, work: asyncio.Future[None], until: float) -> None:
        """Renew until the work is done or the Lease could not be renewed in time."""
        while not work.done():
            left = until - self._clock()
            if left <= 0:
                return
            await asyncio.wait({work}, timeout=min(self._terms.retry_period, left))
            if work.done():
                return
            try:
                async with asyncio.timeout(max(0.0, until - self._clock())):
                    renewed = await self._try_to_hold()
            except TimeoutError:
                return
            if renewed is not None:
                until = renewed
            elif self.observed_holder not in {"", self._identity}:
                return  # somebody else holds it

    async def _try_to_hold(self) -> float | None:
        """Try once to take or renew the Lease; gives until when it is ours, or None if that is not certain."""
        asked_at = self._clock()  # before the request: the server may set the time no earlier
        try:
            lease = await self._read_or_create(asked_at)
            if lease is None:
                return asked_at + self._terms.renew_deadline
            if not self._may_take(lease, asked_at):
                return None
            self._observe(await self._client.update(LEASES, self._taken(lease)), asked_at)
        except Conflict:
            return None  # another candidate was faster; the next round reads who
        except FastError as error:
            log.warning("leader election: Lease cannot be written", lease=self._name, error=str(error))
            return None
        return asked_at + self._terms.renew_deadline

    async def _read_or_create(self, now: float) -> Lease | None:
        """Read the Lease; None if there was none and this call created it as ours."""
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            empty = Lease(metadata=ObjectMeta(name=self._name, namespace=self._namespace))
            self._observe(await self._client.create(LEASES, self._taken(empty)), now)
            return None
        if (
            self._observed is None
            or lease.metadata.resource_version != self._observed.metadata.resource_version
        ):
            self._observe(lease, self._clock())
        return lease

    def _observe(self, lease: Lease, now: float) -> None:
        self._observed, self._observed_at = lease, now

    def _may_take(self, lease: Lease, now: float) -> bool:
        """Whether the Lease is ours, has no holder, or was not renewed for its duration."""
        if lease.spec.holder_identity in {"", self._identity}:
            return True
        return now > self._observed_at + lease.spec.lease_duration_seconds

    def _taken(self, lease: Lease) -> Lease:
        """The Lease with this process as its holder."""
        now = now_micro_text()
        ours = lease.spec.holder_identity == self._identity
        spec = LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=self._terms.duration,
            acquire_time=lease.spec.acquire_time if ours else now,
            renew_time=now,
            lease_transitions=lease.spec.lease_transitions + (0 if ours or not lease.spec.renew_time else 1),
        )
        return Lease(metadata=lease.metadata, spec=spec)

    async def _release(self) -> None:
        """Release the Lease if it is still ours. If that fails, the next leader has to wait."""
        held = self._observed
        if held is None or held.spec.holder_identity != self._identity:
            return
        now = now_micro_text()
        spec = LeaseSpec(
            lease_duration_seconds=1,
            acquire_time=now,
            renew_time=now,
            lease_transitions=held.spec.lease_transitions,
        )
        try:
            async with asyncio.timeout(self._terms.retry_period):
                self._observe(
                    await self._client.update(LEASES, Lease(metadata=held.metadata, spec=spec)), self._clock()
                )
        except (FastError, TimeoutError) as error:
            log.warning("leader election: Lease not released", lease=self._name, error=str(error))
        else:
            log.info("lease released", lease=self._name, identity=self._identity)


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _cancelled(work: asyncio.Future[None]) -> None:
    """Cancel the work and wait for its end; log what it raises."""
    if work.done():
        return
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled() and (error := work.exception()) is not None:
        log.error("work failed while being cancelled", error=repr(error))


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
