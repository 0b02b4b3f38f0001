"""Claims and releases of one node: what the agent calls for each CNI ADD and DEL.

Knows which ADDs are in flight, and counts. ``claiming``, ``releasing`` and ``restoring`` tie the rules to the store:
they read the view, ask ``rules`` for a decision, write it with preconditions, and decide again if the record has
changed. Ownership is decided in ``rules`` only.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.errors import FastError, InvalidConfig, PodNotEligible, PoolExhausted, PoolNotAllowed
from fast.ipam.attachment_locks import AttachmentLocks, finish
from fast.ipam.claim.allocator import Allocator
from fast.ipam.claim.claiming import Claiming, Step
from fast.ipam.claim.restoring import LiveSandboxes, Restored, Restoring
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.pool.ledger import Ledger
from fast.ipam.pool.pool_counts import PoolCounts
from fast.ipam.release.releasing import Releasing, Swept
from fast.ipam.rules import claim_rules
from fast.ipam.rules.claim_request import (
    Attachment,
    AttachmentKey,
    ClaimRequest,
    NodeIdentity,
    named_ports,
    resolve_pools,
)
from fast.ipam.rules.record_states import holder_of
from fast.ipam.store.record_store import EndpointChange, PodView, Store
from fast.ipam.store.record_writes import Writes
from fast.net import IPAddress, record_name

_RESULTS: dict[type[FastError], str] = {
    PoolExhausted: "exhausted",
    PodNotEligible: "refused",
    PoolNotAllowed: "refused",
    InvalidConfig: "refused",
}


class Ipam:
    """Address management of one node.

    All methods belong to one event loop. An attachment has one lock, in :attr:`locks`: the caller of :meth:`claim`,
    :meth:`unclaim` and :meth:`release` holds it, and :meth:`gc` takes it for each record that it frees.

    Args:
        store: Where records live; its view must be synced before the first call.
        node: This node; may be replaced by assignment when its labels or address change.
        pods: Asked by :meth:`claim` if no request is handed in; None if the caller always hands one in.
        locks: One lock an attachment, shared with everybody who works on attachments of this node.
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
        locks: AttachmentLocks | None = None,
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
        self.locks = locks or AttachmentLocks()
        self._adding = AddsInFlight()
        writes = Writes(store)
        allocator = Allocator(store, self.ledger, writes, self.metrics, clock, rng or random.Random())
        self._restoring = Restoring(
            store, self.ledger, writes, locks=self.locks, adding=self._adding, pods=pods
        )
        self._claiming = Claiming(store, self.ledger, writes, self._adding, allocator)
        self._releasing = Releasing(
            self.ledger, writes, locks=self.locks, adding=self._adding, metrics=self.metrics, clock=clock
        )

    # ── looking ──

    def records_of(self, container_id: str, ifname: str) -> tuple[IpEndpoint, ...]:
        """Give the records that this sandbox's interface holds on this node, by name."""
        return self.ledger.of_attachment((container_id, ifname))

    def find(self, address: IPAddress) -> IpEndpoint | None:
        """The record of the address, whoever holds it, as far as the view shows."""
        return self._store.endpoints.get(record_name(address))

    def reserve(self, owner: str, addresses: Iterable[IPAddress]) -> None:
        """Never give these addresses to a pod: they belong to ``owner``, such as a node. Replaces those before."""
        self.ledger.reserve(owner, addresses)

    def counts(self, pool: str) -> PoolCounts:
        """Count the pool's addresses by state."""
        return self.ledger.counts(pool)

    def update_gauges(self) -> None:
        """Bring the gauges of addresses up to date; to be called before metrics are read."""
        self.metrics.count_pools({name: self.ledger.counts(name) for name in self.ledger.pools}, cooling=True)

    # ── ADD ──

    @contextmanager
    def attaching(self, container_id: str, ifname: str) -> Iterator[None]:
        """Mark an ADD as in flight: the GC leaves its records alone (race: add-in-flight).

        The caller holds it from before the claim until the sandbox is set up, or the claim is taken back.
        """
        key = (container_id, ifname)
        self._releasing.added(key)
        try:
            with self._adding.serving(key):
                yield
        finally:
            if key not in self._adding:
                self._claiming.forget(key)

    def is_attaching(self, key: AttachmentKey) -> bool:
        """Whether an ADD of (container_id, ifname) is in flight."""
        return key in self._adding

    async def admit(self, attachment: Attachment) -> tuple[Attachment, ClaimRequest]:
        """Check by the :class:`PodView` that a sandbox may be made for the pod, and read what it asks for.

        Returns:
            The attachment with the pod's UID filled in, and the request.

        Raises:
            PodNotEligible: The pod is gone, elsewhere, terminating, finished, or another one of that name.
            InvalidConfig: Its annotations cannot be read.
        """
        if attachment.pod is None or self._pods is None:
            return attachment, ClaimRequest(pools_named=False, addresses=attachment.addresses)
        ref = attachment.pod
        pod = await self._pods.pod(ref.namespace, ref.name)
        why_not = claim_rules.admit(pod, ref, self.node.name)
        if why_not or pod is None:
            raise PodNotEligible(why_not)
        namespace = await self._pods.namespace(ref.namespace)
        admitted = PodRef(namespace=ref.namespace, name=ref.name, uid=pod.sandbox_uid)
        request = resolve_pools(pod, namespace)
        if attachment.addresses:
            request = replace(request, addresses=attachment.addresses)
        labels, ports = pod.metadata.labels, named_ports(pod)
        return replace(attachment, pod=admitted, pod_labels=labels, named_ports=ports), request

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
        self._require_lock(attachment.key)
        began = self._clock()
        with self.attaching(*attachment.key):
            work = asyncio.ensure_future(self._claim_and_count(attachment, request))
            try:
                steps = await asyncio.shield(work)
            except asyncio.CancelledError:
                # a request that is sent cannot be called back: wait for its end, then undo it
                await finish(self._abandon(attachment.key, work))
                raise
        self.metrics.claim_seconds.observe(self._clock() - began)
        return tuple(step.after for step in steps)

    async def unclaim(self, container_id: str, ifname: str) -> None:
        """Undo the last claim of an ADD that is in flight, as its sandbox cannot be set up.

        What the claim created is released, what it took over goes back to whom it was taken from, and what the
        attachment held before stays. What cannot be undone (the API server is away) is found by the GC.
        """
        key = (container_id, ifname)
        self._require_lock(key)
        await self._claiming.undo(key)

    async def _claim_and_count(
        self, attachment: Attachment, request: ClaimRequest | None
    ) -> tuple[Step, ...]:
        """Claim, and count how it went."""
        pool = ""
        try:
            if request is None:
                attachment, request = await self.admit(attachment)
            pool = request.pools[0]
            steps = await self._claiming.claim(attachment, request, self.node)
        except FastError as error:
            self.metrics.claims.labels(pool, _RESULTS.get(type(error), "error")).inc()
            raise
        for step in steps:
            self.metrics.claims.labels(step.after.spec.pool, step.result).inc()
        return steps

    async def _abandon(self, key: AttachmentKey, work: asyncio.Future[tuple[Step, ...]]) -> None:
        """Undo a claim whose caller was cancelled; a claim that failed has undone itself."""
        await asyncio.wait([work])
        if work.exception() is None:
            await self._claiming.undo(key)

    # ── DEL ──

    async def release(self, container_id: str, ifname: str) -> tuple[IpEndpoint, ...]:
        """Release what this sandbox's interface holds; succeeds if it holds nothing.

        To be called after the datapath was torn down. A sticky pod's address is retained instead.

        Returns:
            The records that were released or retained, as they were before.

        Raises:
            KubeError: The API server refused or is away; calling again helps, and finds what is left.
        """
        key = (container_id, ifname)
        self._require_lock(key)
        self._claiming.deleted(key)
        return await self._releasing.release(key, self.node)

    def _require_lock(self, key: AttachmentKey) -> None:
        if not self.locks.is_held(key):
            raise AssertionError(f"the lock of attachment {key} is not held")

    # ── records that got lost, and GC ──

    async def restore(self, sandboxes: LiveSandboxes) -> Restored:
        """Give live sandboxes of this node their records back (race: lost-record).

        To be called before the first ADD is served, with every sweep, and soon after :meth:`on_lost` tells of a loss.

        Args:
            sandboxes: Gives each (container_id, ifname) whose interface exists, with its addresses.

        Returns:
            What was restored; what another sandbox holds meanwhile; what could not be written.
        """
        return await self._restoring.restore(sandboxes, self.node)

    def on_lost(self, callback: Callable[[IpEndpoint], None]) -> None:
        """Call the function for each of this node's records that others remove, or take, from now on."""

        def changed(change: EndpointChange) -> None:
            old, new = change.old, change.new
            if old is None or old.spec.node != self.node.name or holder_of(old) in self.locks.in_flight:
                return
            if new is None or (new.spec.node, holder_of(new)) != (old.spec.node, holder_of(old)):
                callback(old)

        self._store.subscribe(changed, lambda _: None)

    async def gc(self, sandboxes: Callable[[], Awaitable[Collection[AttachmentKey]]]) -> Swept:
        """Free this node's records whose sandbox is gone: seen so twice, 30 s apart, or of an earlier boot.

        Args:
            sandboxes: Gives every (container_id, ifname) whose sandbox or interface exists. Called after the
                records were read, so that a sandbox made meanwhile counts; if it raises, nothing is freed.

        Returns:
            What was freed, as it was before, with the rule and the evidence; and what could not be. One record that
            cannot be freed never stops the others; the next sweep finds it again.
        """
        return await self._releasing.sweep(sandboxes, self.node)
