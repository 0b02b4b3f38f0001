"""Writes this node's FastNode: what the node is, whether it is ready, how many pods it has, and its problems.

The only writer of that object. Readiness and changed specs are written at once, the rest at most every STATUS_SECONDS,
as every agent of the cluster gets each write. What the problems are is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from fast.agent.readiness import Readiness
from fast.api.fastnode import MOST_PROBLEMS, FastNode, FastNodeSpec, FastNodeStatus, NodeProblem
from fast.api.meta import Condition, ObjectMeta
from fast.api.resources import FASTNODES
from fast.api.timestamps import now_text
from fast.errors import Conflict, FastError, NotFound
from fast.kube import KubeClient

log = structlog.get_logger()

#: Between two writes of what changes all the time: the number of pods, and problems.
STATUS_SECONDS = 60.0
_GATHER_SECONDS = 0.05
_RETRY_SECONDS = 2.0

_READY = "Ready"
_LONGEST_MESSAGE = 4096


class FastNodeWriter:
    """Keeps the node's FastNode as this process says."""

    def __init__(
        self,
        client: KubeClient,
        name: str,
        find: Callable[[str], FastNode | None],
        readiness: Readiness,
        *,
        spec: Callable[[], FastNodeSpec],
        pods: Callable[[], int],
        problems: Callable[[], Sequence[NodeProblem]],
        status_seconds: float = STATUS_SECONDS,
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            client: Speaks to the server.
            name: The node's.
            find: Gives the FastNode of a name as last seen, with its status.
            readiness: The node's readiness conditions; changes of them wake this.
            spec: Gives what the node is now.
            pods: Gives the number of its pods now.
            problems: Gives its problems now, the worst first.
            status_seconds: Between two writes of pods and problems.
        """
        self._client = client
        self._name = name
        self._find = find
        self._readiness = readiness
        self._spec = spec
        self._pods = pods
        self._problems = problems
        self._status_seconds = status_seconds
        self._wake = asyncio.Event()
        self._status_due = 0.0
        self._written: FastNode | None = None
        readiness.subscribe(self._wake.set)

    def wake(self) -> None:
        """Look soon whether something has to be written."""
        self._wake.set()

    def changed(self, new: FastNode | None) -> None:
        """Take note of the node's own FastNode as the server has it: whoever else changed it is overruled."""
        if new is None or self._written is None or new.metadata.version >= self._written.metadata.version:
            self._written = new
            self._wake.set()

    async def run(self) -> None:
        """Write until cancelled. What fails is tried again."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            wait = self._status_seconds
            try:
                await self._ensure(loop.time())
            except Conflict:
                wait = _GATHER_SECONDS  # the informer brings the newer version
            except FastError as error:
                log.warning("FastNode cannot be written", error=str(error))
                wait = _RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            await asyncio.sleep(_GATHER_SECONDS)

    async def _ensure(self, now: float) -> None:
        found = await self._ensure_spec()
        before = found.status if found.status else FastNodeStatus()
        wanted = self._status(before.conditions)
        if wanted == before:
            return
        urgent = _essence(wanted.conditions) != _essence(before.conditions)
        if not urgent and now < self._status_due:
            return
        patch = {"status": msgspec.to_builtins(wanted)}
        try:
            self._written = await self._client.patch(FASTNODES, self._name, patch, subresource="status")
        except NotFound:
            self._written = None
            raise
        self._status_due = now + self._status_seconds

    async def _ensure_spec(self) -> FastNode:
        """Create the object or replace its spec, if needed; gives it as the server has it."""
        spec = self._spec()
        found = self._written or self._find(self._name)
        if found is not None and not spec.addresses:
            # before the datapath is up: others go on with the addresses that its programs still serve
            spec = msgspec.structs.replace(found.spec, version=spec.version)
        if found is None:
            made = FastNode(metadata=ObjectMeta(name=self._name), spec=spec)
            try:
                found = await self._client.create(FASTNODES, made)
            except Conflict:
                found = await self._client.get(FASTNODES, self._name)
            else:
                log.info("FastNode created", addresses=spec.addresses)
        if found.spec != spec:
            log.info("FastNode changes", addresses=spec.addresses, before=found.spec.addresses)
            changed = FastNode(metadata=found.metadata, spec=spec)
            try:
                found = await self._client.update(FASTNODES, changed)
            except (Conflict, NotFound):
                self._written = None
                raise
        self._written = found
        return found

    def _status(self, before: Iterable[Condition]) -> FastNodeStatus:
        problems = list(self._problems())
        return FastNodeStatus(
            conditions=_conditions(self._readiness.states(), before),
            pod_count=self._pods(),
            problem_count=len(problems),
            problems=problems[:MOST_PROBLEMS],
        )


def _conditions(found: Mapping[str, str], before: Iterable[Condition]) -> list[Condition]:
    """Make the conditions; the times of those whose status stays are kept.

    Args:
        found: The readiness conditions by name: empty if met, else why not.
        before: The conditions so far.
    """
    known = {condition.type: condition for condition in before}
    unmet = {name: reason for name, reason in found.items() if reason}
    summary = "; ".join(f"{name}: {reason}" for name, reason in sorted(unmet.items()))
    items: list[tuple[str, str, str]] = [(_READY, "" if not unmet else "ConditionsUnmet", summary)]
    items += [(_camel(name), "" if not reason else "Unmet", reason) for name, reason in sorted(found.items())]
    made = []
    for kind, why_not, message in items:
        status = "False" if why_not else "True"
        old = known.get(kind)
        since = old.last_transition_time if old is not None and old.status == status else now_text()
        made.append(
            Condition(
                type=kind,
                status=status,
                reason=why_not or "Met",
                message=message[:_LONGEST_MESSAGE],
                last_transition_time=since,
            )
        )
    return made


def _essence(conditions: Iterable[Condition]) -> set[tuple[Any, ...]]:
    return {(item.type, item.status, item.reason) for item in conditions}


def _camel(name: str) -> str:
    """Spell a readiness condition as Kubernetes spells conditions: ``api-server`` as ``ApiServer``."""
    return "".join(part.capitalize() for part in name.split("-"))


def lean(own: str, node: FastNode) -> FastNode:
    """Drop the status of other nodes' FastNodes: 5,000 of them would take their memory."""
    return node if node.metadata.name == own else FastNode(metadata=node.metadata, spec=node.spec)


def settings_problems(own: str, nodes: Iterable[FastNode]) -> list[NodeProblem]:
    """Name the nodes whose routing, tunnel port or VNI differs from this node's: no packet passes between them.

    Args:
        own: This node.
        nodes: Every FastNode.
    """
    everybody = {node.metadata.name: node.spec for node in nodes if node.spec.addresses}
    mine = everybody.get(own)
    if mine is None:
        return []
    found = []
    for what, read in _SETTINGS.items():
        others = sorted(name for name, spec in everybody.items() if read(spec) != read(mine))
        if not others:
            continue
        shown = ", ".join(f"{name} ({read(everybody[name])})" for name in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""  # noqa: PLR2004 -- as many as are shown
        found.append(
            NodeProblem(
                check="tunnel-settings",
                severity="error",
                problem=f"{what} is {read(mine)} here, but differs on {shown}{more}: pods do not reach each other",
                remedy="give every agent of the cluster the same options, and restart those that differ",
            )
        )
    return found


_SETTINGS: dict[str, Callable[[FastNodeSpec], Any]] = {
    "routing": lambda spec: spec.routing,
    "the tunnel's port": lambda spec: spec.tunnel.port,
    "the tunnel's VNI": lambda spec: spec.tunnel.vni,
}
