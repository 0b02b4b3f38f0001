"""Counts repairs on this node. Detection and repair are elsewhere."""

from __future__ import annotations

from prometheus_client import Counter

from fast.datapath.repair import RepairKind

_REPAIRS = Counter(
    "fast_datapath_repairs", "What was not as it should be and was repaired, by kind.", ["kind"]
)


def count_repairs(kind: RepairKind, number: int = 1) -> None:
    """Count repairs of a kind."""
    _REPAIRS.labels(kind).inc(number)
