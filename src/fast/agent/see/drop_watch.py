"""Tells pods by Events that packets of theirs are dropped, and exports how many, by pod and reason.

The numbers are differences of the kernel's exact counts between two looks, so a storm costs no more than a trickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter

from fast.agent.see.holders import Holder
from fast.agent.see.traffic_event import EventNamer, reason_name, reason_text
from fast.api.core import ObjectReference
from fast.datapath.bpf.layout import DropCount, DropKey
from fast.datapath.bpf.reasons import Reason

#: Pods that the metric names; packets of further ones count under ``other``.
MOST_PODS = 200
OTHER = "other"
#: A pod gets one Event in this time at most.
EVENT_SECONDS = 60.0
#: Healthy pods send these: multicast DNS, router solicitations.
_NO_EVENT = frozenset({Reason.DROP_NOT_UNICAST})

Tell = Callable[[ObjectReference, str], None]


@dataclass(slots=True)
class DeviceDrops:
    """What was dropped at one device since the last look.

    Attributes:
        by_reason: Packets by the reason's number.
        worst: What most packets have in common, of those worth an Event; None if there are none.
        worst_packets: How many those are.
        last_ns: When the last packet was dropped (CLOCK_MONOTONIC).
    """

    by_reason: dict[int, int] = field(default_factory=dict)
    worst: DropKey | None = None
    worst_packets: int = 0
    last_ns: int = 0

    def add(self, key: DropKey, packets: int, last_ns: int) -> None:
        """Add packets of one group."""
        self.by_reason[key.reason] = self.by_reason.get(key.reason, 0) + packets
        self.last_ns = max(self.last_ns, last_ns)
        if key.reason not in _NO_EVENT and packets > self.worst_packets:
            self.worst, self.worst_packets = key, packets


class DropWatch:
    """Looks at the counts now and then: :meth:`fresh` in any one thread, :meth:`tell` in the event loop.

    Args:
        namer: Names the pod of a device.
        tell: Writes a Warning Event ``PacketsDropped`` with a message about a pod.
        clock_ns: CLOCK_MONOTONIC.
        registry: Where the metric is registered.
    """

    def __init__(
        self, namer: EventNamer, tell: Tell, clock_ns: Callable[[], int], registry: CollectorRegistry
    ) -> None:
        self._namer = namer
        self._tell = tell
        self._clock_ns = clock_ns
        self._seen: Mapping[DropKey, DropCount] | None = None
        self._told: dict[Holder, float] = {}
        self._named: set[Holder] = set()
        self._packets = Counter(
            "fast_pod_dropped_packets",
            "Packets dropped at the interfaces of this node's pods.",
            ("namespace", "pod", "reason"),
            registry=registry,
        )

    def fresh(self, counts: Mapping[DropKey, DropCount]) -> dict[int, DeviceDrops]:
        """Return what was dropped since the last call, by device; nothing at the first call.

        Args:
            counts: As ``fast_drops`` has them.
        """
        seen, self._seen = self._seen, counts
        found: dict[int, DeviceDrops] = {}
        if seen is None:  # what an earlier agent has told of
            return found
        for key, count in counts.items():
            before = seen.get(key)
            # an entry that was evicted and made again starts from zero
            packets = count.packets - (before.packets if before and before.first_ns == count.first_ns else 0)
            if packets > 0:
                found.setdefault(key.ifindex, DeviceDrops()).add(key, packets, count.last_ns)
        return found

    def tell(self, fresh: Mapping[int, DeviceDrops]) -> None:
        """Count packets by pod, and write Events."""
        for ifindex, drops in fresh.items():
            pod = self._namer.pod_of_device(ifindex, drops.last_ns)
            if pod is not None:
                self._count(pod, drops)
                self._tell_pod(pod, drops)

    def _count(self, pod: Holder, drops: DeviceDrops) -> None:
        if pod in self._named or len(self._named) < MOST_PODS:
            self._named.add(pod)
            namespace, name = pod.namespace, pod.name
        else:
            namespace = name = OTHER
        for reason, packets in drops.by_reason.items():
            self._packets.labels(namespace, name, reason_name(reason)).inc(packets)

    def _tell_pod(self, pod: Holder, drops: DeviceDrops) -> None:
        now = self._clock_ns() / 1e9
        if drops.worst is None or now - self._told.get(pod, float("-inf")) < EVENT_SECONDS:
            return
        self._told = {other: at for other, at in self._told.items() if now - at < EVENT_SECONDS}
        self._told[pod] = now
        about = ObjectReference(
            kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid, api_version="v1"
        )
        self._tell(about, drop_message(drops.worst))


def drop_message(key: DropKey) -> str:
    """Say in a sentence what was dropped. It names no numbers that change, so that the same Event counts up."""
    port = f" port {key.destination_port}" if key.destination_port else ""
    return (
        f"packets from {key.source} to {key.destination}{port} are dropped: the packet {reason_text(key.reason)}"
        f" ({reason_name(key.reason)}). More: fast-ctl drops"
    )
