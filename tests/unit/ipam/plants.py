"""The design's races, each planted as a bug: context managers that take one guard out of the real code.

Names are those of the list in ``fast.ipam.rules``. Nothing here knows what the model does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import msgspec

from fakes.store import FakeCluster
from fast.api.core import Node, Pod
from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.cni import Verbs
from fast.errors import Unavailable
from fast.ipam.claim.allocator import Allocator, FamilyPlan
from fast.ipam.claim.claiming import Claiming
from fast.ipam.claim.restoring import Restored, Restoring
from fast.ipam.in_flight import AddsInFlight
from fast.ipam.node_ipam import Ipam
from fast.ipam.pool.ledger import Ledger
from fast.ipam.release import controller_sweep
from fast.ipam.release.releasing import Releasing, Swept, _unchanged
from fast.ipam.rules import (
    agent_gc_rules,
    breaker,
    claim_rules,
    controller_gc_rules,
    record_states,
    release_rules,
)
from fast.ipam.rules.agent_gc_rules import Sighting
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import holder_of, is_retained
from fast.ipam.store.record_view import EndpointView
from fast.ipam.store.record_writes import Writes
from unit.ipam.processes import Controller

Plant = Callable[[], AbstractContextManager[None]]
PLANTS: dict[str, Plant] = {}


def _plant(race: str) -> Callable[[Callable[[], Iterator[None]]], Plant]:
    def register(function: Callable[[], Iterator[None]]) -> Plant:
        planted: Plant = contextmanager(function)
        PLANTS[race] = planted
        return planted

    return register


@contextmanager
def _instead(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put ``make(original)`` in the place of a function."""
    with patch.object(owner, name, make(getattr(owner, name))):
        yield


def _with_spec(record: IpEndpoint, **fields: Any) -> IpEndpoint:
    return IpEndpoint(metadata=record.metadata, spec=msgspec.structs.replace(record.spec, **fields))


# ── claiming ──


@_plant("two-claimants")
def create_overwrites() -> Iterator[None]:
    def create(original: Any) -> Any:
        def planted(self: FakeCluster, endpoint: IpEndpoint) -> IpEndpoint:
            self.endpoints.pop(endpoint.metadata.name, None)
            return original(self, endpoint)

        return planted

    with _instead(FakeCluster, "create", create):
        yield


@_plant("lost-answer")
def lost_writes_are_forgotten() -> Iterator[None]:
    async def read(self: Writes, *records: Any) -> None:
        raise Unavailable("planted")

    with patch.object(Writes, "read", read), patch.object(Writes, "_remember", lambda self, *records: None):
        yield


@_plant("own-write-echo")
def watch_overrules_own_writes() -> Iterator[None]:
    with patch.object(EndpointView, "_is_echo", staticmethod(lambda own, old, new: False)):
        yield


def _on_add(change: Callable[[IpEndpoint, Attachment, NodeIdentity, Decision], Decision]) -> Any:
    def make(original: Any) -> Any:
        def planted(
            record: IpEndpoint, attachment: Attachment, node: NodeIdentity, sticky_keys: Any, **told: bool
        ) -> Decision:
            return change(record, attachment, node, original(record, attachment, node, sticky_keys, **told))

        return planted

    return _instead(claim_rules, "on_add", make)


def _turned(before: Action, after: Action) -> Any:
    return _on_add(
        lambda record, attachment, node, decision: (
            Decision(after, "planted", "") if decision.action is before else decision
        )
    )


@_plant("retried-add")
def repeated_add_is_a_new_one() -> Iterator[None]:
    with _turned(Action.SAME, Action.UNRELATED):
        yield


@_plant("new-sandbox")
def new_sandbox_is_a_new_pod() -> Iterator[None]:
    with _turned(Action.TAKE_OVER, Action.UNRELATED):
        yield


@_plant("overtaken-add")
def order_of_adds_does_not_matter() -> Iterator[None]:
    with patch.object(AddsInFlight, "is_overtaken", lambda self, key, by: False):
        yield


@_plant("sticky-still-bound")
def sticky_address_is_taken_from_a_bound_sandbox() -> Iterator[None]:
    with _turned(Action.WAIT, Action.REBIND):
        yield


@_plant("recreated-pod")
def pods_name_is_its_identity() -> Iterator[None]:
    def change(
        record: IpEndpoint, attachment: Attachment, node: NodeIdentity, decision: Decision
    ) -> Decision:
        same_name = attachment.pod is not None and record.spec.pod.name == attachment.pod.name
        if decision.action is Action.UNRELATED and same_name and record.spec.interface == attachment.ifname:
            return Decision(Action.TAKE_OVER, "planted", "")
        return decision

    with patch.object(Ledger, "of_pod", lambda self, uid: self.mine()), _on_add(change):
        yield


@_plant("recreated-pod (admission)")
def admission_ignores_the_uid() -> Iterator[None]:
    def make(original: Any) -> Any:
        return lambda pod, ref, node: original(pod, PodRef(namespace=ref.namespace, name=ref.name), node)

    with _instead(claim_rules, "admit", make):
        yield


@_plant("moved-pod")
def admission_ignores_the_node() -> Iterator[None]:
    def make(original: Any) -> Any:
        return lambda pod, ref, node: original(pod, ref, pod.spec.node_name if pod else node)

    with _instead(claim_rules, "admit", make):
        yield


@_plant("terminating-pod")
def admission_ignores_the_deletion() -> Iterator[None]:
    def make(original: Any) -> Any:
        def planted(pod: Pod | None, ref: PodRef, node: str) -> str:
            why: str = original(pod, ref, node)
            return "" if why.endswith("is terminating") else why

        return planted

    with _instead(claim_rules, "admit", make):
        yield


@_plant("reused-container-id")
def container_id_is_unique_in_the_cluster() -> Iterator[None]:
    def of_attachment(self: Ledger, key: tuple[str, str]) -> tuple[IpEndpoint, ...]:
        return tuple(
            record
            for record in self._store.endpoints.values()
            if (record.spec.container_id, record.spec.interface) == key
        )

    def on_del(original: Any) -> Any:
        return lambda record, container_id, ifname, node: original(
            record, container_id, ifname, record.spec.node
        )

    with patch.object(Ledger, "of_attachment", of_attachment), _instead(release_rules, "on_del", on_del):
        yield


@_plant("other-interface")
def interface_does_not_matter() -> Iterator[None]:
    def of_attachment(self: Ledger, key: tuple[str, str]) -> tuple[IpEndpoint, ...]:
        return tuple(record for record in self.mine() if record.spec.container_id == key[0])

    def on_del(original: Any) -> Any:
        return lambda record, container_id, ifname, node: original(
            record, container_id, record.spec.interface, node
        )

    with patch.object(Ledger, "of_attachment", of_attachment), _instead(release_rules, "on_del", on_del):
        yield


@_plant("sticky-from-afar")
def sticky_records_are_not_read_live() -> Iterator[None]:
    async def planted(self: Any, *keys: str) -> None:
        return

    with patch("fakes.store.FakeStore.refresh_sticky", planted):
        yield


@_plant("holder-refused")
def pools_are_looked_at_before_records() -> Iterator[None]:
    with patch.object(Claiming, "_families_held", lambda self, context: {}):
        yield


@_plant("foreign-retained")
def add_deletes_what_was_kept() -> Iterator[None]:
    def make(original: Any) -> Any:
        async def planted(self: Claiming, plan: FamilyPlan, context: Any) -> Any:
            for key in context.request.sticky_keys:
                for record in self._ledger.of_sticky_key(key):
                    if is_retained(record) and not self._still_fits(record, plan):
                        await self._writes.delete(record)
            return await original(self, plan, context)

        return planted

    with _instead(Claiming, "_claim_family", make):
        yield


@_plant("stalled-watch")
def exhaustion_is_believed_unseen() -> Iterator[None]:
    async def planted(self: Allocator, pool: str) -> bool:
        return False

    with patch.object(Allocator, "_has_candidate_live", planted):
        yield


@_plant("lost-record")
def lost_records_stay_lost() -> Iterator[None]:
    async def planted(self: Restoring, sandboxes: Any, node: NodeIdentity) -> Restored:
        return Restored()

    with patch.object(Restoring, "restore", planted):
        yield


# ── releasing ──


@_plant("late-del")
def container_id_does_not_matter_to_del() -> Iterator[None]:
    def on_del(original: Any) -> Any:
        return lambda record, container_id, ifname, node: original(
            record, record.spec.container_id, ifname, node
        )

    with _instead(release_rules, "on_del", on_del):
        yield


@_plant("del-against-takeover")
def writes_without_preconditions() -> Iterator[None]:
    def make(original: Any) -> Any:
        def planted(self: FakeCluster, endpoint: IpEndpoint) -> IpEndpoint:
            return self.endpoints.get(endpoint.metadata.name) or original(self, endpoint)

        return planted

    with _instead(FakeCluster, "_current", make):
        yield


# ── garbage collection by the agent ──


def _on_agent_sweep(**changed: Any) -> Any:
    """Tell the rule something else than what is: values, or functions of what it is told."""

    def make(original: Any) -> Any:
        def planted(record: IpEndpoint, node: NodeIdentity, **told: Any) -> Decision:
            told.update({name: value(record, told) for name, value in changed.items()})
            return original(record, node, **told)

        return planted

    return _instead(agent_gc_rules, "on_agent_sweep", make)


@_plant("add-in-flight")
def adds_in_flight_do_not_count() -> Iterator[None]:
    @contextmanager
    def nothing(self: AddsInFlight) -> Iterator[frozenset[AttachmentKey]]:
        yield frozenset()

    with patch.object(AddsInFlight, "watched", nothing):
        yield


@_plant("reused-while-swept")
def sweep_goes_by_what_it_saw() -> Iterator[None]:
    async def planted(self: Releasing, sandboxes: Any, node: NodeIdentity) -> Swept:
        records, alive = self._ledger.mine(), await sandboxes()
        adding = {key for key in map(holder_of, records) if key in self._adding}
        for record, decision in self._suspicions.judge(records, alive, adding, node):
            await self._free(record, partial(_unchanged, record, decision))
        return Swept()

    with patch.object(Releasing, "sweep", planted):
        yield


def _seen_long_ago(record: IpEndpoint, told: dict[str, Any]) -> Sighting:
    return Sighting(record.metadata, float("-inf"))


@_plant("half-seen-sandbox")
def missed_once_is_enough() -> Iterator[None]:
    with _on_agent_sweep(sighting=_seen_long_ago):
        yield


@_plant("changed-between-sightings")
def sighting_is_of_the_address() -> Iterator[None]:
    with patch.object(Sighting, "is_of", lambda self, record: True):
        yield


@_plant("added-between-sightings")
def add_clears_nothing() -> Iterator[None]:
    with patch.object(Releasing, "added", lambda self, key: None):
        yield


@_plant("rebooted-node")
def boots_are_not_told_apart() -> Iterator[None]:
    def make(original: Any) -> Any:
        return lambda record, node, **told: original(_with_spec(record, boot_id=node.boot_id), node, **told)

    with _instead(agent_gc_rules, "on_agent_sweep", make):
        yield


@_plant("foreign-node")
def agent_answers_for_every_node() -> Iterator[None]:
    def make(original: Any) -> Any:
        return lambda record, node, **told: original(
            _with_spec(record, node=node.name, boot_id=node.boot_id), node, **told
        )

    everything = patch.object(Ledger, "mine", lambda self: tuple(self._store.endpoints.values()))
    with everything, _instead(agent_gc_rules, "on_agent_sweep", make):
        yield


# ── garbage collection by the controller ──


@_plant("partitioned-node")
def pods_absence_is_enough() -> Iterator[None]:
    async def on_bound(record: IpEndpoint, node: Node | None, cluster: Any, *more: Any) -> Decision:
        return await once_more(record, cluster)

    async def once_more(record: IpEndpoint, cluster: Any) -> Decision:
        pod = await cluster.pod(record.spec.pod.namespace, record.spec.pod.name)
        return controller_gc_rules.on_controller_sweep(record, pod, None, float("inf"))

    with (
        patch.object(controller_sweep, "_on_bound", on_bound),
        patch.object(controller_sweep, "_once_more", once_more),
    ):
        yield


@_plant("stale-pod-list")
def pods_are_of_the_sweep_before() -> Iterator[None]:
    lists: WeakKeyDictionary[Controller, tuple[dict[str, Pod], dict[str, Pod]]] = WeakKeyDictionary()

    def swept(original: Any) -> Any:
        async def planted(self: Controller) -> None:
            before = lists.get(self, ({}, dict(self.world.pods)))[1]
            lists[self] = (before, dict(self.world.pods))
            await original(self)

        return planted

    async def pod(self: Controller, namespace: str, name: str) -> Pod | None:
        return lists[self][0].get(name) if await self._read("pod") else None

    with _instead(Controller, "sweep", swept), patch.object(Controller, "pod", pod):
        yield


@_plant("mass-disappearance")
def breaker_never_trips() -> Iterator[None]:
    with patch.object(breaker, "is_suspicious", lambda kind, gone, there: False):
        yield


@_plant("node-object-deleted")
def heartbeats_do_not_count() -> Iterator[None]:
    with patch.object(Controller, "silent_seconds", lambda self, node: float("inf")):
        yield


@_plant("retained-and-rebound")
def retained_is_freed_as_what_it_is_now() -> Iterator[None]:
    def make(original: Any) -> Any:
        async def planted(plan: Any, store: Any, cluster: Any, freed: Any) -> Any:
            for finding in plan.to_free:
                if record_states.is_retained(finding.record):
                    now = await store.refresh(finding.record.metadata.name)
                    if now is not None:
                        await store.delete(now)
            return await original(plan, store, cluster, freed)

        return planted

    with _instead(controller_sweep, "carry_out", make):
        yield


@_plant("sticky-twice")
def second_retained_address_is_kept() -> Iterator[None]:
    def make(original: Any) -> Any:
        def planted(record: IpEndpoint, found: Any, *, bound_elsewhere: str = "", **told: bool) -> Decision:
            return original(record, found, **told)

        return planted

    with _instead(controller_gc_rules, "on_retained", make):
        yield


# ── what a process forgets ──


@_plant("cancelled-add")
def thread_of_a_cancelled_add_is_left_to_itself() -> Iterator[None]:
    async def planted(self: Verbs, key: AttachmentKey, wiring: Any, *, in_use: bool) -> None:
        if not in_use:
            await self._addresses.unclaim(*key)

    with patch.object(Verbs, "_take_back", planted):
        yield


@_plant("stale-tombstone")
def replay_goes_by_what_it_listed() -> Iterator[None]:
    """That no sandbox is cut off is the verbs' to see to; no rule of address management."""

    async def planted(self: Verbs, key: AttachmentKey) -> None:
        async with self._locks.hold(key):
            await asyncio.to_thread(self._datapath.detach, *key)
            await self._addresses.release(*key)
            self._tombstones.remove(key)

    with patch.object(Verbs, "carry_out_tombstone", planted):
        yield


@_plant("no-tombstone")
def failed_del_is_forgotten() -> Iterator[None]:
    """The agent's garbage collection is the second net below tombstones: without both, addresses leak."""

    async def gc(self: Ipam, sandboxes: Any) -> Swept:
        await sandboxes()
        return Swept()

    with patch.object(Ipam, "gc", gc):
        yield
