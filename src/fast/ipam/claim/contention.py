"""How far an agent steps aside for others that claim from the same pool at the same time.

Every agent sees the same lowest available address. An agent that claims alone takes it. If others claim too, each
chooses at random among the lowest few. Their number grows fast with each collision, and shrinks slowly with time and
with each claim without a collision. The first collision after a quiet time leads to the next address, so that two pods
on two nodes get the two lowest ones.
"""

from __future__ import annotations

import random

# Chosen by simulating 2 and 32 agents with views that lag by 10 to 300 ms: at most 1.15 writes a claim with room,
# 1.2 in a pool exactly as large as the demand.
_WIDEST = 4096.0
_GROWTH_FIRST = 1.9
_GROWTH_AGAIN = 16.0
_SHRINK_PER_CLAIM = 0.99
_HALF_LIFE_SECONDS = 4.0


class Contention:
    """The width of the choice in one pool.

    Args:
        rng: The source of randomness.
    """

    __slots__ = ("_rng", "_touched_at", "width")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._touched_at = 0.0
        self.width = 1.0

    def skip(self, now: float, collisions: int) -> int:
        """Choose how many free addresses to leave to others.

        Args:
            now: Monotonic seconds.
            collisions: How many this claim has met so far.
        """
        if collisions == 0:
            quiet_seconds = max(0.0, now - self._touched_at)
            self.width = max(1.0, self.width * 0.5 ** (quiet_seconds / _HALF_LIFE_SECONDS))
        self._touched_at = now
        return self._rng.randrange(int(self.width))

    def collided(self, collisions: int) -> None:
        """Widen: the claim met its ``collisions``-th collision."""
        growth = _GROWTH_FIRST if collisions == 1 else _GROWTH_AGAIN
        self.width = min(_WIDEST, self.width * growth)

    def claimed(self, collisions: int) -> None:
        """Narrow, if the claim met no collision."""
        if collisions == 0:
            self.width = max(1.0, self.width * _SHRINK_PER_CLAIM)
