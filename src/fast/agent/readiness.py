"""The node's readiness conditions: named reasons why it can or cannot take pods. Used by ADD, STATUS and /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from fast.cni import UnmetConditions

log = structlog.get_logger()


class Readiness:
    """Named readiness conditions, each met or not. The node is ready if every one is met."""

    def __init__(self, *conditions: str) -> None:
        """Start with every named condition unmet."""
        self._names = set(conditions)
        self._unmet = {name: UnmetConditions("not checked yet") for name in conditions}
        self._ready = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` each time a condition becomes met, or unmet for another reason."""
        self._subscribers.append(changed)

    def _tell(self) -> None:
        for changed in self._subscribers:
            changed()

    def met(self, condition: str) -> None:
        """Record that the condition is met."""
        self._names.add(condition)
        if self._unmet.pop(condition, None) is not None:
            log.info("readiness condition met", condition=condition, left=sorted(self._unmet))
            self._tell()
        if not self._unmet:
            self._ready.set()

    def missing(
        self, condition: str, reason: str, *, limited_connectivity: bool = False, allows_add: bool = False
    ) -> None:
        """Record that the condition is not met, or no longer.

        Args:
            condition: Its name.
            reason: For people.
            limited_connectivity: Running pods may be cut off, too.
            allows_add: An ADD is still tried: its own result is the best test.
        """
        self._names.add(condition)
        unmet = UnmetConditions(reason, limited_connectivity, allows_add)
        before, self._unmet[condition] = self._unmet.get(condition), unmet
        self._ready.clear()
        if before != unmet:
            log.warning("readiness condition not met", condition=condition, reason=reason)
            self._tell()

    def unmet(self, besides: str = "") -> UnmetConditions | None:
        """Return all unmet conditions as one, apart from ``besides``; None if there is none."""
        unmet = [
            replace(item, reason=f"{name}: {item.reason}")
            for name, item in sorted(self._unmet.items())
            if name != besides
        ]
        if not unmet:
            return None
        return UnmetConditions(
            "; ".join(item.reason for item in unmet),
            limited_connectivity=any(item.limited_connectivity for item in unmet),
            allows_add=all(item.allows_add for item in unmet),
        )

    def states(self) -> dict[str, str]:
        """Return every condition by name: why it is not met, or "" if it is."""
        return {name: self._unmet[name].reason if name in self._unmet else "" for name in sorted(self._names)}

    async def wait(self) -> None:
        """Wait until every condition is met."""
        await self._ready.wait()
