"""Claims of one node: which record an ADD comes to hold, and how that is undone. Who owns what is ``rules``'."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import structlog

from fast.api.ipendpoint import IpEndpoint
from fast.errors import AddressConflict, Conflict, FastError, KubeError, NotFound
from fast.ipam.claim.allocator import Allocator, FamilyPlan
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.pool.ledger import Ledger
from fast.ipam.rules import claim_rules, record_states
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, ClaimRequest, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import holder_of
from fast.ipam.store.record_store import Store
from fast.ipam.store.record_writes import MOST_ATTEMPTS, Writes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """One address of a claim: the record before (None: created now) and after, and what that is called in metrics."""

    before: IpEndpoint | None
    after: IpEndpoint
    result: str


@dataclass(slots=True)
class _Claim:
    """What a claim has written, and the attachments of which a DEL was served since it began."""

    steps: list[Step] = field(default_factory=list)
    deleted: set[AttachmentKey] = field(default_factory=set)


class Claiming:
    """Carries out claims, and remembers what those in flight wrote.

    Calls for one attachment must take turns.

    Args:
        store: Where sticky records are read live.
        ledger: The records by attachment, pod and sticky key.
        writes: Writes records.
        adding: The ADDs in flight, in order.
        allocator: Finds free addresses.
    """

    def __init__(
        self, store: Store, ledger: Ledger, writes: Writes, adding: AddsInFlight, allocator: Allocator
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._writes = writes
        self._adding = adding
        self._allocator = allocator
        self._claims: dict[AttachmentKey, _Claim] = {}

    async def claim(
        self, attachment: Attachment, request: ClaimRequest, node: NodeIdentity
    ) -> tuple[Step, ...]:
        """Come by an address of each family asked for; whatever fails is undone."""
        claim = self._claims[attachment.key] = _Claim()
        await self._writes.look_up_unanswered(attachment.key)
        try:
            for plan in self._allocator.plan(request, node):
                claim.steps.append(await self._claim_family(plan, attachment, request, node))
        except BaseException:
            await self.undo(attachment.key)
            raise
        return tuple(claim.steps)

    def deleted(self, key: AttachmentKey) -> None:
        """Note that a DEL of the attachment is served: what was taken over from it is not given back to it."""
        for claim in self._claims.values():
            claim.deleted.add(key)

    def forget(self, key: AttachmentKey) -> None:
        """Forget what the attachment's last claim wrote: it is not to be undone any more."""
        self._claims.pop(key, None)

    async def undo(self, key: AttachmentKey) -> None:
        """Undo what the attachment's last claim wrote, the last first; what fails is left to the GC."""
        claim = self._claims.get(key, _Claim())
        while claim.steps:
            step = claim.steps.pop()
            if step.before is step.after:
                continue
            try:
                await self._undo_step(step, claim.deleted)
            except (Conflict, NotFound):  # it is somebody else's by now: let the view show that
                with contextlib.suppress(KubeError):
                    await self._writes.read(step.after)
            except FastError as error:
                log.warning("claim not undone", address=step.after.metadata.name, error=str(error))

    async def _undo_step(self, step: Step, deleted: set[AttachmentKey]) -> None:
        """Delete what was created; give what was taken over back to whom it was taken from.

        Where the DEL of that one has come, also while it is being given back, the DEL has found nothing to free.
        """
        if step.before is None:
            await self._writes.delete(step.after)
            return
        record, holder = step.after, holder_of(step.before)
        if holder not in deleted:
            record = await self._writes.change(record, step.before.spec)
        if holder not in deleted:
            return
        await self._writes.free(record)

    async def _claim_family(
        self, plan: FamilyPlan, attachment: Attachment, request: ClaimRequest, node: NodeIdentity
    ) -> Step:
        """Come by one address."""
        asked_live = not request.sticky_key
        for _ in range(MOST_ATTEMPTS):
            found = self._record_to_use(plan, attachment, request, node)
            if found is None and not asked_live:
                # race: sticky-from-afar: the record may be so young that the view has not seen it
                await self._store.refresh_sticky(request.sticky_key)
                asked_live = True
                continue
            if found is None:
                record = await self._allocator.create(plan, attachment, node, request.sticky_key)
                return Step(None, record, "created")
            record, decision = found
            if decision.action is Action.SAME:
                return Step(record, record, "existing")
            if decision.action is Action.WAIT:
                raise AddressConflict(f"address {record.metadata.name} is not free yet: {decision.evidence}")
            try:
                if decision.action is Action.RELEASE:
                    await self._writes.delete(record)
                    continue
                spec = record_states.bound(record.spec.pool, attachment, node, request.sticky_key)
                after = await self._writes.bind(IpEndpoint(metadata=record.metadata, spec=spec), record)
            except (Conflict, NotFound):  # it changed meanwhile: look again at what it is now
                await self._writes.read(record)
                continue
            return Step(record, after, decision.action.value.replace(" ", "_"))
        raise AddressConflict(f"the records of sandbox {attachment.container_id} keep changing")

    def _record_to_use(
        self, plan: FamilyPlan, attachment: Attachment, request: ClaimRequest, node: NodeIdentity
    ) -> tuple[IpEndpoint, Decision] | None:
        """Find a record of the family that this sandbox already holds or may have, the surest claim first."""
        uid = attachment.pod.uid if attachment.pod else ""
        candidates = {
            record.metadata.name: record
            for record in (
                *self._ledger.of_attachment(attachment.key),
                *self._ledger.of_pod(uid),
                *self._ledger.of_sticky_key(request.sticky_key),
            )
            if (address := record.find_address()) is not None and address.version == plan.version
        }
        ranks = (Action.SAME, Action.TAKE_OVER, Action.REBIND, Action.WAIT)
        decided = [
            (record, self._on_add(record, attachment, request.sticky_key, node))
            for record in candidates.values()
        ]
        useful = [item for item in decided if item[1].action in ranks]
        if not useful:
            return None
        record, decision = min(useful, key=lambda item: ranks.index(item[1].action))
        if decision.action is Action.REBIND and not self._still_fits(record, plan):
            gone = Decision(Action.RELEASE, "pool-changed", "the pod may not have it any more")
            return record, gone
        return record, decision

    def _on_add(
        self, record: IpEndpoint, attachment: Attachment, sticky_key: str, node: NodeIdentity
    ) -> Decision:
        overtaken = self._adding.is_overtaken(attachment.key, by=holder_of(record))
        return claim_rules.on_add(record, attachment, node, sticky_key, overtaken=overtaken)

    def _still_fits(self, record: IpEndpoint, plan: FamilyPlan) -> bool:
        """Whether a retained address is one that the pod would get today."""
        entry = self._ledger.pools.get(record.spec.pool)
        if plan.address is not None and record.address != plan.address:
            return False
        in_pool = entry is not None and entry.book is not None and record.address in entry.book
        return in_pool and record.spec.pool in plan.pools
