"""What an eBPF object consists of, as data: programs, maps, their sizes and layouts. Nothing here touches the kernel.

Spec (here) → Object (``objects``, in the kernel) → Link (``links``, attached) are three types on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

from fast.datapath.bpf.layout import (
    ClusterPod,
    Config,
    Event,
    Flow,
    FlowKey,
    LocalDev,
    LocalPod,
    Metric,
    NextHop,
)
from fast.datapath.bpf.reasons import METRIC_SLOTS

OBJECTS = Path(__file__).parent / "objects"


class MapType(IntEnum):
    """``enum bpf_map_type``, as far as Fast uses it."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    RINGBUF = 27


class Direction(IntEnum):
    """A device's two tc hooks; the values are ``BPF_TCX_INGRESS`` and ``BPF_TCX_EGRESS``."""

    INGRESS = 46
    EGRESS = 47

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class ProgramSpec:
    """A program: its name in the object, the hook it is for, and what it does."""

    name: str
    direction: Direction
    purpose: str


@dataclass(frozen=True)
class MapSpec:
    """A map of the object.

    Args:
        name: As in the object; pins are named so too.
        type: The kernel's map type.
        key: C struct of the key; empty where it is a plain u32 or there is none.
        value: C struct of the value, likewise.
        key_bytes: Size of a key; 0 for ring buffers.
        value_bytes: Size of a value.
        max_entries: How many fit; bytes for ring buffers.
        migrated: Whether entries move along to a successor of another size or layout.
    """

    name: str
    type: MapType
    key: str
    value: str
    key_bytes: int
    value_bytes: int
    max_entries: int
    migrated: bool = True


@dataclass(frozen=True)
class ObjectSpec:
    """A compiled object file, and what it has to contain."""

    path: Path
    programs: tuple[ProgramSpec, ...]
    maps: tuple[MapSpec, ...]
    config: Config | None = None
    config_symbol: str = field(default="fast_config")

    def map(self, name: str) -> MapSpec:
        """Give the map of that name; KeyError where there is none (a bug of the caller)."""
        return {spec.name: spec for spec in self.maps}[name]

    def program(self, name: str) -> ProgramSpec:
        """Give the program of that name; KeyError where there is none (a bug of the caller)."""
        return {spec.name: spec for spec in self.programs}[name]

    def configured(self, config: Config) -> ObjectSpec:
        """Give the same object with ``config`` to be loaded into its read-only data."""
        return replace(self, config=config)

    def sized(self, **max_entries: int) -> ObjectSpec:
        """Give the same object with other map sizes, by map name; KeyError for a name that no map has."""
        for name in max_entries:
            self.map(name)
        return replace(
            self,
            maps=tuple(
                replace(spec, max_entries=max_entries.get(spec.name, spec.max_entries)) for spec in self.maps
            ),
        )


_LOCAL_PODS = MapSpec(
    "fast_local_pods", MapType.HASH, "fast_addr", LocalPod.C_NAME, 16, LocalPod.FORMAT.size, max_entries=4096
)
_CLUSTER_PODS = MapSpec(
    "fast_cluster_pods",
    MapType.HASH,
    "fast_addr",
    ClusterPod.C_NAME,
    16,
    ClusterPod.FORMAT.size,
    max_entries=262_144,
)
_LOCAL_DEV = MapSpec(
    "fast_local_dev", MapType.ARRAY, "", LocalDev.C_NAME, 4, LocalDev.FORMAT.size, max_entries=8
)
_NEXT_HOPS = MapSpec(
    "fast_next_hops",
    MapType.PERCPU_ARRAY,
    "",
    NextHop.C_NAME,
    4,
    NextHop.FORMAT.size,
    max_entries=4096,
    migrated=False,
)
_FLOWS = MapSpec(
    "fast_flows",
    MapType.LRU_HASH,
    FlowKey.C_NAME,
    Flow.C_NAME,
    FlowKey.FORMAT.size,
    Flow.FORMAT.size,
    max_entries=262_144,
)
_METRICS = MapSpec(
    "fast_metrics", MapType.PERCPU_ARRAY, "", Metric.C_NAME, 4, Metric.FORMAT.size, max_entries=METRIC_SLOTS
)
_EVENTS = MapSpec("fast_events", MapType.RINGBUF, "", Event.C_NAME, 0, 0, max_entries=4 << 20, migrated=False)

FROM_POD = "fast_from_pod"
TO_POD = "fast_to_pod"
FROM_OVERLAY = "fast_from_overlay"
TO_OVERLAY = "fast_to_overlay"
FROM_UNDERLAY = "fast_from_underlay"

#: The data plane of a node.
DATAPATH = ObjectSpec(
    path=OBJECTS / "fast.bpf.o",
    programs=(
        ProgramSpec(FROM_POD, Direction.INGRESS, "host side of a pod's veth: what the pod sends"),
        ProgramSpec(TO_POD, Direction.EGRESS, "host side of a pod's veth: what the stack sends to the pod"),
        ProgramSpec(FROM_OVERLAY, Direction.INGRESS, "vxlan device: what other nodes send"),
        ProgramSpec(TO_OVERLAY, Direction.EGRESS, "vxlan device: what goes to other nodes"),
        ProgramSpec(
            FROM_UNDERLAY, Direction.INGRESS, "underlay NIC, native routing only: what other nodes send"
        ),
    ),
    maps=(_LOCAL_PODS, _CLUSTER_PODS, _LOCAL_DEV, _NEXT_HOPS, _FLOWS, _METRICS, _EVENTS),
)
