"""Agents and the controller of a simulated cluster: the real verbs and address management, in processes to be killed.

Every request that a process sends waits until the test serves it, loses it, or loses its answer; so do the steps in
the kernel (``attach``, ``probe``). No rules of what may happen live here (``machine``), nor of what must hold
(``world``).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fakes.store import FakeStore, Fate
from fast.agent.cni.tombstone_replay import TombstoneReplay
from fast.agent.readiness import Readiness
from fast.api.core import Namespace, Node, Pod, StatefulSet
from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.api.meta import ObjectMeta
from fast.cni import CniCall, Verbs
from fast.cni.environment import Invocation
from fast.cni.network_config import NetworkConfig
from fast.datapath.pod.identity import Endpoint, EndpointSpec, macs_of
from fast.errors import FastError, NetlinkError, PoolExhausted, PoolNotAllowed, PoolNotFound, Unavailable
from fast.ipam import Attachment, AttachmentKey, Ipam, NodeIdentity
from fast.ipam.release import controller_sweep
from fast.ipam.release.circuit_breaker import CircuitBreaker
from fast.ipam.rules.breaker import SWEEPS_TO_AGREE
from fast.net import IPAddress, parse_record_name, record_name
from unit.deploy.admission import verdict

if TYPE_CHECKING:
    from unit.ipam.world import World

NAMESPACE = "default"


_CONFIG = NetworkConfig(cni_version="1.0.0", name="fast", type="fast-cni")


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
    served: bool = False  # by an ADD
    exists: bool = True  # its network namespace
    was_missed: bool = False  # by a look at the kernel; once in its life at most
    miss_next: bool = False

    @property
    def key(self) -> AttachmentKey:
        return (self.container_id, self.ifname)


#: The sandbox that the ADD being served is for.
_ADDED: ContextVar[Sandbox] = ContextVar("added")


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

    def stop(self) -> None:
        """SIGTERM: calls are cut off; what undoes them still asks the API server."""
        for task in self.tasks:
            task.cancel()

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
    """The agent of a node: the CNI verbs, the replay of tombstones and address management, all real."""

    def __init__(self, world: World, node: SimNode) -> None:
        super().__init__(world, node)
        self.sim = node
        self.store = FakeStore(
            world.cluster, lagging=True, gate=self.gate, admission=self.admitted, clock=world.clock
        )
        identity = NodeIdentity(node.name, f"boot-{node.boot}")
        self.ipam = Ipam(self.store, identity, pods=LivePods(world), clock=world.clock, rng=random.Random(7))
        ports: Any = Ports(self)
        self.verbs = Verbs(
            addresses=ports,
            datapath=ports,
            collector=ports,
            tombstones=ports,
            readiness=ports,
            locks=self.ipam.locks,
        )
        self.tombstones = TombstoneReplay(ports, self.verbs.carry_out_tombstone, Readiness())
        self.deleting: Counter[AttachmentKey] = Counter()

    def admitted(self, operation: str, new: Any, old: Any) -> str:
        """Ask the shipped admission policy: what an agent does of itself, it must allow."""
        why_not = verdict("fast-agent-own-records", operation, new, old, node=self.sim.name)
        if why_not:
            self.world.violations.append(f"{operation} of {(new or old)['metadata']['name']}: {why_not}")
        return why_not

    async def add(self, sandbox: Sandbox, *, uid_known: bool) -> None:
        meta = sandbox.pod.metadata
        ref = PodRef(namespace=NAMESPACE, name=meta.name, uid=meta.uid if uid_known else "")
        _ADDED.set(sandbox)
        await self.verbs.add(Invocation("ADD", *sandbox.key, "/run/netns/it", ref), _CONFIG)
        sandbox.served = True

    async def delete(self, key: AttachmentKey) -> None:
        self.deleting[key] += 1
        try:
            await self.verbs.delete(key, CniCall({}))
            self.live()
        finally:
            self.deleting[key] -= 1
        if key in self.sim.to_delete:
            self.sim.to_delete.remove(key)

    async def gc(self, *, restore_only: bool = False) -> None:
        seen = {record.metadata.uid for record in self.store.endpoints.values()}

        async def probe(*, may_miss: bool = True) -> dict[AttachmentKey, tuple[IPAddress, ...]]:
            if await self.gate("probe", self.sim.name) is not Fate.ANSWERED:
                raise Unavailable("the kernel cannot be asked")
            found = {}
            for sandbox in self.sim.attached:
                if may_miss and sandbox.miss_next:
                    sandbox.miss_next = False
                else:
                    found[sandbox.key] = tuple(parse_record_name(name) for name in sandbox.addresses)
            return found

        await self.ipam.restore(partial(probe, may_miss=False))
        if restore_only:
            return
        await self.ipam.gc(probe)
        self.live()
        self.world.check_rebooted(self, seen)

    async def replay(self) -> None:
        """Carry out the DELs that wait on disk."""
        await self.tombstones.replay()


class Ports:
    """What the verbs of an agent reach: its address management, its node's kernel and disk (``fast.cni.dependencies``).

    What the real ones do in threads may be a coroutine here: the world's loop awaits it.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._node = agent.sim
        self._world = agent.world
        self._entitled: dict[AttachmentKey, dict[str, IpEndpoint]] = {}
        self.attaching = agent.ipam.attaching
        self.release = agent.ipam.release
        self.unclaim = agent.ipam.unclaim
        self.held = agent.ipam.records_of

    def unmet(self) -> None:
        return None

    async def claim(self, attachment: Attachment) -> tuple[IpEndpoint, ...]:
        self._agent.live()
        key = attachment.key
        assert attachment.pod is not None
        self._entitled[key] = self._world.records_owned_by(_ADDED.get(), self._node.name)
        why_not = self._world.inadmissible(attachment.pod, self._node.name)
        held = {item.address.version for item in self._agent.ipam.records_of(*attachment.key)}
        try:
            records = await self._agent.ipam.claim(attachment)
        except (PoolNotFound, PoolNotAllowed, PoolExhausted) as error:
            if held == ({4, 6} if attachment.pod.name.startswith("dual") else {4}):
                raise Violation(f"ADD of {attachment.key} was refused what it holds: {error}") from error
            raise
        self._agent.live()
        if why_not:
            raise Violation(f"ADD of {key} succeeded though {why_not}")
        return records

    async def attach(self, spec: EndpointSpec) -> Endpoint:
        sandbox = _ADDED.get()
        wired = await self._agent.gate("attach", spec.container_id) is Fate.ANSWERED
        self._agent.live()
        if not (wired and sandbox.exists):
            raise NetlinkError("there is no such namespace")
        addresses = tuple(record_name(address) for address in spec.addresses)
        self._world.check_continuity(self._node, sandbox, self._entitled.pop(sandbox.key), addresses)
        sandbox.addresses = addresses
        return Endpoint(*sandbox.key, spec.addresses, 7, "fast1", *macs_of(*sandbox.key), 1450)

    def detach(self, container_id: str, ifname: str) -> bool:
        self._agent.live()
        sandbox = self._node.sandboxes.get((container_id, ifname))
        if sandbox is None or not sandbox.addresses:
            return False
        if sandbox.served:
            raise Violation(f"sandbox {sandbox.key} is cut off")
        sandbox.addresses = ()
        return True

    def leave(self, key: AttachmentKey, call: CniCall) -> None:
        self._agent.live()
        if key not in self._node.tombstones:
            self._node.tombstones.append(key)

    def waits(self, key: AttachmentKey) -> bool:
        self._agent.live()
        return key in self._node.tombstones

    def remove(self, key: AttachmentKey) -> None:
        self._agent.live()
        if key in self._node.tombstones:
            self._node.tombstones.remove(key)

    def waiting(self) -> list[AttachmentKey]:
        self._agent.live()
        return list(self._node.tombstones)


class Loop(asyncio.SelectorEventLoop):
    """A loop without threads: what is to run in one runs at once, and where it gives a coroutine, that is awaited.

    As a thread, it goes on when who waits for it is cancelled.
    """

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        async def run() -> Any:
            made = func(*args)
            return await made if asyncio.iscoroutine(made) else made

        return asyncio.shield(self.create_task(run()))


class LivePods:
    """Pods by a live read."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return self._world.pods.get(name)

    async def namespace(self, name: str) -> Namespace | None:
        return None

    def pod_with(self, address: IPAddress) -> Pod | None:
        """As its status says, which kubelet wrote when the sandbox was up."""
        wanted = record_name(address)
        for _, sandbox in self._world.attached():
            pod = self._world.pods.get(sandbox.pod.metadata.name)
            if (
                wanted in sandbox.addresses
                and pod is not None
                and pod.metadata.uid == sandbox.pod.metadata.uid
            ):
                return pod
        return None


class Controller(Process):
    """The controller's garbage collection, on live reads that take their time."""

    def __init__(self, world: World) -> None:
        super().__init__(world, None)
        self.store = FakeStore(world.cluster, lagging=True, gate=self.gate, clock=world.clock)
        self._empty, self._empties = False, 0
        self._breaker = CircuitBreaker()
        self._one_sweep = asyncio.Lock()

    async def sweep(self) -> None:
        async with self._one_sweep:
            self.live()
            # a server that gives wrong answers for many sweeps in a row is believed in the end
            self._empty = self.world.empty_answers and self._empties < SWEEPS_TO_AGREE - 1
            self._empties = self._empties + 1 if self._empty else 0
            await self._sweep()

    async def _sweep(self) -> None:
        records = list(self.store.endpoints.values())
        plan = await controller_sweep.plan_sweep(records, self, self._breaker)
        await controller_sweep.carry_out(plan, self.store, self, lambda _: None)

    async def _read(self, what: str) -> bool:
        """Wait for the answer; False where the server's answers are empty."""
        if await self.gate("get", what) is not Fate.ANSWERED:
            raise Unavailable(f"get {what}")
        return not self._empty

    async def nodes(self) -> Mapping[str, Node]:
        return dict(self.world.node_objects) if await self._read("nodes") else {}

    def silent_seconds(self, node: str) -> float:
        return self.world.now - self.world.beats.get(node, 0.0)

    async def node(self, name: str) -> Node | None:
        return self.world.node_objects.get(name) if await self._read("node") else None

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return self.world.pods.get(name) if await self._read("pod") else None

    async def stateful_sets(self) -> Mapping[str, StatefulSet]:
        return dict(self.world.stateful_sets) if await self._read("sets") else {}

    async def pools(self) -> Mapping[str, ObjectMeta]:
        pools = self.world.cluster.pools.values() if await self._read("pools") else ()
        return {pool.metadata.name: pool.metadata for pool in pools}
