"""What was found otherwise than it should be and put right: the words for it. No looking and no mending here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RepairKind(StrEnum):
    """What was mended; the label of the agent's repair metric."""

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
    """One thing that was put right. ``detail`` says in words what it was and is."""

    kind: RepairKind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"
