"""The controller's circuit breaker: holds back suspicious groups of causes until several sweeps agree. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from fast.ipam.rules import breaker
from fast.ipam.rules.breaker import Cause

_MOST_NAMED = 5


class CircuitBreaker:
    """Remembers, from sweep to sweep, how many in a row saw each suspicious cause.

    Groups of different kinds do not hold each other back, and nothing that is not in a suspicious group is held.
    """

    def __init__(self) -> None:
        self._seen: dict[Cause, int] = {}

    def judge(self, gone: Mapping[Cause, int], there: Mapping[str, int], total: int) -> dict[Cause, str]:
        """Judge one sweep.

        Args:
            gone: What is gone, and how many records that frees.
            there: How many of each kind the API server listed.
            total: How many records there are.

        Returns:
            The causes whose records must stay for now, and for each what it waits for.
        """
        held: dict[Cause, str] = {}
        seen: dict[Cause, int] = {}
        room = max(breaker.RECORDS_A_SWEEP, int(breaker.RECORDS_SHARE * total))
        for kind in sorted({cause.kind for cause in gone}):
            group = sorted(cause for cause in gone if cause.kind == kind)
            if not breaker.is_suspicious(kind, len(group), there.get(kind, 0)):
                continue
            for cause in group:
                seen[cause] = self._seen.get(cause, 0) + 1
            agreed = [cause for cause in group if seen[cause] >= breaker.SWEEPS_TO_AGREE]
            fewest = min(seen[cause] for cause in group)
            why = _text(group, there.get(kind, 0), sum(gone[cause] for cause in group), fewest)
            for cause in group:
                if cause not in agreed or (gone[cause] > room and cause != agreed[0]):
                    held[cause] = why
                else:
                    room = max(0, room - gone[cause])
        self._seen = seen
        return held


def _text(group: list[Cause], there: int, records: int, sweeps: int) -> str:
    names = ", ".join(cause.name for cause in group[:_MOST_NAMED])
    more = f" and {len(group) - _MOST_NAMED} more" if len(group) > _MOST_NAMED else ""
    held = (
        f"held until {breaker.SWEEPS_TO_AGREE} sweeps in a row agree ({sweeps} so far)"
        if sweeps < breaker.SWEEPS_TO_AGREE
        else "freed a few in each sweep from now on, as the sweeps agree"
    )
    return (
        f"{len(group)} of {len(group) + there} {group[0].kind}s are gone at once ({names}{more}): "
        f"their {records} addresses are {held}"
    )
