"""Releases of one node: carries out what a DEL and the agent's garbage collection free. Decisions are in ``rules``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import structlog

from fast.api.ipendpoint import IpEndpoint
from fast.errors import AddressConflict, Conflict, FastError, NotFound
from fast.ipam.attachment_locks import AttachmentLocks
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.pool.ledger import Ledger
from fast.ipam.release.suspicion import Suspicions
from fast.ipam.rules import release_rules
from fast.ipam.rules.claim_request import AttachmentKey, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import holder_of
from fast.ipam.store.record_writes import MOST_ATTEMPTS, Writes

log = structlog.get_logger()


@dataclass(slots=True)
class Swept:
    """What came of a sweep: the records freed, with the decision, and those that could not be, with the error."""

    freed: list[tuple[IpEndpoint, Decision]] = field(default_factory=list)
    refused: list[tuple[IpEndpoint, FastError]] = field(default_factory=list)


class Releasing:
    """Carries out releases.

    Args:
        ledger: The node's records.
        writes: Writes records.
        locks: The lock of each attachment; the sweep takes it for each record that it frees.
        adding: The ADDs in flight.
        metrics: Counts releases.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        writes: Writes,
        *,
        locks: AttachmentLocks,
        adding: AddsInFlight,
        metrics: IpamMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._writes = writes
        self._locks = locks
        self._adding = adding
        self._metrics = metrics
        self._suspicions = Suspicions(clock)

    def added(self, key: AttachmentKey) -> None:
        """Note that an ADD of the attachment begins: its records are not missing (race: added-between-sightings)."""
        self._suspicions.forget(self._ledger.of_attachment(key))

    async def release(self, key: AttachmentKey, node: NodeIdentity) -> tuple[IpEndpoint, ...]:
        """Free what the attachment holds; the caller holds its lock. Gives the records as they were before."""
        await self._writes.look_up_unanswered(key)

        def decide(record: IpEndpoint) -> Decision:
            return release_rules.on_del(record, *key, node.name)

        released, failure = [], None
        for record in self._ledger.of_attachment(key):
            try:
                if await self._free(record, decide) is not None:
                    released.append(record)
            except FastError as error:  # the other families are released all the same
                failure = failure or error
        if failure is not None:
            raise failure
        return tuple(released)

    async def sweep(
        self, sandboxes: Callable[[], Awaitable[Collection[AttachmentKey]]], node: NodeIdentity
    ) -> Swept:
        """Free this node's records whose sandbox is gone; see :meth:`fast.ipam.node_ipam.Ipam.gc`."""
        swept = Swept()
        with self._adding.watched() as added:
            records = self._ledger.mine()
            alive = await sandboxes()
            for record, decision in self._suspicions.judge(records, alive, added, node):
                key = holder_of(record)
                if key in added:
                    continue  # its call may take long, and others wait
                # An ADD that comes now waits until the record is gone; one that came meanwhile may have found the
                # record good, and written nothing.
                async with self._locks.hold(key):
                    if key in added:
                        continue
                    try:
                        if await self._free(record, partial(_unchanged, record, decision)):
                            swept.freed.append((record, decision))
                    except FastError as error:  # the others go on; this one is the next sweep's
                        log.warning("address not freed", address=record.metadata.name, error=str(error))
                        swept.refused.append((record, error))
        return swept

    async def _free(self, record: IpEndpoint, decide: Callable[[IpEndpoint], Decision]) -> Decision | None:
        """Carry out a decision that frees a record; decide again as often as the record turns out to have changed.

        Args:
            record: As known.
            decide: Asked again each time the record turns out to have changed.

        Returns:
            The decision that was carried out; None if the record stays, or is gone already.

        Raises:
            KubeError: The API server refused otherwise, or is away.
        """
        current: IpEndpoint | None = record
        for _ in range(MOST_ATTEMPTS):
            if current is None:
                return None
            decision = decide(current)
            if not decision.frees:
                return None
            try:
                await self._writes.free(current)
            except (Conflict, NotFound):  # race: del-against-takeover: decide about what it is now
                current = await self._writes.read(current)
                continue
            self._metrics.released.labels(current.spec.pool, decision.rule).inc()
            log.info(
                "address freed", address=current.metadata.name, rule=decision.rule, evidence=decision.evidence
            )
            return decision
        raise AddressConflict(f"record {record.metadata.name} keeps changing")


def _unchanged(before: IpEndpoint, decision: Decision, current: IpEndpoint) -> Decision:
    """Keep to a sweep's decision only if the record is still the version that it was made about."""
    if current.metadata.is_same_version(before.metadata):
        return decision
    return Decision(Action.KEEP, "changed", "it changed since the sweep looked")
