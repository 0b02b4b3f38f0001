"""Looks for problems of this node every minute: Events for what changes, a metric, and the list for the FastNode."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container
from typing import Protocol

import structlog
from prometheus_client import Gauge

from fast.agent.node.node_checks import Severity
from fast.api.fastnode import NodeProblem
from fast.api.ips import ANNOTATION_POOLS, DEFAULT_POOL

log = structlog.get_logger()

_FIRST_SECONDS = 5.0

_PROBLEMS = Gauge("fast_problem", "Problems of this node at the last look, by check.", ["check", "severity"])


class TellNode(Protocol):
    """Records an Event on this Node."""

    def __call__(self, reason: str, message: str, *, normal: bool = False) -> None:
        """Record it; ``normal`` for good news."""


class ProblemWatch:
    """The loop.

    Args:
        examine: Finds the problems of the machine. Blocking; called in a thread.
        more: Finds those that the API server's objects show. Called in the event loop.
        tell: Told about each problem that comes or goes.
        changed: Called after the problems changed.
        interval_seconds: Between two looks.

    Attributes:
        problems: Those of the last look, errors first.
    """

    def __init__(
        self,
        examine: Callable[[], list[NodeProblem]],
        more: Callable[[], list[NodeProblem]],
        tell: TellNode,
        *,
        changed: Callable[[], None] = lambda: None,
        interval_seconds: float = 60.0,
    ) -> None:
        self._examine = examine
        self._more = more
        self._tell = tell
        self._changed = changed
        self._interval_seconds = interval_seconds
        self.problems: tuple[NodeProblem, ...] = ()

    async def run(self) -> None:
        """Look for ever; at first when an agent that starts has done what it does at a start."""
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            await self.look()
            await asyncio.sleep(self._interval_seconds)

    async def look(self) -> None:
        """Look once, and tell what changed."""
        both = [*await asyncio.to_thread(self._examine), *self._more()]
        found = tuple(sorted(both, key=lambda problem: problem.severity != Severity.ERROR))
        before, self.problems = self.problems, found
        _PROBLEMS.clear()
        for (check, severity), number in Counter((item.check, item.severity) for item in found).items():
            _PROBLEMS.labels(check, severity).set(number)
        for problem in found:
            if problem not in before:
                log.warning("problem found", **_as_fields(problem))
                self._tell("NodeProblem", f"{problem.check}: {problem.problem}. To do: {problem.remedy}")
        for problem in before:
            if problem not in found:
                log.info("problem gone", **_as_fields(problem))
                self._tell(
                    "NodeProblemGone", f"{problem.check}: no longer true: {problem.problem}", normal=True
                )
        if found != before:
            self._changed()


def _as_fields(problem: NodeProblem) -> dict[str, str]:
    return {
        "check": problem.check,
        "severity": problem.severity,
        "problem": problem.problem,
        "remedy": problem.remedy,
    }


def missing_pool_problems(pools: Container[str]) -> list[NodeProblem]:
    """Name the default pool if there is none: pods without an annotation get no address."""
    if DEFAULT_POOL in pools:
        return []
    return [
        NodeProblem(
            check="default-pool",
            severity=Severity.WARNING.value,
            problem=f"there is no Ips {DEFAULT_POOL}: pods without the annotation {ANNOTATION_POOLS} get no address",
            remedy="create it, unless every pod names its pool (docs/use/pools.md)",
        )
    ]
