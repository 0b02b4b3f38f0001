"""Claims of one node: chooses the record an ADD gets, and rolls it back. Ownership is decided in ``rules``."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import msgspec
import structlog

from fast.api.ipendpoint import IpEndpoint
from fast.errors import (
    AddressConflict,
    Conflict,
    FastError,
    InvalidConfig,
    IPAMError,
    KubeError,
    NotFound,
)
from fast.ipam.claim.allocator import Allocator, FamilyPlan
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.pool.ledger import Ledger
from fast.ipam.rules import claim_rules, record_states
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, ClaimRequest, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import holder_of
from fast.ipam.rules.sticky_keys import sticky_labels
from fast.ipam.store.record_store import Store
from fast.ipam.store.record_writes import MOST_ATTEMPTS, Writes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """One address of a claim: the record before (None: it was created) and after, and the result's name in metrics."""

    before: IpEndpoint | None
    after: IpEndpoint
    result: str


@dataclass(slots=True)
class _Claim:
    """What a claim has written, and the attachments of which a DEL was served since it began."""

    steps: list[Step] = field(default_factory=list)
    deleted: set[AttachmentKey] = field(default_factory=set)


@dataclass(slots=True)
class _Context:
    """Who claims what, and where; whether the records of its sticky keys were read live."""

    attachment: Attachment
    request: ClaimRequest
    node: NodeIdentity
    asked_live: bool = False


#: What an ADD makes use of, the surest claim first.
_RANKS = (Action.SAME, Action.TAKE_OVER, Action.REBIND, Action.WAIT)
_BY_STICKY_KEY = {"sticky", "sticky-still-bound"}


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
        """Claim an address of each family asked for; whatever fails is undone.

        Records that the pod holds already come first, whatever became of their pools since.
        """
        claim = self._claims[attachment.key] = _Claim()
        await self._writes.look_up_unanswered(attachment.key)
        context = _Context(attachment, request, node)
        try:
            plans = self._plans(context)
            await self._look_ahead(plans, context)
            for plan in plans:
                claim.steps.append(await self._claim_family(plan, context))
        except BaseException:
            await self.undo(attachment.key)
            raise
        return tuple(claim.steps)

    def _plans(self, context: _Context) -> tuple[FamilyPlan, ...]:
        """Plan the families asked for, and those that the pod holds already.

        Race holder-refused: a pool that was edited, or is being deleted, refuses new claims; what the pod holds does
        not depend on it.
        """
        held = self._families_held(context)
        try:
            plans = self._allocator.plan(context.request, context.node)
        except (IPAMError, InvalidConfig):
            if not held or not self._allocator.families(context.request) <= held.keys():
                raise
            plans = ()
        planned = {plan.version for plan in plans}
        return (*plans, *(FamilyPlan(version, ()) for version in held if version not in planned))

    def _families_held(self, context: _Context) -> dict[int, str]:
        """The families of which the pod holds a record on this node, in order of the addresses."""
        records = (
            *self._ledger.of_attachment(context.attachment.key),
            *self._ledger.of_pod(context.attachment.pod.uid if context.attachment.pod else ""),
        )
        holding = {Action.SAME, Action.TAKE_OVER}
        return {
            address.version: record.metadata.name
            for record in sorted(records, key=lambda record: record.metadata.name)
            if (address := record.find_address()) is not None
            and self._on_add(record, context).action in holding
        }

    async def _look_ahead(self, plans: tuple[FamilyPlan, ...], context: _Context) -> None:
        """Before anything is written: read sticky records live, and require a candidate for each family.

        Race sticky-from-afar: the record may be so young that the view has not seen it.

        Raises:
            PoolExhausted: A family has neither a record for this pod nor an available address.
        """
        missing = [plan for plan in plans if self._record_to_use(plan, context) is None]
        if missing and await self._ask_live(context):
            missing = [plan for plan in missing if self._record_to_use(plan, context) is None]
        for plan in missing:
            await self._allocator.require_candidate(plan)

    def deleted(self, key: AttachmentKey) -> None:
        """Note that a DEL of the attachment is served: records taken over from it are not given back to it."""
        for claim in self._claims.values():
            claim.deleted.add(key)

    def forget(self, key: AttachmentKey) -> None:
        """Forget what the attachment's last claim wrote: it will not be undone."""
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
            except (Conflict, NotFound):  # somebody else holds it: let the view show that
                with contextlib.suppress(KubeError):
                    await self._writes.read(step.after)
            except FastError as error:
                log.warning("claim not undone", address=step.after.metadata.name, error=str(error))

    async def _undo_step(self, step: Step, deleted: set[AttachmentKey]) -> None:
        """Delete a record that was created; give one that was taken over back to its former holder.

        If the former holder's DEL was served meanwhile, it found nothing to free: then the record is freed here.
        """
        if step.before is None:
            await self._writes.delete(step.after)
            return
        record, holder = step.after, holder_of(step.before)
        if holder not in deleted:
            # the key stays as it was rewritten: whoever holds an address may keep it for no other key
            spec = msgspec.structs.replace(step.before.spec, sticky_key=record.spec.sticky_key)
            record = await self._writes.change(record, spec)
        if holder not in deleted:
            return
        await self._writes.free(record)

    async def _ask_live(self, context: _Context) -> bool:
        """Read the records of the sticky keys live, once a claim; False if there is nothing to read."""
        if context.asked_live or not context.request.sticky_keys:
            return False
        context.asked_live = True
        await self._store.refresh_sticky(*context.request.sticky_keys)
        return True

    async def _claim_family(self, plan: FamilyPlan, context: _Context) -> Step:
        """Claim one address."""
        attachment, node = context.attachment, context.node
        for _ in range(MOST_ATTEMPTS):
            found = self._record_to_use(plan, context)
            if found is None and await self._ask_live(context):
                continue  # the record that the view showed is gone, and there may be a younger one
            if found is None:
                sticky_key = context.request.sticky_key
                record = await self._allocator.create(plan, attachment, node, sticky_key)
                return Step(None, record, "created")
            record, decision = found
            if decision.action is Action.SAME:
                return Step(record, record, "existing")
            if decision.action is Action.WAIT:
                raise AddressConflict(
                    f"address {record.metadata.name} cannot be had yet: {decision.evidence}"
                )
            try:
                after = await self._writes.bind(_rebound(record, context), record)
            except (Conflict, NotFound):  # it changed meanwhile: look again at what it is now
                await self._writes.read(record)
                continue
            return Step(record, after, decision.action.value.replace(" ", "_"))
        raise AddressConflict(f"the records of sandbox {attachment.container_id} keep changing")

    def _record_to_use(self, plan: FamilyPlan, context: _Context) -> tuple[IpEndpoint, Decision] | None:
        """Find a record of the family that this sandbox already holds or may have, the surest claim first."""
        attachment, request = context.attachment, context.request
        candidates = {
            record.metadata.name: record
            for record in (
                *self._ledger.of_attachment(attachment.key),
                *self._ledger.of_pod(attachment.pod.uid if attachment.pod else ""),
                *(record for key in request.sticky_keys for record in self._ledger.of_sticky_key(key)),
            )
            if (address := record.find_address()) is not None and address.version == plan.version
        }
        decided = [(record, self._on_add(record, context)) for record in candidates.values()]
        useful = [
            (record, decision)
            for record, decision in decided
            if decision.action in _RANKS
            and (decision.rule not in _BY_STICKY_KEY or self._still_fits(record, plan))
        ]
        return min(useful, key=lambda item: _RANKS.index(item[1].action), default=None)

    def _on_add(self, record: IpEndpoint, context: _Context) -> Decision:
        overtaken = self._adding.is_overtaken(context.attachment.key, by=holder_of(record))
        return claim_rules.on_add(
            record, context.attachment, context.node, context.request.sticky_keys, overtaken=overtaken
        )

    def _still_fits(self, record: IpEndpoint, plan: FamilyPlan) -> bool:
        """Whether an address kept for the pod is one that the pod would get today.

        If not, the pod gets another one at once. The old record is the controller's to free: an agent may not delete
        what no node holds.
        """
        entry = self._ledger.pools.get(record.spec.pool)
        if plan.address is not None and record.address != plan.address:
            return False
        in_pool = entry is not None and entry.book is not None and record.address in entry.book
        return in_pool and record.spec.pool in plan.pools


def _rebound(record: IpEndpoint, context: _Context) -> IpEndpoint:
    """Give the record as the attachment will hold it. A pod whose set is orphaned for a while keeps its sticky key."""
    sticky_key = context.request.sticky_key or record.spec.sticky_key
    spec = record_states.bound(record.spec.pool, context.attachment, context.node, sticky_key)
    labels = record.metadata.labels | sticky_labels(sticky_key)
    return IpEndpoint(metadata=msgspec.structs.replace(record.metadata, labels=labels), spec=spec)
