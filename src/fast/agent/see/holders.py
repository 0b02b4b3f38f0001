"""Who held an address at a given moment. An address changes hands, and an event is told after it happened.

Only changes are remembered, for an hour: who holds an address now is read from the records themselves, so that 100,000
addresses cost nothing here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fast.api.ipendpoint import IpEndpoint
from fast.net import IPAddress, record_name

KEPT_NS = 3600 * 10**9
#: Changes that are remembered at most; the oldest go first.
MOST_CHANGES = 65_536


@dataclass(frozen=True, slots=True)
class Holder:
    """A pod that an address was held for, and the pod's node; the node is empty if the address was retained."""

    namespace: str
    name: str
    uid: str
    node: str

    def __str__(self) -> str:
        """Name it as people do: ``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Change:
    time_ns: int
    record: str
    before: Holder | None
    after: Holder | None


class Holders:
    """Answers who held an address when.

    Args:
        records: The records of the cluster by name, as they are now.
        clock_ns: CLOCK_MONOTONIC in nanoseconds, as the eBPF programs stamp events.
        kept_ns: How long a change is remembered.
    """

    def __init__(
        self,
        records: Mapping[str, IpEndpoint],
        clock_ns: Callable[[], int],
        *,
        kept_ns: int = KEPT_NS,
    ) -> None:
        self._records = records
        self._clock_ns = clock_ns
        self._kept_ns = kept_ns
        self._changes: deque[_Change] = deque()
        self._by_record: dict[str, deque[_Change]] = {}

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> None:
        """Remember that a record appeared, changed, or went away. Changes that leave the holder are not kept."""
        before, after = holder_in(old), holder_in(new)
        known = old or new
        if known is None or before == after:
            return
        change = _Change(self._clock_ns(), known.metadata.name, before, after)
        self._changes.append(change)
        self._by_record.setdefault(change.record, deque()).append(change)
        self._forget(change.time_ns)

    def find(self, address: IPAddress, time_ns: int) -> Holder | None:
        """Give who held the address at that moment; None if nobody did, or if it is no pod's."""
        name = record_name(address)
        changes = tuple(self._by_record.get(name, ()))  # a copy, as other threads ask, too
        if not changes:
            return holder_in(self._records.get(name))
        found = changes[0].before
        for change in changes:
            if change.time_ns > time_ns:
                break
            found = change.after
        return found

    def _forget(self, now_ns: int) -> None:
        while self._changes and (
            len(self._changes) > MOST_CHANGES or now_ns - self._changes[0].time_ns > self._kept_ns
        ):
            gone = self._changes.popleft()
            of_record = self._by_record[gone.record]
            of_record.popleft()
            if not of_record:
                del self._by_record[gone.record]


def holder_in(record: IpEndpoint | None) -> Holder | None:
    """Give whom a record names; None if it names no pod."""
    if record is None or not record.spec.pod.name:
        return None
    pod = record.spec.pod
    return Holder(pod.namespace, pod.name, pod.uid, record.spec.node)
