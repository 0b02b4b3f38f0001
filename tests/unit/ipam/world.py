"""A cluster in which everything goes wrong: what is in it, what must hold in it, and how it comes to rest.

:meth:`World.check` says what must hold after each step, :meth:`World.quiesce` lets every part do its job undisturbed,
and :meth:`World.check_at_rest` says what must hold then. What happens in between the test decides (``machine``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec.structs import replace

from fakes.store import FakeCluster, Fate, a_pool
from fast.api.core import (
    TAINT_OUT_OF_SERVICE,
    Node,
    NodeSpec,
    Pod,
    PodSpec,
    PodStatus,
    StatefulSet,
    StatefulSetSpec,
    Taint,
)
from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.api.ips import ANNOTATION_POOLS, Ips, pool_addresses
from fast.api.meta import LabelSelector, ObjectMeta, OwnerReference
from unit.ipam.processes import NAMESPACE, Agent, Controller, Loop, Request, Sandbox, SimNode, Violation

STATEFUL_SET = "set-uid"
_LONGER_THAN_SIGHTINGS = 31.0


class World:
    """Everything; one event loop, turned by hand."""

    def __init__(self, nodes: int = 3) -> None:
        self.loop = Loop()
        self.being_restored: set[str] = set()  # whose records were lost just now
        self.beats: dict[str, float] = {}  # when each node's agent last renewed its Lease
        self.now = 1000.0
        self.calm = False
        self.prompt = True  # requests are answered at once, and do not wait for the test
        self.empty_answers = False
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.errors: list[Exception] = []  # which no process may die of
        self.pods: dict[str, Pod] = {}
        self.cluster = FakeCluster()
        self.cluster.put_pool(
            a_pool("four", "10.0.0.0-10.0.0.11", subnet="10.0.0.0/24", releaseDelaySeconds=5)
        )
        self.cluster.put_pool(a_pool("six", "fd00::1-fd00::8", subnet="fd00::/64", releaseDelaySeconds=5))
        self.cluster.put_pool(a_pool("other", "10.0.1.0-10.0.1.11", subnet="10.0.1.0/24"))
        self.cluster.put_pool(a_pool("tiny", "10.0.2.0", subnet="10.0.2.0/24"))
        self.pools = {name: pool.spec for name, pool in self.cluster.pools.items()}  # as they were made
        self.pool_of_the_set = "four"
        self.nodes = {f"n{number}": SimNode(f"n{number}") for number in range(1, nodes + 1)}
        self.node_objects = {name: a_node(name) for name in self.nodes}
        self.stateful_sets = {STATEFUL_SET: a_stateful_set(2)}
        self._counter = 0
        self.controller = Controller(self)
        for node in self.nodes.values():
            node.agent = Agent(self, node)

    def clock(self) -> float:
        return self.now

    def turn(self) -> None:
        """Let everything run that can, then check what must always hold."""
        self.loop.run_until_complete(_spin(self.loop))
        for node in self.nodes.values():
            if node.powered and not node.partitioned and node.agent is not None:
                self.beats[node.name] = self.now
        self.check()

    def close(self) -> None:
        for process in self.processes():
            process.kill()
        self.loop.run_until_complete(_spin(self.loop))
        pending = asyncio.all_tasks(self.loop)
        for task in pending:
            task.cancel()
        if pending:
            self.loop.run_until_complete(asyncio.wait(pending))
        self.loop.close()

    def processes(self) -> list[Agent | Controller]:
        agents = [node.agent for node in self.nodes.values() if node.agent is not None]
        return [self.controller, *agents]

    def next_number(self) -> int:
        self._counter += 1
        return self._counter

    def attached(self) -> Iterator[tuple[SimNode, Sandbox]]:
        for node in self.nodes.values():
            for sandbox in node.attached:
                yield node, sandbox

    # ── what must hold ──

    def check(self) -> None:
        """No address on two live sandboxes; what a live sandbox has, and nothing else, is recorded as its own."""
        if self.errors:
            raise self.errors[0]
        if self.violations:
            raise Violation(self.violations[0])
        seen: dict[str, Sandbox] = {}
        for node, sandbox in self.attached():
            for address in sandbox.addresses:
                if address in seen:
                    raise Violation(f"{address} is on sandboxes {seen[address].key} and {sandbox.key}")
                seen[address] = sandbox
                self._check_recorded(node, sandbox, address)
        having = {(*sandbox.key, node.name): sandbox.addresses for node, sandbox in self.attached()}
        for address, record in self.cluster.endpoints.items():
            if address not in having.get(_holder(record), (address,)):
                raise Violation(f"{address} is recorded for {_holder(record)}, which has another")

    def _check_recorded(self, node: SimNode, sandbox: Sandbox, address: str) -> None:
        record = self.cluster.endpoints.get(address)
        if record is None and address in self.being_restored:
            return
        if record is None:
            raise Violation(f"{address} is free, but sandbox {sandbox.key} on {node.name} has it")
        if _holder(record) != (*sandbox.key, node.name):
            raise Violation(f"{address} is recorded for {_holder(record)}, but sandbox {sandbox.key} has it")
        if node.agent is not None:  # which wrote it, or read it when it started
            shown = node.agent.store.endpoints.get(address)
            if shown is None or shown.spec != record.spec:
                raise Violation(f"{address} of {sandbox.key} is not what the agent of {node.name} sees")

    def inadmissible(self, ref: PodRef, node: str) -> str:
        """Why an ADD that begins now must not succeed; the same question as ``rules.admit``, asked independently."""
        pod = self.pods.get(ref.name)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            return "its pod is gone or going"
        if ref.uid not in ("", pod.metadata.uid):
            return "its pod was recreated"
        if pod.spec.node_name != node:
            return "its pod is on another node"
        return "its pod has finished" if pod.status.phase == "Failed" else ""

    def fits(self, sandbox: Sandbox, node: str, record: IpEndpoint) -> bool:
        """Whether the pod would get the address today, as far as its node's agent knows the pools."""
        agent = self.nodes[node].agent
        shown = agent.store.pools.get(record.spec.pool) if agent is not None else None
        named = sandbox.pod.metadata.annotations[ANNOTATION_POOLS].split(",")
        return (
            shown is not None
            and shown.metadata.deletion_timestamp is None
            and shown.spec.pod_affinity is None
            and record.spec.pool in named
            and record.address in pool_addresses(shown.spec).usable
        )

    def records_owned_by(self, sandbox: Sandbox, node: str) -> dict[str, IpEndpoint]:
        """The records that an ADD, beginning now, has a right to and cannot but know: sticky ones are read live."""
        meta = sandbox.pod.metadata
        key = sticky_key(meta.name)
        agent = self.nodes[node].agent
        shown = agent.store.endpoints if agent is not None else {}
        return {
            name: record
            for name, record in self.cluster.endpoints.items()
            if record.spec.interface == sandbox.ifname
            and (
                (name in shown and record.spec.pod.uid == meta.uid and record.spec.node == node)
                or (key and record.spec.sticky_key == key and self.fits(sandbox, node, record))
            )
        }

    def check_continuity(
        self, node: SimNode, sandbox: Sandbox, entitled: dict[str, IpEndpoint], addresses: tuple[str, ...]
    ) -> None:
        """An address that a pod had a right to, all the while, is the one it gets."""
        got = set(addresses)
        kept = [
            name
            for name, record in entitled.items()
            if (now := self.cluster.endpoints.get(name)) is not None
            and now.metadata.uid == record.metadata.uid
            and (record.spec.pod.uid == sandbox.pod.metadata.uid or self.fits(sandbox, node.name, record))
        ]
        for name in kept:
            same_family = {other for other in got if ("-" in other) == ("-" in name)}
            if same_family and not same_family & entitled.keys():
                raise Violation(f"{name} was the pod's, but it was given {same_family}")
        if sandbox.addresses and set(sandbox.addresses) != got:
            raise Violation(f"{sandbox.key} had {sandbox.addresses}, and a second ADD gave it {got}")

    def check_rebooted(self, agent: Agent, seen: set[str]) -> None:
        """A sweep that went through has freed, at once, the records of earlier boots that it saw."""
        for record in self.cluster.endpoints.values():
            mine = record.spec.node == agent.sim.name and record.metadata.uid in seen
            key = (record.spec.container_id, record.spec.interface)
            if mine and record.spec.boot_id != f"boot-{agent.sim.boot}" and not agent.ipam.is_attaching(key):
                raise Violation(f"{record.metadata.name} of {record.spec.boot_id} outlived a sweep")

    def check_at_rest(self) -> None:
        """Every record has its sandbox, or is kept for an ordinal that will come again; every pod has an address."""
        self.check()
        owned = {address for _, sandbox in self.attached() for address in sandbox.addresses}
        ordinals = {sticky_key(f"db-{n}") for n in range(self.stateful_sets[STATEFUL_SET].spec.replicas)}
        slots = set()
        for name, record in sorted(self.cluster.endpoints.items()):
            key = record.spec.sticky_key
            if name not in owned and not (not record.spec.container_id and key in ordinals):
                raise Violation(f"{name} leaked: {record.spec}")
            slot = (key, record.spec.interface, "-" in name)
            if key and slot in slots:
                raise Violation(f"{key} has two addresses, one of them {name}")
            slots.add(slot)
        for name, pod in self.pods.items():
            here = self.nodes[pod.spec.node_name].attached
            if not pod.finished and not any(item.pod.metadata.uid == pod.metadata.uid for item in here):
                raise Violation(f"pod {name} has no sandbox though nothing is in its way")

    # ── coming to rest ──

    def quiesce(self) -> None:
        """Heal everything and let every part do its job, as long as it takes."""
        self.calm, self.empty_answers = True, False
        for name in self.pools:
            self.edit_pool(name, "as it was")
        for request in list(self.requests):
            if not request.fate.done():
                request.fate.set_result(Fate.ANSWERED)
        self._heal()
        for _ in range(4):
            self._deliver_all()
            self._kubelets()
            for _ in range(2):
                self._deliver_all()
                for node in self.nodes.values():
                    if node.agent is not None:
                        node.agent.start(node.agent.gc())
                self.controller.start(self.controller.sweep())
                self.turn()
                self.now += _LONGER_THAN_SIGHTINGS
        self._deliver_all()

    def _heal(self) -> None:
        """Nodes that are out of service stay so; everything else runs and sees everything."""
        for node in self.nodes.values():
            node.partitioned = False
            if node.powered and node.agent is None:
                node.agent = Agent(self, node)
        if self.controller.dead:
            self.controller = Controller(self)
        self.turn()
        self._deliver_all()
        for node in self.nodes.values():
            if not node.powered and node.name in self.node_objects:
                self.node_objects[node.name] = a_node(node.name, fenced=True)
            if node.agent is not None:
                node.agent.start(node.agent.replay())
        self.turn()

    def edit_pool(self, name: str, how: str) -> None:
        """What an operator does to a pool that may be in use."""
        was = self.pools[name]
        half = {"four": "10.0.0.6-10.0.0.11", "six": "fd00::5-fd00::8", "other": "10.0.1.6-10.0.1.11"}.get(
            name, ""
        )
        spec = {
            "as it was": was,
            "ranges moved": replace(was, ips=(half,)),
            "affinity": replace(was, pod_affinity=LabelSelector(match_labels={"nobody": "has"})),
        }.get(how)
        if how == "gone":
            if name in self.cluster.pools:
                self.cluster.drop_pool(name)
            return
        pool = Ips(metadata=ObjectMeta(name=name), spec=spec or was)
        if how == "being deleted":
            pool.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
        self.cluster.put_pool(pool)

    def _deliver_all(self) -> None:
        for process in self.processes():
            process.store.deliver()

    def _kubelets(self) -> None:
        """Every kubelet brings its node to what the API says: sandboxes for its pods, none for others."""
        for name, pod in list(self.pods.items()):
            if not self.nodes[pod.spec.node_name].powered:
                del self.pods[name]  # the pod GC: its node is gone or fenced
        for node in self.nodes.values():
            if node.powered:
                self.clean_up(node)
        self.turn()
        for pod in self.pods.values():
            node = self.nodes[pod.spec.node_name]
            self.ensure_sandbox(node, pod)
        self.turn()

    def clean_up(self, node: SimNode) -> None:
        """The kubelet takes down what no pod needs, and the runtime tells the plugin, again where it has to."""
        for pod in [pod for pod in self.pods.values() if pod.terminating and pod.spec.node_name == node.name]:
            del self.pods[pod.metadata.name]
        wanted = {pod.metadata.uid for pod in self.pods.values() if not pod.finished}
        for sandbox in list(node.sandboxes.values()):
            if sandbox.pod.metadata.uid not in wanted or not sandbox.addresses:
                self.destroy(node, sandbox)
        for key in list(node.to_delete):
            if node.agent is not None:
                node.agent.start(node.agent.delete(key))

    def destroy(self, node: SimNode, sandbox: Sandbox) -> None:
        """The runtime takes a sandbox's interface down and will tell the plugin."""
        sandbox.exists, sandbox.addresses = False, ()
        node.sandboxes.pop(sandbox.key, None)
        if sandbox.key not in node.to_delete:
            node.to_delete.append(sandbox.key)

    def ensure_sandbox(
        self, node: SimNode, pod: Pod, *, container_id: str = "", ifname: str = "eth0", uid_known: bool = True
    ) -> None:
        """The kubelet makes a sandbox for a pod of its node that has none with that interface."""
        mine = [
            item
            for item in node.sandboxes.values()
            if item.pod.metadata.uid == pod.metadata.uid and item.ifname == ifname
        ]
        if mine or node.agent is None or not node.powered:
            return
        sandbox = Sandbox(container_id or f"c{self.next_number()}", ifname, pod)
        if sandbox.key in node.sandboxes or sandbox.key in node.to_delete or node.agent.deleting[sandbox.key]:
            return
        node.sandboxes[sandbox.key] = sandbox
        node.agent.start(node.agent.add(sandbox, uid_known=uid_known))


def _holder(record: IpEndpoint) -> tuple[str, str, str]:
    return record.spec.container_id, record.spec.interface, record.spec.node


async def _spin(loop: asyncio.AbstractEventLoop) -> None:
    """Let tasks run until all of them wait for something: sleeping as often as anybody may need is far slower."""
    await asyncio.sleep(0)
    while loop._ready:  # type: ignore[attr-defined]  # noqa: ASYNC110
        await asyncio.sleep(0)


def a_node(name: str, *, fenced: bool = False) -> Node:
    taints = [Taint(key=TAINT_OUT_OF_SERVICE, effect="NoExecute")] if fenced else []
    return Node(metadata=ObjectMeta(name=name), spec=NodeSpec(taints=taints))


def a_stateful_set(replicas: int) -> StatefulSet:
    metadata = ObjectMeta(name="db", namespace=NAMESPACE, uid=STATEFUL_SET)
    return StatefulSet(metadata=metadata, spec=StatefulSetSpec(replicas=replicas))


def sticky_key(name: str) -> str:
    """The sticky key of a pod of that name; empty for those of no StatefulSet."""
    return f"StatefulSet/{NAMESPACE}/db/{name.removeprefix('db-')}" if name.startswith("db-") else ""


def a_pod(name: str, uid: str, node: str, pool: str = "four") -> Pod:
    """A pod as the API has it: ``db-…`` of the StatefulSet, ``dual-…`` with two families."""
    owner = OwnerReference(
        api_version="apps/v1", kind="StatefulSet", name="db", uid=STATEFUL_SET, controller=True
    )
    metadata = ObjectMeta(
        name=name,
        namespace=NAMESPACE,
        uid=uid,
        annotations={ANNOTATION_POOLS: "four,six" if name.startswith("dual") else pool},
        owner_references=[owner] if name.startswith("db-") else [],
    )
    return Pod(metadata=metadata, spec=PodSpec(node_name=node), status=PodStatus(phase="Pending"))
