"""Every verdict of the eBPF programs by name, and its place in ``fast_metrics``. The lists are in bpf/lib/reasons.h."""

from __future__ import annotations

from fast.datapath.bpf.generated import DIRECTION_SLOTS, REASON_SLOTS, PacketDirection, Reason

__all__ = ["DIRECTION_SLOTS", "METRIC_SLOTS", "REASON_SLOTS", "PacketDirection", "Reason", "metric_index"]

METRIC_SLOTS = REASON_SLOTS * DIRECTION_SLOTS


def metric_index(reason: Reason, direction: PacketDirection) -> int:
    """Return the index into ``fast_metrics``."""
    return reason * DIRECTION_SLOTS + direction
