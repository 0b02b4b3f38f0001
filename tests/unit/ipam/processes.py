"""Agents and the controller of a simulated cluster: the real address management, in processes that can be killed.

Every request that a process sends waits until the test serves it, loses it, or loses its answer; so do the steps in
the kernel (``attach``, ``probe``). No rules of what may happen live here (``machine``), nor of what must hold
(``world``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fakes.store import FakeStore, Fate
from fast.api.core import Namespace, Node, Pod, StatefulSet
from fast.api.ipendpoint import PodRef
from fast.api.meta import ObjectMeta
from fast.errors import FastError, Unavailable
from fast.ipam import Attachment, Ipam, NodeIdentity, sweep
from fast.ipam.request import AttachmentKey

if TYPE_CHECKING:
    from unit.ipam.world import World

NAMESPACE = "default"


class Killed(BaseException):
    """kill -9: raised out of every await of a dead process, so that no handler of it does anything more."""


class Violation(AssertionError):
    """Something happened that must never."""


@dataclass(slots=True)
class Sandbox:
    """One interface of a pod's sandbox as the kernel has it; ``addresses`` are empty until it was wired."""

    container_id: str
    ifname: str
    pod: Pod
    addresses: tuple[str, ...] = ()
    exists: bool = True  # its network namespace
    was_missed: bool = False  # by a look at the kernel; once in its life at most
    miss_next: bool = False

    @property
    def key(self) -> AttachmentKey:
        return (self.container_id, self.ifname)


@dataclass
class SimNode:
    """A node: its kernel (sandboxes), its disk (tombstones), its runtime (deletions yet to be told), its agent."""

    name: str
    boot: int = 1
    powered: bool = True
    partitioned: bool = False
    sandboxes: dict[AttachmentKey, Sandbox] = field(default_factory=dict)
    tombstones: list[AttachmentKey] = field(default_factory=list)
    to_delete: list[AttachmentKey] = field(default_factory=list)
    agent: Agent | None = None

    @property
    def attached(self) -> list[Sandbox]:
        """Interfaces with an address on a running node."""
        return [item for item in self.sandboxes.values() if item.addresses] if self.powered else []


@dataclass(eq=False, slots=True)
class Request:
    """A request under way, or a step in the kernel."""

    process: Process
    verb: str
    name: str
    fate: asyncio.Future[Fate]


class Process:
    """A process that can be killed: its requests, its tasks."""

    def __init__(self, world: World, node: SimNode | None) -> None:
        self.world = world
        self.host = node
        self.dead = False
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.world.loop.create_task(self._guard(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (Killed, FastError):
            return
        except Violation as violation:
            self.world.violations.append(str(violation))
        except Exception as error:
            self.world.errors.append(error)

    def kill(self, *, sparing: Request | None = None) -> None:
        """Kill -9; the request spared has reached the API server, which serves it all the same."""
        self.dead = True
        for request in self.world.requests:
            if request.process is self and request is not sparing and not request.fate.done():
                request.fate.set_exception(Killed())
                request.fate.exception()

    def live(self) -> None:
        if self.dead:
            raise Killed

    async def gate(self, verb: str, name: str) -> Fate:
        """Send a request: wait until the test decides what becomes of it."""
        self.live()
        in_kernel = verb in {"attach", "probe"}
        if self.host is not None and self.host.partitioned and not in_kernel:
            return Fate.LOST
        if self.world.calm or self.world.prompt:
            return Fate.ANSWERED
        request = Request(self, verb, name, self.world.loop.create_future())
        self.world.requests.append(request)
        try:
            return await request.fate
        finally:
            self.world.requests.remove(request)


class Agent(Process):
    """The agent of a node: the CNI verbs in miniature around the real Ipam (the real ones: fast.cni.verbs)."""

    def __init__(self, world: World, node: SimNode) -> None:
        super().__init__(world, node)
        self.sim = node
        self.store = FakeStore(world.cluster, lagging=True, gate=self.gate, clock=world.clock)
        identity = NodeIdentity(node.name, "192.0.2.1", f"boot-{node.boot}")
        self.ipam = Ipam(self.store, identity, pods=LivePods(world), clock=world.clock, rng=random.Random(7))
        self.locks: dict[AttachmentKey, asyncio.Lock] = {}

    def is_busy(self, key: AttachmentKey) -> bool:
        return key in self.locks and self.locks[key].locked()

    async def add(self, sandbox: Sandbox, *, uid_known: bool) -> None:
        meta = sandbox.pod.metadata
        ref = PodRef(namespace=NAMESPACE, name=meta.name, uid=meta.uid if uid_known else "")
        with self.ipam.attaching(*sandbox.key):
            async with self.locks.setdefault(sandbox.key, asyncio.Lock()):
                self.live()
                await self._add(sandbox, ref)

    async def _add(self, sandbox: Sandbox, ref: PodRef) -> None:
        await self._replay_one(sandbox.key)
        entitled = self.world.records_owned_by(sandbox, self.sim.name)
        why_not = self.world.inadmissible(ref, self.sim.name)
        held = bool(self.ipam.records_of(*sandbox.key))
        records = await self.ipam.claim(Attachment(*sandbox.key, ref))
        self.live()
        if why_not:
            raise Violation(f"ADD of {sandbox.key} succeeded though {why_not}")
        wired = await self.gate("attach", sandbox.container_id) is Fate.ANSWERED
        self.live()
        if not (wired and sandbox.exists):
            if not held:
                await self.ipam.release(*sandbox.key)
            return
        self.world.check_continuity(sandbox, entitled, records)
        sandbox.addresses = tuple(record.metadata.name for record in records)

    async def delete(self, key: AttachmentKey) -> None:
        async with self.locks.setdefault(key, asyncio.Lock()):
            self.live()
            sandbox = self.sim.sandboxes.get(key)
            if sandbox is not None:
                sandbox.addresses = ()
            try:
                await self.ipam.release(*key)
                self.live()
            except FastError:
                self.live()
                if key not in self.sim.tombstones:
                    self.sim.tombstones.append(key)
        if key in self.sim.to_delete:
            self.sim.to_delete.remove(key)

    async def gc(self) -> None:
        seen = {record.metadata.uid for record in self.store.endpoints.values()}

        async def probe() -> set[AttachmentKey]:
            if await self.gate("probe", self.sim.name) is not Fate.ANSWERED:
                raise Unavailable("the kernel cannot be asked")
            found = set()
            for sandbox in self.sim.attached:
                if sandbox.miss_next:
                    sandbox.miss_next = False
                else:
                    found.add(sandbox.key)
            return found

        await self.ipam.gc(probe)
        self.live()
        self.world.check_rebooted(self, seen)

    async def replay(self) -> None:
        """Carry out the DELs that wait on disk."""
        for key in list(self.sim.tombstones):
            async with self.locks.setdefault(key, asyncio.Lock()):
                self.live()
                await self._replay_one(key)

    async def _replay_one(self, key: AttachmentKey) -> None:
        if key in self.sim.tombstones:
            await self.ipam.release(*key)
            self.live()
            if key in self.sim.tombstones:
                self.sim.tombstones.remove(key)


class LivePods:
    """Pods by a live read."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return self._world.pods.get(name)

    async def namespace(self, name: str) -> Namespace | None:
        return None


class Controller(Process):
    """The controller's garbage collection, on live reads that take their time."""

    def __init__(self, world: World) -> None:
        super().__init__(world, None)
        self.store = FakeStore(world.cluster, lagging=True, gate=self.gate, clock=world.clock)
        self._empty = False
        self._one_sweep = asyncio.Lock()

    async def sweep(self) -> None:
        async with self._one_sweep:
            self.live()
            self._empty = self.world.empty_answers
            await self._sweep()

    async def _sweep(self) -> None:
        limit = 0 if self._empty else 1000
        records = list(self.store.endpoints.values())
        plan = await sweep.plan_sweep(records, self, limit=limit)
        if not plan.stopped:
            await sweep.carry_out(plan, self.store, self, lambda _: None)

    async def _read(self, what: str) -> bool:
        """Wait for the answer; False where the server's answers are empty."""
        if await self.gate("get", what) is not Fate.ANSWERED:
            raise Unavailable(f"get {what}")
        return not self._empty

    async def nodes(self) -> Mapping[str, Node]:
        return dict(self.world.node_objects) if await self._read("nodes") else {}

    async def node(self, name: str) -> Node | None:
        return self.world.node_objects.get(name) if await self._read("node") else None

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return self.world.pods.get(name) if await self._read("pod") else None

    async def stateful_sets(self) -> Mapping[str, StatefulSet]:
        return dict(self.world.stateful_sets) if await self._read("sets") else {}

    async def pools(self) -> Mapping[str, ObjectMeta]:
        pools = self.world.cluster.pools.values() if await self._read("pools") else ()
        return {pool.metadata.name: pool.metadata for pool in pools}
