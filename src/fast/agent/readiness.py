"""What stands in the way of taking pods, as named conditions; for ADD, STATUS, /readyz and the conflist."""

from __future__ import annotations

import asyncio

import structlog

from fast.cni import Blocker

log = structlog.get_logger()


class Readiness:
    """Named conditions, each met or not. The node is ready when every one is met."""

    def __init__(self, *conditions: str) -> None:
        """Begin with every named condition not met yet."""
        self._blockers: dict[str, Blocker] = {name: Blocker(f"{name}: not there yet") for name in conditions}
        self._ready = asyncio.Event()

    def met(self, condition: str) -> None:
        """Say that the condition holds."""
        if self._blockers.pop(condition, None) is not None:
            log.info("condition met", condition=condition, left=sorted(self._blockers))
        if not self._blockers:
            self._ready.set()

    def missing(
        self, condition: str, reason: str, *, limited_connectivity: bool = False, passing: bool = False
    ) -> None:
        """Say that the condition does not hold (any more).

        Args:
            condition: Its name.
            reason: For people.
            limited_connectivity: Pods that run may be cut off, too.
            passing: An ADD may still be tried: it tells best whether it works.
        """
        blocker = Blocker(f"{condition}: {reason}", limited_connectivity, passing)
        if self._blockers.get(condition) != blocker:
            log.warning("condition not met", condition=condition, reason=reason)
        self._blockers[condition] = blocker
        self._ready.clear()

    def blocker(self) -> Blocker | None:
        """Give everything that stands in the way as one blocker, or None."""
        if not self._blockers:
            return None
        blockers = [blocker for _, blocker in sorted(self._blockers.items())]
        return Blocker(
            "; ".join(blocker.reason for blocker in blockers),
            limited_connectivity=any(blocker.limited_connectivity for blocker in blockers),
            passing=all(blocker.passing for blocker in blockers),
        )

    async def wait(self) -> None:
        """Wait until every condition is met."""
        await self._ready.wait()
