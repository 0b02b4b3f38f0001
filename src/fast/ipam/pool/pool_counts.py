"""How many addresses of a pool are in which state. One meaning for agents, controller and fast-ctl."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """The states of a pool's addresses.

    Attributes:
        size: Addresses that the pool may give out.
        bound: Records of this pool that an attachment holds, also outside its ranges.
        retained: Records of this pool that are kept for a sticky key, also outside its ranges.
        free: Addresses of its ranges that have no record of any pool.
        cooling: Free ones that this process saw released less than ``releaseDelaySeconds`` ago.
    """

    size: int
    bound: int
    retained: int
    free: int
    cooling: int = 0

    @property
    def available(self) -> int:
        """Free addresses that do not cool: an ADD may get one now."""
        return self.free - self.cooling

    @property
    def taken(self) -> int:
        """Addresses of the ranges that have a record, of this pool or another."""
        return self.size - self.free

    def __str__(self) -> str:
        parts = [f"{self.bound} bound", f"{self.retained} retained", f"{self.cooling} cooling"]
        if (others := self.taken - self.bound - self.retained) > 0:
            parts.append(f"{others} recorded for other pools")
        return f"{self.size} addresses: {', '.join(parts)}, {self.available} available"
