"""The count of what was found other than it should be on this node, and mended. Finding and mending are others'."""

from __future__ import annotations

from prometheus_client import Counter

from fast.datapath.repair import RepairKind

_REPAIRS = Counter(
    "fast_datapath_repairs", "What was found other than it should be, and mended, by kind.", ["kind"]
)


def count_repairs(kind: RepairKind, number: int = 1) -> None:
    """Count repairs of a kind."""
    _REPAIRS.labels(kind).inc(number)
