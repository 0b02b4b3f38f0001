"""Gives live sandboxes of this node their lost records back. What is lost, and who yields, is decided in ``rules``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.api.ips import DEFAULT_POOL
from fast.api.meta import ObjectMeta
from fast.errors import AddressConflict, Conflict, FastError, InvalidConfig, NotFound
from fast.ipam.attachment_locks import AttachmentLocks
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.pool.ledger import Ledger
from fast.ipam.rules import record_states, restore_rules
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, NodeIdentity, resolve_pools
from fast.ipam.rules.decision import Action
from fast.ipam.rules.record_states import holder_of
from fast.ipam.rules.sticky_keys import sticky_labels
from fast.ipam.store.record_store import PodView, Store
from fast.ipam.store.record_writes import MOST_ATTEMPTS, Writes
from fast.net import IPAddress, record_name

log = structlog.get_logger()

#: Gives the sandboxes of the node that exist in the kernel, with their addresses.
LiveSandboxes = Callable[[], Awaitable[Mapping[AttachmentKey, Collection[IPAddress]]]]


@dataclass(frozen=True, slots=True)
class Contested:
    """An address that two sandboxes have: one of this node without a record, and the one that the record names.

    The record decides: the sandbox without it is the one that must yield. It is told so, and never cut off.
    """

    address: IPAddress
    pod: PodRef
    record: IpEndpoint


@dataclass(slots=True)
class Restored:
    """What came of a round: the records restored, the addresses contested, and what could not be written."""

    records: list[IpEndpoint] = field(default_factory=list)
    contested: list[Contested] = field(default_factory=list)
    refused: list[tuple[IPAddress, FastError]] = field(default_factory=list)


class Restoring:
    """Restores records.

    Args:
        store: The view of the records.
        ledger: Remembers the last version of this node's records, and what must not be given meanwhile.
        writes: Writes records.
        locks: The lock of each attachment.
        adding: The ADDs in flight.
        pods: Knows the pod of an address; None if nobody does.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        writes: Writes,
        *,
        locks: AttachmentLocks,
        adding: AddsInFlight,
        pods: PodView | None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._writes = writes
        self._locks = locks
        self._adding = adding
        self._pods = pods

    async def restore(self, sandboxes: LiveSandboxes, node: NodeIdentity) -> Restored:
        """Compare the node's sandboxes with the records once, and restore what is lost."""
        result = Restored()
        alive = await sandboxes()
        lost = {key: self._unrecorded(key, addresses, node) for key, addresses in alive.items()}
        self._ledger.unrecorded = {address for addresses in lost.values() for address in addresses}
        for key, addresses in lost.items():
            if not addresses or key in self._adding:
                continue
            async with self._locks.hold(key):
                # a DEL may have come meanwhile: the kernel is asked again, under the lock that DEL holds
                still = (await sandboxes()).get(key, ())
                for address in self._unrecorded(key, still, node):
                    try:
                        await self._restore_one(key, address, node, alive, result)
                    except FastError as error:
                        log.warning("record not restored", address=str(address), error=str(error))
                        result.refused.append((address, error))
        self._ledger.forget_vanished(but=alive)
        return result

    def _unrecorded(
        self, key: AttachmentKey, addresses: Collection[IPAddress], node: NodeIdentity
    ) -> list[IPAddress]:
        records = ((address, self._store.endpoints.get(record_name(address))) for address in addresses)
        return [
            address
            for address, record in records
            if record is None or record.spec.node != node.name or holder_of(record) != key
        ]

    async def _restore_one(
        self,
        key: AttachmentKey,
        address: IPAddress,
        node: NodeIdentity,
        alive: Collection[AttachmentKey],
        result: Restored,
    ) -> None:
        before = self._ledger.vanished(address, key)
        attachment, sticky_key = await self._whose(key, address, before)
        current = await self._store.refresh(record_name(address))
        for _ in range(MOST_ATTEMPTS):
            holders = {*alive, *(other for other in map(holder_of, _some(current)) if other in self._adding)}
            decision = restore_rules.on_live_sandbox(current, attachment, node, holders)
            if decision.action is Action.SAME:
                return
            if decision.action is Action.CONTESTED and current is not None:
                result.contested.append(Contested(address, attachment.pod or PodRef(), current))
                return
            pool = current.spec.pool if current else before.spec.pool if before else self._pool_of(address)
            spec = record_states.bound(pool, attachment, node, sticky_key)
            meta = current.metadata if current else ObjectMeta(name=record_name(address))
            meta = ObjectMeta(
                name=meta.name,
                uid=meta.uid,
                resource_version=meta.resource_version,
                labels=meta.labels | sticky_labels(sticky_key),
            )
            try:
                record = await self._writes.bind(IpEndpoint(metadata=meta, spec=spec), current)
            except (Conflict, NotFound):
                current = await self._store.refresh(record_name(address))
                continue
            log.warning("lost record restored", address=str(address), containerid=key[0], ifname=key[1])
            self._ledger.unrecorded.discard(address)
            result.records.append(record)
            return
        raise AddressConflict(f"record {record_name(address)} keeps changing")

    async def _whose(
        self, key: AttachmentKey, address: IPAddress, before: IpEndpoint | None
    ) -> tuple[Attachment, str]:
        """Find the sandbox's pod and sticky key: as its record said, else by the pod that reports the address."""
        if before is not None:
            return Attachment(*key, before.spec.pod), before.spec.sticky_key
        pod = self._pods.pod_with(address) if self._pods is not None else None
        if pod is None:
            return Attachment(*key), ""
        ref = PodRef(namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.sandbox_uid)
        try:
            return Attachment(*key, ref), resolve_pools(pod).sticky_key
        except InvalidConfig:
            return Attachment(*key, ref), ""

    def _pool_of(self, address: IPAddress) -> str:
        return next(iter(self._ledger.holding(address)), DEFAULT_POOL)


def _some(record: IpEndpoint | None) -> tuple[IpEndpoint, ...]:
    return () if record is None else (record,)
