"""The words for repairs. Detection and repair are elsewhere in fast.datapath."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RepairKind(StrEnum):
    """What was repaired; the label of the agent's repair metric."""

    SYSCTL = "sysctl"
    TUNNEL_DEVICE = "tunnel-device"
    PROGRAMS = "programs"
    PIN = "pin"
    LOCAL_DEV = "local-dev"
    ROUTE = "route"
    FIREWALL = "firewall"
    FORWARD_POLICY = "forward-policy"
    ENDPOINT = "endpoint"
    CLUSTER_ENTRY = "cluster-entry"
    STALE_ENTRY = "stale-entry"


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair. ``detail`` says what differed and what was done."""

    kind: RepairKind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"
