"""One sweep of the controller's garbage collection: plan it from live reads, then carry it out by single writes.

``rules`` decides about each record; here is the order of the reads, the circuit breaker, and the writing. The
controller runs sweeps, ``fast-ctl ipam gc`` shows and runs them, ``fast-ctl ipam why`` explains with the same
findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from fast.api.core import Node, StatefulSet
from fast.api.ipendpoint import IpEndpoint
from fast.api.meta import ObjectMeta
from fast.errors import Conflict, InvalidRange, NotFound
from fast.ipam.rules import breaker, controller_gc_rules, record_states
from fast.ipam.rules.decision import Decision
from fast.ipam.rules.sticky_keys import parse_sticky_key
from fast.ipam.store.live_reads import ClusterReader
from fast.ipam.store.record_store import Store
from fast.ipam.store.record_writes import Writes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Finding:
    """A record, and what a sweep decided about it."""

    record: IpEndpoint
    decision: Decision


@dataclass(slots=True)
class SweepPlan:
    """What a sweep would free and why; where ``stopped`` says something, the breaker holds it back.

    ``kept`` holds what stays; ``total`` counts every record looked at. A plan that stopped early has not looked at
    all.
    """

    to_free: list[Finding] = field(default_factory=list)
    kept: list[Finding] = field(default_factory=list)
    total: int = 0
    stopped: str = ""


async def plan_sweep(
    records: Iterable[IpEndpoint],
    cluster: ClusterReader,
    *,
    limit: int = breaker.BREAKER_COUNT,
) -> SweepPlan:
    """Decide about every record.

    Records come first and everything else is read after them, live: what was made in between can then only save a
    record, never condemn one (race: stale-pod-list). Most cost no request of their own: a node that is there
    answers for its records.

    Args:
        records: All of the cluster, as read before this call.
        cluster: Live reads.
        limit: How many may be freed at once, whatever their share (the breaker's count).

    Raises:
        KubeError: Something could not be read; then nothing is decided.
    """
    known = list(records)
    plan = SweepPlan(total=len(known))
    nodes = await cluster.nodes()
    retained = any(map(record_states.is_retained, known))
    sets = await cluster.stateful_sets() if retained else {}
    # Live, too: a view that lags behind does not know the pool of a record that is newer.
    pools = await cluster.pools() if retained else {}
    holders = _holders_of_sticky_keys(known)
    for record in known:
        if record_states.is_retained(record):
            decision = _on_retained(record, sets, pools, holders)
        else:
            decision = await _on_bound(record, nodes.get(record.spec.node), cluster)
        (plan.to_free if decision.frees else plan.kept).append(Finding(record, decision))
        plan.stopped = breaker.breaker(len(plan.to_free), plan.total, limit)
        if plan.stopped:
            break  # no more questions to a server whose answers cannot be right
    return plan


async def carry_out(
    plan: SweepPlan,
    store: Store,
    cluster: ClusterReader,
    freed: Callable[[Finding], None],
) -> int:
    """Free what the plan says, each record by one write, after its node was asked for once more.

    Args:
        plan: Must not be stopped.
        store: Where to write.
        cluster: Live reads.
        freed: Told of each record freed.

    Returns:
        How many were freed; records that changed since the plan was made are left alone.

    Raises:
        KubeError: The API server refused or is away; the next sweep goes on.
    """
    assert not plan.stopped, "a stopped sweep frees nothing"
    count, writes = 0, Writes(store)
    for finding in plan.to_free:
        record, decision = finding.record, finding.decision
        if not record_states.is_retained(record):
            decision = await _once_more(record, cluster)
        if not decision.frees:
            continue
        try:
            await writes.free(record)
        except (
            Conflict,
            NotFound,
        ):  # its owner was quicker (races: del-against-takeover, retained-and-rebound)
            continue
        count += 1
        log.info(
            "address freed", address=record.metadata.name, rule=decision.rule, evidence=decision.evidence
        )
        freed(Finding(record, decision))
    return count


async def _on_bound(record: IpEndpoint, node: Node | None, cluster: ClusterReader) -> Decision:
    """Decide about a bound record; its pod is asked for only where its node does not answer for it."""
    if node is not None and not node.out_of_service:
        return controller_gc_rules.on_controller_sweep(record, None, node)
    pod = record.spec.pod
    found = await cluster.pod(pod.namespace, pod.name) if pod.name else None
    return controller_gc_rules.on_controller_sweep(record, found, node)


async def _once_more(record: IpEndpoint, cluster: ClusterReader) -> Decision:
    """Decide about a bound record before it is freed.

    The pod is asked for first: one that is gone stays gone, whereas a node that was fenced may come back, run pods,
    and lose one by force, between two reads.
    """
    ref = record.spec.pod
    pod = await cluster.pod(ref.namespace, ref.name) if ref.name else None
    return controller_gc_rules.on_controller_sweep(record, pod, await cluster.node(record.spec.node))


def _on_retained(
    record: IpEndpoint,
    sets: Mapping[str, StatefulSet],
    pools: Mapping[str, ObjectMeta],
    holders: Mapping[tuple[str, str, int], IpEndpoint],
) -> Decision:
    holder = holders.get(_sticky_slot(record), record)
    pool = pools.get(record.spec.pool)
    return controller_gc_rules.on_retained(
        record,
        _set_of(record, sets),
        bound_elsewhere="" if holder is record else holder.metadata.name,
        pool_deleted=pool is None or pool.deletion_timestamp is not None,
    )


def _set_of(record: IpEndpoint, sets: Mapping[str, StatefulSet]) -> StatefulSet | None:
    """Find the StatefulSet that the record's sticky key names: by namespace and name, by UID in the former form."""
    key = parse_sticky_key(record.spec.sticky_key)
    if key is None or key.ordinal is None:
        return None
    if key.set_uid:
        return sets.get(key.set_uid)
    wanted = f"{key.namespace}/{key.name}"
    return next((found for found in sets.values() if found.metadata.key == wanted), None)


def _holders_of_sticky_keys(records: Sequence[IpEndpoint]) -> dict[tuple[str, str, int], IpEndpoint]:
    """Find the one record that holds each sticky key: the bound one, else the one written last."""
    holders: dict[tuple[str, str, int], IpEndpoint] = {}
    for record in records:
        if record.spec.sticky_key:
            slot = _sticky_slot(record)
            holders[slot] = max(holders.get(slot, record), record, key=_strength)
    return holders


def _strength(record: IpEndpoint) -> tuple[bool, int]:
    return not record_states.is_retained(record), record.metadata.version


def _sticky_slot(record: IpEndpoint) -> tuple[str, str, int]:
    try:
        version: int = record.address.version
    except InvalidRange:
        version = 0
    return record.spec.sticky_key, record.spec.interface, version
