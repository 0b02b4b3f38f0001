"""One sweep of the controller's garbage collection: plan it from live reads, then carry it out by single writes.

``rules`` decides about each record; here is the order of the reads, what the breaker is asked, and the writing. The
controller runs sweeps, ``fast-ctl ipam gc`` shows and runs them, ``fast-ctl ipam why`` explains with the same
findings. A record that cannot be judged or freed never stops the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from fast.api.core import Node, Pod, StatefulSet
from fast.api.fastnode import SILENT_SECONDS
from fast.api.ipendpoint import IpEndpoint
from fast.api.meta import ObjectMeta
from fast.errors import Conflict, FastError, InvalidRange, NotFound, Unavailable
from fast.ipam.release.circuit_breaker import CircuitBreaker
from fast.ipam.rules import breaker, controller_gc_rules, record_states
from fast.ipam.rules.breaker import Cause, cause_of
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.sticky_keys import parse_sticky_key
from fast.ipam.store.live_reads import ClusterReader
from fast.ipam.store.record_store import Store
from fast.ipam.store.record_writes import Writes

log = structlog.get_logger()

#: After so many answers in a row that did not come, the API server counts as away, and the sweep ends.
_MOST_UNANSWERED = 3


_NOTHING: Mapping[str, Decision] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Finding:
    """A record, and what a sweep decided about it."""

    record: IpEndpoint
    decision: Decision


@dataclass(slots=True)
class SweepPlan:
    """What a sweep would free and why.

    Attributes:
        to_free: What is to be freed.
        kept: What stays.
        held: The part of ``kept`` that the breaker holds back, with what it waits for as the evidence.
        total: Every record looked at.
        look_again_seconds: When a node that is gone will have been silent for long enough; None if none waits.
    """

    to_free: list[Finding] = field(default_factory=list)
    kept: list[Finding] = field(default_factory=list)
    held: list[Finding] = field(default_factory=list)
    total: int = 0
    look_again_seconds: float | None = None


@dataclass(slots=True)
class Outcome:
    """What came of a plan: the records freed, and those that could not be, each with the error."""

    freed: list[Finding] = field(default_factory=list)
    refused: list[tuple[IpEndpoint, FastError]] = field(default_factory=list)


async def plan_sweep(
    records: Iterable[IpEndpoint],
    cluster: ClusterReader,
    circuit_breaker: CircuitBreaker | None = None,
    more: Mapping[str, Decision] = _NOTHING,
) -> SweepPlan:
    """Decide about every record.

    Records come first and everything else is read after them, live: what was made in between can then only save a
    record, never condemn one (race: stale-pod-list). Most cost no request of their own: a node that is there
    answers for its records.

    Args:
        records: All of the cluster, as read before this call.
        cluster: Live reads.
        circuit_breaker: Holds back suspicious groups; None: nothing is held back.
        more: What ``retention`` decided about retained records that would stay otherwise, by name.

    Raises:
        KubeError: Nodes, StatefulSets or pools could not be listed; then nothing is decided.
    """
    known = list(records)
    plan = SweepPlan(total=len(known))
    nodes = await cluster.nodes()
    retained = any(map(record_states.is_retained, known))
    sets = await cluster.stateful_sets() if retained else {}
    # Live, too: a view that lags behind does not know the pool of a record that is newer.
    pools = await cluster.pools() if retained else {}
    holders = _holders_of_sticky_keys(known)
    there = {breaker.NODE: len(nodes), breaker.STATEFUL_SET: len(sets), breaker.POOL: len(pools)}
    decided = [
        _on_retained(record, sets, pools, holders) if record_states.is_retained(record) else None
        for record in known
    ]
    decided = [
        more.get(record.metadata.name, decision)
        if decision is not None and not decision.frees and record_states.is_retained(record)
        else decision
        for record, decision in zip(known, decided, strict=True)
    ]
    held: dict[Cause, str] = {}
    if circuit_breaker is not None:
        held = circuit_breaker.judge(_gone(known, decided, nodes), there, plan.total)
    for record, of_retained in zip(known, decided, strict=True):
        decision = of_retained or await _on_bound(record, nodes.get(record.spec.node), cluster, plan, held)
        cause = cause_of(record, decision)
        if decision.frees and cause in held:
            decision = Decision(Action.KEEP, "held-by-breaker", held[cause])
        finding = Finding(record, decision)
        (plan.to_free if decision.frees else plan.kept).append(finding)
        if decision.rule == "held-by-breaker":
            plan.held.append(finding)
    return plan


def _gone(
    records: Sequence[IpEndpoint], decided: Sequence[Decision | None], nodes: Mapping[str, Node]
) -> Counter[Cause]:
    """Count the records by what is gone. Bound ones count by their node, before any pod is asked for."""
    gone: Counter[Cause] = Counter()
    for record, decision in zip(records, decided, strict=True):
        if decision is None:
            cause = None if record.spec.node in nodes else Cause(breaker.NODE, record.spec.node)
        else:
            cause = cause_of(record, decision)
        if cause is not None:
            gone[cause] += 1
    return gone


async def carry_out(
    plan: SweepPlan, store: Store, cluster: ClusterReader, freed: Callable[[Finding], None]
) -> Outcome:
    """Free what the plan says, each record by one write, after its node was asked for once more.

    Args:
        plan: What to free.
        store: Where to write.
        cluster: Live reads.
        freed: Told of each record freed.

    Returns:
        What was freed, and what was refused; records that changed since the plan was made are left alone.

    Raises:
        Unavailable: The API server is away: several answers in a row did not come. The next sweep goes on.
    """
    outcome, writes, unanswered = Outcome(), Writes(store), 0
    for finding in plan.to_free:
        record = finding.record
        try:
            done = await _free(finding, writes, cluster)
        except FastError as error:
            log.warning("address not freed", address=record.metadata.name, error=str(error))
            outcome.refused.append((record, error))
            unanswered = unanswered + 1 if isinstance(error, Unavailable) else 0
            if unanswered >= _MOST_UNANSWERED:
                raise
            continue
        unanswered = 0
        if done is not None:
            outcome.freed.append(done)
            freed(done)
    return outcome


async def _free(finding: Finding, writes: Writes, cluster: ClusterReader) -> Finding | None:
    """Free one record; None if it is to stay after all, or its owner was quicker."""
    record, decision = finding.record, finding.decision
    if not record_states.is_retained(record):
        decision = await _once_more(record, cluster)
    if not decision.frees:
        return None
    try:
        await writes.free(record)
    except (Conflict, NotFound):  # races: del-against-takeover, retained-and-rebound
        return None
    log.info("address freed", address=record.metadata.name, rule=decision.rule, evidence=decision.evidence)
    return Finding(record, decision)


async def _on_bound(
    record: IpEndpoint,
    node: Node | None,
    cluster: ClusterReader,
    plan: SweepPlan,
    held: Mapping[Cause, str],
) -> Decision:
    """Decide about a bound record; its pod is asked for only if its node does not answer for it."""
    if node is not None and not node.out_of_service:
        return controller_gc_rules.on_controller_sweep(record, None, node, 0.0)
    if node is None and (why := held.get(Cause(breaker.NODE, record.spec.node))):
        return Decision(Action.KEEP, "held-by-breaker", why)
    silent = cluster.silent_seconds(record.spec.node)
    try:
        decision = controller_gc_rules.on_controller_sweep(
            record, await pod_of(record, cluster), node, silent
        )
    except FastError as error:
        log.warning("record cannot be judged", address=record.metadata.name, error=str(error))
        return Decision(Action.KEEP, "cannot-tell", f"its pod cannot be read: {error}")
    if decision.rule == "node-beats":
        left = SILENT_SECONDS - silent
        plan.look_again_seconds = min(left, plan.look_again_seconds or left)
    return decision


async def pod_of(record: IpEndpoint, cluster: ClusterReader) -> Pod | None:
    """Read the pod that the record names; None if it is gone, or the record names none."""
    ref = record.spec.pod
    return await cluster.pod(ref.namespace, ref.name) if ref.namespace and ref.name else None


async def _once_more(record: IpEndpoint, cluster: ClusterReader) -> Decision:
    """Decide about a bound record before it is freed.

    The pod is asked for first: one that is gone stays gone, whereas a node that was fenced may come back, run pods,
    and lose one by force, between two reads.
    """
    pod = await pod_of(record, cluster)
    node = await cluster.node(record.spec.node)
    silent = cluster.silent_seconds(record.spec.node)
    return controller_gc_rules.on_controller_sweep(record, pod, node, silent)


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
        pool_deleted=pool is not None and pool.deletion_timestamp is not None,
        pool_gone=pool is None,
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
