"""What an eBPF object consists of, as data: programs, maps, their sizes and layouts. Nothing here touches the kernel.

Spec (here) → Object (``objects``, in the kernel) → Link (``links``, attached) are three types on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from fast.datapath.bpf.generated import MAPS
from fast.datapath.bpf.layout import Config
from fast.datapath.bpf.map_spec import MapSpec

OBJECTS = Path(__file__).parent / "objects"


class Direction(IntEnum):
    """A device's two tc hooks, or the stack's netfilter hooks; the values are the kernel's ``enum bpf_attach_type``."""

    NETFILTER = 45
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


#: What their entries are worth to a successor, if it differs from all others.
_UNLIKE_OTHERS: dict[str, dict[str, Any]] = {
    "fast_next_hops": {"migrated": False},
    "fast_events": {"migrated": False},
    "fast_event_budgets": {"migrated": False},
    "fast_flow_table": {"replaces": "fast_flows"},
}

FROM_POD = "fast_from_pod"
TO_POD = "fast_to_pod"
AFTER_NAT = "fast_after_nat"
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
    maps=tuple(replace(spec, **_UNLIKE_OTHERS.get(name, {})) for name, spec in MAPS.items()),
)

#: NetworkPolicy on the stack path. It uses the pinned maps of DATAPATH, which is to be installed first.
POLICY = ObjectSpec(
    path=OBJECTS / "policy.bpf.o",
    programs=(
        ProgramSpec(AFTER_NAT, Direction.NETFILTER, "in the stack, after DNAT and before SNAT: policy"),
    ),
    maps=DATAPATH.maps,
)
