"""What ``Ips.status`` says of a pool: counts and conditions, as a function of what is known. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import REASON_BEING_DELETED, Ips, IpsStatus
from fast.api.meta import Condition
from fast.ipam.pool.pool_counts import PoolCounts
from fast.net import AddressRange, IPAddress

READY = "Ready"
EXHAUSTED = "Exhausted"
#: True while pods hold addresses that the pool's ranges do not have any more.
ADDRESSES_OUTSIDE = "AddressesOutsideRanges"
#: True while the ranges hold addresses of nodes, which no pod gets.
ADDRESSES_RESERVED = "AddressesReserved"
#: True while the garbage collection is stopped by its circuit breaker.
GC_STOPPED = "GarbageCollectionStopped"

_MOST_IN_STATUS = (1 << 63) - 1
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class PoolState:
    """Everything that a pool's status follows from."""

    counts: PoolCounts
    problem: str = ""
    overlap: tuple[str, AddressRange] | None = None
    holders: Sequence[IpEndpoint] = ()
    outside: Sequence[IpEndpoint] = ()
    gc_stopped: str = ""
    reserved: Mapping[IPAddress, str] = field(default_factory=dict)

    @property
    def allocated(self) -> int:
        """Records of this pool, bound and retained, also outside its ranges."""
        return self.counts.bound + self.counts.retained


def status_of(pool: Ips, state: PoolState, now: str) -> IpsStatus:
    """Compute a pool's status.

    Args:
        pool: With the status it has: a condition that does not change keeps its ``lastTransitionTime``.
        state: What is known.
        now: RFC 3339, for conditions that change.
    """
    before = pool.status.conditions if isinstance(pool.status, IpsStatus) else []
    conditions = [_ready(pool, state), _exhausted(state)]
    if state.outside:
        conditions.append(_outside(state))
    if state.reserved:
        conditions.append(_reserved(state))
    if state.gc_stopped:
        conditions.append(_condition(GC_STOPPED, True, "MassDisappearance", state.gc_stopped))
    known = {condition.type: condition for condition in before}
    for condition in conditions:
        condition.observed_generation = pool.metadata.generation
        old = known.get(condition.type)
        same = old is not None and old.status == condition.status
        condition.last_transition_time = old.last_transition_time if old is not None and same else now
    return IpsStatus(
        total_ip_count=min(state.counts.size, _MOST_IN_STATUS),
        allocated_ip_count=state.allocated,
        retained_ip_count=state.counts.retained,
        free_ip_count=min(state.counts.free, _MOST_IN_STATUS),
        conditions=conditions,
    )


def holders_text(records: Iterable[IpEndpoint]) -> str:
    """Name who holds addresses, the first ten of them: ``pod default/web-0 (10.244.10.3), …``."""
    listed = list(records)
    named = [_holder(record) for record in listed[:_MOST_NAMED]]
    more = len(listed) - len(named)
    return ", ".join((*named, f"and {more} more")) if more else ", ".join(named)


def _holder(record: IpEndpoint) -> str:
    pod, address = record.spec.pod, record.metadata.name
    if not record.spec.container_id:
        return f"retained for pod {pod.namespace}/{pod.name} ({address})"
    if not pod.name:
        return f"sandbox {record.spec.container_id} ({address})"
    return f"pod {pod.namespace}/{pod.name} ({address})"


def _ready(pool: Ips, state: PoolState) -> Condition:
    if pool.metadata.deletion_timestamp is not None:
        held = f"waits for {state.allocated} addresses in use: {holders_text(state.holders)}"
        return _condition(READY, False, REASON_BEING_DELETED, f"no new addresses are given; {held}")
    if state.problem:
        return _condition(READY, False, "InvalidSpec", state.problem)
    if state.overlap is not None:
        other, shared = state.overlap
        return _condition(
            READY, False, "Overlap", f"addresses {shared} belong to pool {other}, too, which is older"
        )
    if state.counts.size and not state.counts.free:
        return _condition(READY, True, "Exhausted", f"all {state.counts.size} addresses are in use")
    return _condition(READY, True, "Ready", "")


def _exhausted(state: PoolState) -> Condition:
    counts = state.counts
    if counts.size and not counts.free:
        return _condition(EXHAUSTED, True, "NoFreeAddress", f"all {counts.size} addresses are in use")
    return _condition(EXHAUSTED, False, "FreeAddresses", "")


def _outside(state: PoolState) -> Condition:
    text = f"{len(state.outside)} addresses in use are no longer in the pool's ranges: {holders_text(state.outside)}"
    return _condition(ADDRESSES_OUTSIDE, True, "InUse", text)


def _reserved(state: PoolState) -> Condition:
    named = [f"{address} is {owner}'s" for address, owner in list(state.reserved.items())[:_MOST_NAMED]]
    more = len(state.reserved) - len(named)
    text = ", ".join((*named, f"and {more} more")) if more else ", ".join(named)
    return _condition(
        ADDRESSES_RESERVED,
        True,
        "NeverGiven",
        f"{len(state.reserved)} addresses of the ranges are never given to a pod: {text}",
    )


def _condition(kind: str, true: bool, reason: str, message: str) -> Condition:
    return Condition(type=kind, status="True" if true else "False", reason=reason, message=message)
