"""Claims and releases of one node: what the agent calls for each CNI ADD and DEL.

Ties the rules to the store: reads the view, asks ``rules`` for a decision, writes it with preconditions, and looks
again where the write met a change. Nothing here decides who owns an address.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog

from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.errors import (
    AddressConflict,
    Conflict,
    FastError,
    InvalidConfig,
    InvalidRange,
    KubeError,
    NotFound,
    PodNotEligible,
    PoolExhausted,
    PoolNotAllowed,
)
from fast.ipam import rules
from fast.ipam.allocator import Allocator, FamilyPlan
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.ledger import Ledger, PoolCounts
from fast.ipam.metrics import IpamMetrics
from fast.ipam.request import Attachment, AttachmentKey, ClaimRequest, NodeIdentity, resolve_pools
from fast.ipam.rules import Action, Decision
from fast.ipam.store import PodView, Store
from fast.ipam.suspicion import Suspicions
from fast.net import IPAddress, record_name

log = structlog.get_logger()

_MOST_ATTEMPTS = 8
_RESULTS: dict[type[FastError], str] = {
    PoolExhausted: "exhausted",
    PodNotEligible: "refused",
    PoolNotAllowed: "refused",
    InvalidConfig: "refused",
}


@dataclass(frozen=True, slots=True)
class _Step:
    """One address of a claim: the record before (None: created now) and after, and what that is called in metrics."""

    before: IpEndpoint | None
    after: IpEndpoint
    result: str


class Ipam:
    """Address management of one node.

    All methods belong to one event loop. Calls for the same attachment are served one after the other.

    Args:
        store: Where records live; its view must be synced before the first call.
        node: This node; may be replaced by assignment when its labels or address change.
        pods: Asked by :meth:`claim` where no request is handed in; None where the caller does that.
        metrics: Counts claims and releases.
        clock: Monotonic seconds.
        rng: Randomness of stepping aside.
    """

    def __init__(
        self,
        store: Store,
        node: NodeIdentity,
        *,
        pods: PodView | None = None,
        metrics: IpamMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.node = node
        self.metrics = metrics or IpamMetrics()
        self.ledger = Ledger(store, node.name, clock)
        self._store = store
        self._pods = pods
        self._clock = clock
        self._allocator = Allocator(store, self.ledger, self.metrics, clock, rng or random.Random())
        self._locks: dict[AttachmentKey, asyncio.Lock] = {}
        self._waiting: Counter[AttachmentKey] = Counter()
        self._adding = AddsInFlight()
        self._undoing: set[asyncio.Future[None]] = set()
        self._suspicions = Suspicions(clock)

    # ── looking ──

    def records_of(self, container_id: str, ifname: str) -> tuple[IpEndpoint, ...]:
        """The records that this sandbox's interface holds on this node, by name; empty where none."""
        return self.ledger.of_attachment((container_id, ifname))

    def find(self, address: IPAddress) -> IpEndpoint | None:
        """The record of the address, whoever holds it, as far as the view shows."""
        return self._store.endpoints.get(record_name(address))

    def counts(self, pool: str) -> PoolCounts:
        """How many addresses of the pool are used, retained, cooling and free."""
        return self.ledger.counts(pool)

    def update_gauges(self) -> None:
        """Bring ``fast_ipam_addresses`` up to date; to be called before metrics are read."""
        self.metrics.addresses.clear()  # of pools that are gone
        for name in self.ledger.pools:
            counts = self.ledger.counts(name)
            for state in ("used", "retained", "cooling", "free"):
                self.metrics.addresses.labels(name, state).set(getattr(counts, state))

    # ── ADD ──

    def attaching(self, container_id: str, ifname: str) -> AbstractContextManager[None]:
        """Mark an ADD as in flight: the GC leaves its records alone (race: add-in-flight).

        The caller holds it from before the claim until the sandbox is set up, or the claim is released again.
        """
        return self._adding.serving((container_id, ifname))

    async def admit(self, attachment: Attachment) -> tuple[Attachment, ClaimRequest]:
        """Check by the :class:`PodView` that a sandbox may be made for the pod, and read what it asks for.

        Returns:
            The attachment with the pod's UID filled in, and the request.

        Raises:
            PodNotEligible: The pod is gone, elsewhere, terminating, finished, or another one of that name.
            InvalidConfig: Its annotations cannot be read.
        """
        if attachment.pod is None or self._pods is None:
            return attachment, ClaimRequest(pools_named=False)
        ref = attachment.pod
        pod = await self._pods.pod(ref.namespace, ref.name)
        why_not = rules.admit(pod, ref, self.node.name)
        if why_not or pod is None:
            raise PodNotEligible(why_not)
        namespace = await self._pods.namespace(ref.namespace)
        admitted = PodRef(namespace=ref.namespace, name=ref.name, uid=pod.sandbox_uid)
        return replace(attachment, pod=admitted), resolve_pools(pod, namespace)

    async def claim(
        self, attachment: Attachment, request: ClaimRequest | None = None
    ) -> tuple[IpEndpoint, ...]:
        """Claim an address of each family asked for; the same ones again for the same (container_id, ifname).

        One API write an address in the common case. Whatever fails, and also when cancelled, everything that this
        call wrote is undone; what cannot be undone (the API server is away) is found by the GC.

        Args:
            attachment: Who claims.
            request: What the pod asks for; None: found out through the :class:`PodView` (see :meth:`admit`).

        Returns:
            One record a family, in the order in which the pools are named.

        Raises:
            PodNotEligible, InvalidConfig: See :meth:`admit`.
            PoolNotFound, PoolNotAllowed, PoolExhausted: No pool serves this pod; messages name pools and counts.
            AddressConflict: The one address that the pod may have is somebody else's, for now.
            KubeError: The API server refused or is away.
        """
        began = self._clock()
        work = asyncio.ensure_future(self._claim_alone(attachment, request))
        try:
            steps = await asyncio.shield(work)
        except asyncio.CancelledError:
            # a request under way cannot be called back: let it end, then undo it
            undoing = asyncio.ensure_future(self._abandon(work))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise
        self.metrics.claim_seconds.observe(self._clock() - began)
        return tuple(step.after for step in steps)

    async def _claim_alone(self, attachment: Attachment, request: ClaimRequest | None) -> list[_Step]:
        """Claim while no other call for the same attachment is served, and count how it went."""
        pool = ""
        try:
            async with self._one_at_a_time(attachment.key):
                if request is None:
                    attachment, request = await self.admit(attachment)
                pool = request.pools[0]
                steps = await self._claim(attachment, request)
        except FastError as error:
            self.metrics.claims.labels(pool, _RESULTS.get(type(error), "error")).inc()
            raise
        for step in steps:
            self.metrics.claims.labels(step.after.spec.pool, step.result).inc()
        return steps

    async def _abandon(self, work: asyncio.Future[list[_Step]]) -> None:
        """Undo a claim whose caller has gone away."""
        try:
            await self._undo(await work)
        except FastError:
            return  # it failed, and undid itself

    async def _claim(self, attachment: Attachment, request: ClaimRequest) -> list[_Step]:
        steps: list[_Step] = []
        with self.attaching(*attachment.key):
            await self._allocator.find_out_again(attachment.key)
            try:
                for plan in self._allocator.plan(request, self.node):
                    await self._claim_family(plan, attachment, request, steps)
            except BaseException:
                await self._undo(steps)
                raise
        return steps

    async def _claim_family(
        self, plan: FamilyPlan, attachment: Attachment, request: ClaimRequest, steps: list[_Step]
    ) -> None:
        """Come by one address, and note the writes in ``steps``."""
        asked_live = not request.sticky_key
        for _ in range(_MOST_ATTEMPTS):
            found = self._record_to_use(plan, attachment, request)
            if found is None and not asked_live:
                # race: sticky-from-afar: the record may be so young that the view has not seen it
                await self._store.refresh_sticky(request.sticky_key)
                asked_live = True
                continue
            if found is None:
                record = await self._allocator.create(plan, attachment, self.node, request.sticky_key)
                steps.append(_Step(None, record, "created"))
                return
            record, decision = found
            if decision.action is Action.SAME:
                steps.append(_Step(record, record, "existing"))
                return
            if decision.action is Action.WAIT:
                raise AddressConflict(f"address {record.metadata.name} is not free yet: {decision.evidence}")
            try:
                if decision.action is Action.RELEASE:
                    await self._store.delete(record)
                    continue
                spec = rules.bound(record.spec.pool, attachment, self.node, request.sticky_key)
                after = await self._store.replace(IpEndpoint(metadata=record.metadata, spec=spec))
            except (Conflict, NotFound):  # it changed meanwhile: look again at what it is now
                await self._store.refresh(record.metadata.name)
                continue
            steps.append(_Step(record, after, decision.action.value.replace(" ", "_")))
            return
        raise AddressConflict(f"the records of sandbox {attachment.container_id} keep changing")

    def _record_to_use(
        self, plan: FamilyPlan, attachment: Attachment, request: ClaimRequest
    ) -> tuple[IpEndpoint, Decision] | None:
        """Find a record of the family that this sandbox already holds or may have, the surest claim first."""
        uid = attachment.pod.uid if attachment.pod else ""
        candidates = {
            record.metadata.name: record
            for record in (
                *self.ledger.of_attachment(attachment.key),
                *self.ledger.of_pod(uid),
                *self.ledger.of_sticky_key(request.sticky_key),
            )
            if _version_of(record) == plan.version
        }
        ranks = (Action.SAME, Action.TAKE_OVER, Action.REBIND, Action.WAIT)
        decided = [
            (record, self._on_add(record, attachment, request.sticky_key)) for record in candidates.values()
        ]
        useful = [item for item in decided if item[1].action in ranks]
        if not useful:
            return None
        record, decision = min(useful, key=lambda item: ranks.index(item[1].action))
        if decision.action is Action.REBIND and not self._still_fits(record, plan):
            gone = Decision(Action.RELEASE, "pool-changed", "the pod may not have it any more")
            return record, gone
        return record, decision

    def _on_add(self, record: IpEndpoint, attachment: Attachment, sticky_key: str) -> Decision:
        holder = (record.spec.container_id, record.spec.interface)
        overtaken = self._adding.is_overtaken(attachment.key, by=holder)
        return rules.on_add(record, attachment, self.node, sticky_key, overtaken=overtaken)

    def _still_fits(self, record: IpEndpoint, plan: FamilyPlan) -> bool:
        """Whether a retained address is one that the pod would get today."""
        entry = self.ledger.pools.get(record.spec.pool)
        if plan.address is not None and record.address != plan.address:
            return False
        in_pool = entry is not None and entry.book is not None and record.address in entry.book
        return in_pool and record.spec.pool in plan.pools

    async def _undo(self, steps: list[_Step]) -> None:
        """Undo what a failed claim wrote, the last first; what fails is left to the GC."""
        for step in reversed(steps):
            if step.before is step.after:
                continue
            try:
                if step.before is None:
                    await self._store.delete(step.after)
                else:
                    await self._store.replace(IpEndpoint(metadata=step.after.metadata, spec=step.before.spec))
            except FastError as error:
                spec, name = step.after.spec, step.after.metadata.name
                self._allocator.doubt((spec.container_id, spec.interface), name)  # race: lost-answer
                log.warning("claim not undone", address=name, error=str(error))

    # ── DEL ──

    async def release(self, container_id: str, ifname: str) -> tuple[IpEndpoint, ...]:
        """Release what this sandbox's interface holds; nothing, with success, where it holds nothing.

        To be called after the datapath was torn down. A sticky pod's address is retained instead.

        Returns:
            The records that were released or retained, as they were before.

        Raises:
            KubeError: The API server refused or is away; calling again helps, and finds what is left.
        """
        async with self._one_at_a_time((container_id, ifname)):
            await self._allocator.find_out_again((container_id, ifname))
            decide = partial(self._on_del, container_id, ifname)
            held = self.records_of(container_id, ifname)
            try:
                return tuple([record for record in held if await self.free(record, decide) is not None])
            except KubeError:  # race: lost-answer: it may be free, though the view shows it
                for record in held:
                    self._allocator.doubt((container_id, ifname), record.metadata.name)
                raise

    def _on_del(self, container_id: str, ifname: str, record: IpEndpoint) -> Decision:
        return rules.on_del(record, container_id, ifname, self.node.name)

    async def free(self, record: IpEndpoint, decide: Callable[[IpEndpoint], Decision]) -> Decision | None:
        """Carry out a decision that frees a record, as long as the record still is one that it frees.

        Args:
            record: As known.
            decide: Asked anew each time the record turns out to have changed.

        Returns:
            The decision that was carried out; None where the record is to stay, or is gone already.

        Raises:
            KubeError: The API server refused otherwise, or is away.
        """
        current: IpEndpoint | None = record
        for _ in range(_MOST_ATTEMPTS):
            if current is None:
                return None
            decision = decide(current)
            if not decision.frees:
                return None
            try:
                if decision.action is Action.RETAIN:
                    await self._store.replace(rules.retained(current))
                else:
                    await self._store.delete(current)
            except (Conflict, NotFound):  # race: del-against-takeover: decide about what it is now
                current = await self._store.refresh(current.metadata.name)
                continue
            self.metrics.released.labels(current.spec.pool, decision.rule).inc()
            log.info(
                "address freed", address=current.metadata.name, rule=decision.rule, evidence=decision.evidence
            )
            return decision
        raise AddressConflict(f"record {record.metadata.name} keeps changing")

    # ── GC ──

    async def gc(
        self, sandboxes: Callable[[], Awaitable[Collection[AttachmentKey]]]
    ) -> tuple[tuple[IpEndpoint, Decision], ...]:
        """Free this node's records whose sandbox is gone: seen so twice, 30 s apart, or of an earlier boot.

        Args:
            sandboxes: Gives every (container_id, ifname) whose sandbox or interface exists. Called after the
                records were read, so that a sandbox made meanwhile counts; where it raises, nothing is freed.

        Returns:
            What was freed, as it was before, with the rule and the evidence.

        Raises:
            KubeError: The API server refused or is away; the next sweep goes on.
        """
        records = self.ledger.mine()
        alive = await sandboxes()
        decided = self._suspicions.judge(records, alive, self.is_attaching, self.node)
        freed = []
        for record, decision in decided:
            if await self.free(record, partial(_unchanged, record, decision)) is not None:
                freed.append((record, decision))
        return tuple(freed)

    def is_attaching(self, key: AttachmentKey) -> bool:
        """Whether an ADD of (container_id, ifname) is in flight."""
        return key in self._adding

    # ── one at a time ──

    @asynccontextmanager
    async def _one_at_a_time(self, key: AttachmentKey) -> AsyncIterator[None]:
        """Serve calls for one attachment one after the other."""
        self._waiting[key] += 1
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._locks[key]


def _version_of(record: IpEndpoint) -> int:
    """4 or 6; 0 for a record whose name is no address."""
    try:
        return record.address.version
    except InvalidRange:
        return 0


def _unchanged(before: IpEndpoint, decision: Decision, current: IpEndpoint) -> Decision:
    """Keep to a sweep's decision only while the record is the very version it was made about."""
    if (current.metadata.uid, current.metadata.resource_version) == (
        before.metadata.uid,
        before.metadata.resource_version,
    ):
        return decision
    return Decision(Action.KEEP, "changed", "it changed since the sweep looked")
