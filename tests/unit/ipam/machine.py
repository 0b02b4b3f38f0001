"""What may happen in a simulated cluster, as hypothesis' rules, one thing a step. What must hold is the world's.

Whoever acts keeps to what Kubernetes promises, and to no more: a node is fenced, or its Node deleted, only while it is
off; a pod of a node that is tainted and running again is not deleted by force; the runtime tells a DEL at any time
after it took a sandbox down, or never.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fakes.store import Fate
from fast.api.core import Pod
from unit.ipam.processes import Agent, Controller, Request, Sandbox, SimNode, Violation
from unit.ipam.world import STATEFUL_SET, World, a_node, a_pod, a_stateful_set

_T = TypeVar("_T")
PODS = ("web-0", "web-1", "web-2", "db-0", "db-1", "dual-0", "dual-1")
_FATES = (Fate.ANSWERED, Fate.ANSWER_LOST, Fate.LOST, Fate.ANSWER_LOST)
_NODE_EVENTS = (
    "partitioned",
    "connected",
    "off",
    "on",
    "rebooted",
    "rebooted",
    "fenced",
    "deleted",
    "untainted",
    "back, still tainted",
)
_KNOWN_PODS = 6
_EDITS = ("as it was", "as it was", "ranges moved", "affinity", "being deleted", "gone")

_AGAIN = st.sampled_from(("no", "second", "second", "after the sandbox was made again"))

#: Chooses among what there is; which that is only the step knows.
picks = st.integers(0, 11)


def _pick(items: Sequence[_T], pick: int) -> _T | None:
    return items[pick % len(items)] if items else None


class Cluster(RuleBasedStateMachine):
    """Steps in a world; at the end it must come to rest with every address where it belongs."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.known: list[Pod] = []  # what some kubelet may still believe in
        self.old_keys: list[tuple[SimNode, tuple[str, str]]] = []
        self.broken = False

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.world.quiesce()
                self.world.check_at_rest()
        finally:
            self.world.close()

    def _turn(self) -> None:
        try:
            self.world.turn()
        except Violation:
            self.broken = True
            raise

    def _node(self, pick: int) -> SimNode:
        nodes = list(self.world.nodes.values())
        return nodes[pick % len(nodes)]

    def _sandboxes(self) -> list[tuple[SimNode, Sandbox]]:
        return [
            (node, item)
            for node in self.world.nodes.values()
            if node.powered
            for item in node.sandboxes.values()
        ]

    def _is_fenced(self, node: SimNode) -> bool:
        found = self.world.node_objects.get(node.name)
        return found is None or found.out_of_service

    # ── pods ──

    @initialize(nodes=st.tuples(picks, picks, picks), prompt=st.booleans())
    def begin_with_pods(self, nodes: tuple[int, int, int], prompt: bool) -> None:
        self.world.prompt = prompt
        for name, node in zip(("web-0", "db-0", "dual-0"), nodes, strict=True):
            self.make_pod(name, node, True)
        for process in self.world.processes():
            process.store.deliver()

    @rule(name=st.sampled_from(PODS), node=picks, started=st.booleans())
    def make_pod(self, name: str, node: int, started: bool) -> None:
        where = self._node(node)
        if name in self.world.pods or (self._is_fenced(where) and not where.powered):
            return
        if where.name not in self.world.node_objects:
            return
        pool = {"db": self.world.pool_of_the_set, "tiny": "tiny"}.get(name.partition("-")[0], "four")
        pod = a_pod(name, f"{name}-uid{self.world.next_number()}", where.name, pool)
        self.world.pods[name] = pod
        self.known = [*self.known, pod][-_KNOWN_PODS:]
        if started:
            self.world.ensure_sandbox(where, pod)
            self._turn()

    @rule(pick=picks, uid_known=st.booleans())
    def start_sandbox(self, pick: int, uid_known: bool) -> None:
        pod = _pick(self.known, pick)
        if pod is None:
            return
        now = self.world.pods.get(pod.metadata.name)
        if (
            now is not None
            and now.metadata.uid != pod.metadata.uid
            and now.spec.node_name == pod.spec.node_name
        ):
            uid_known = True  # a runtime that gives no UID cannot be helped here
        self.world.ensure_sandbox(self.world.nodes[pod.spec.node_name], pod, uid_known=uid_known)
        self._turn()

    @rule(pick=picks, other=picks)
    def start_sandbox_under_the_id_of_another_nodes(self, pick: int, other: int) -> None:
        pod, found = _pick(self.known, pick), _pick(self._sandboxes(), other)
        if pod is None or found is None or found[0].name == pod.spec.node_name:
            return
        node = self.world.nodes[pod.spec.node_name]
        self.world.ensure_sandbox(node, pod, container_id=found[1].container_id)
        self._turn()

    @rule(pick=picks)
    def attach_a_second_interface(self, pick: int) -> None:
        found = _pick(
            [item for item in self._sandboxes() if item[1].pod.metadata.name.startswith("web")], pick
        )
        if found is not None:
            node, sandbox = found
            self.world.ensure_sandbox(node, sandbox.pod, container_id=sandbox.container_id, ifname="net1")
            self._turn()

    @rule(pick=picks)
    def repeat_add(self, pick: int) -> None:
        found = _pick(self._sandboxes(), pick)
        if found is not None and found[0].agent is not None:
            found[0].agent.start(found[0].agent.add(found[1], uid_known=True))
            self._turn()

    @rule(pick=picks, told=st.booleans(), again=st.booleans())
    def take_down_sandbox(self, pick: int, told: bool, again: bool) -> None:
        found = _pick(self._sandboxes(), pick)
        if found is None:
            return
        node, sandbox = found
        for item in [item for item in node.sandboxes.values() if item.container_id == sandbox.container_id]:
            self.world.destroy(node, item)
            self.old_keys.append((node, item.key))
        if told:
            self._tell_del(node, sandbox.key)
        if again:
            self.world.ensure_sandbox(node, sandbox.pod)
        self._turn()

    @rule(pick=picks)
    def tell_del_of_old_sandbox(self, pick: int) -> None:
        found = _pick(self.old_keys, pick)
        if found is not None and found[0].powered and found[1] not in found[0].sandboxes:
            self._tell_del(*found)
            self._turn()

    def _tell_del(self, node: SimNode, key: tuple[str, str]) -> None:
        if node.agent is not None:
            node.agent.start(node.agent.delete(key))
        elif node.powered:  # fast-cni leaves the tombstone
            if key not in node.tombstones:
                node.tombstones.append(key)
            if key in node.to_delete:
                node.to_delete.remove(key)

    @rule(pick=picks, how=st.sampled_from(("gracefully", "by force", "evicted")))
    def delete_pod(self, pick: int, how: str) -> None:
        pod = _pick(list(self.world.pods.values()), pick)
        if pod is None:
            return
        node = self.world.nodes[pod.spec.node_name]
        if how == "gracefully":
            pod.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
        elif how == "evicted":
            pod.status.phase = "Failed"
        elif not (self._is_fenced(node) and node.powered):
            del self.world.pods[pod.metadata.name]

    @rule(node=picks)
    def kubelet_cleans_up(self, node: int) -> None:
        where = self._node(node)
        if where.powered and not where.partitioned:
            self.old_keys += [(where, key) for key in where.sandboxes]
            self.world.clean_up(where)
            self._turn()

    # ── requests, views, time ──

    @rule(pick=picks, fate=st.sampled_from(_FATES), retried=st.booleans())
    def serve(self, pick: int, fate: Fate, retried: bool = False) -> None:
        """Decide what becomes of a request; the runtime may repeat the ADDs that fail by it."""
        request = _pick(self.world.requests, pick)
        if request is not None:
            if request.verb in {"attach", "probe"} and fate is Fate.ANSWER_LOST:
                fate = Fate.LOST
            request.fate.set_result(fate)
            self._turn()
            agent = request.process
            if retried and fate is not Fate.ANSWERED and isinstance(agent, Agent) and not agent.dead:
                for sandbox in agent.sim.sandboxes.values():
                    if not sandbox.addresses:
                        agent.start(agent.add(sandbox, uid_known=True))
                self._turn()

    @rule(most=st.integers(1, 20))
    def serve_in_order(self, most: int) -> None:
        for _ in range(most):
            if self.world.requests:
                self.serve(0, Fate.ANSWERED)

    @rule(pick=picks, delivered=st.booleans())
    def serve_everything_of_a_process(self, pick: int, delivered: bool) -> None:
        process = _pick(self.world.processes(), pick)
        if process is None:
            return
        if delivered:
            process.store.deliver()
        for _ in range(20):
            mine = [index for index, item in enumerate(self.world.requests) if item.process is process]
            if mine:
                self.serve(mine[0], Fate.ANSWERED)

    @rule(pick=picks)
    def serve_and_kill_the_sender(self, pick: int) -> None:
        """The server carries a write out; whoever sent it never learns."""
        request = _pick(self.world.requests, pick)
        if request is not None and request.verb not in {"attach", "probe"}:
            request.fate.set_result(Fate.ANSWERED)
            self._kill(request.process, request)
            self._turn()

    def _kill(self, process: object, sparing: Request | None = None) -> None:
        if isinstance(process, Agent):
            process.kill(sparing=sparing)
            process.sim.agent = None
        elif isinstance(process, Controller):
            process.kill(sparing=sparing)

    @rule(pick=picks, count=st.sampled_from((1, 2, 5, 100)))
    def deliver(self, pick: int, count: int) -> None:
        process = _pick(self.world.processes(), pick)
        if process is not None:
            process.store.deliver(count)
            self._turn()

    @rule(seconds=st.sampled_from((1.0, 6.0, 31.0, 31.0)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(prompt=st.booleans())
    def requests_are_served(self, prompt: bool) -> None:
        """At once from now on, or when the test says so."""
        self.world.prompt = prompt

    @rule(replicas=st.sampled_from((0, 1, 2, None)), empty=st.booleans())
    def api_server_changes(self, replicas: int | None, empty: bool) -> None:
        """The StatefulSet is scaled; or reads are answered with nothing, or rightly again."""
        if replicas is None:
            self.world.empty_answers = empty
        else:
            self.world.stateful_sets = {STATEFUL_SET: a_stateful_set(replicas)}

    @rule(name=st.sampled_from(("four", "four", "six", "other")), how=st.sampled_from(_EDITS))
    def edit_pool(self, name: str, how: str) -> None:
        self.world.edit_pool(name, how)
        for process in self.world.processes():
            process.store.deliver()
        self._turn()

    @rule(pool=st.sampled_from(("four", "other")))
    def edit_the_sets_template(self, pool: str) -> None:
        """Its pods name another pool from now on."""
        self.world.pool_of_the_set = pool

    # ── processes and nodes ──

    @rule(node=picks, killed=st.booleans())
    def agent_stops_or_starts(self, node: int, killed: bool) -> None:
        if killed:
            self._kill(self._node(node).agent)
            self._turn()
        else:
            self.start_agent(node)

    def start_agent(self, node: int) -> None:
        where = self._node(node)
        if where.powered and where.agent is None:
            where.agent = Agent(self.world, where)
            where.agent.start(where.agent.replay())
            self._turn()

    @rule(node=picks, missing=picks, misses=st.booleans(), served=st.booleans(), again=_AGAIN)
    def agent_collects(self, node: int, missing: int, misses: bool, served: bool, again: str) -> None:
        """A sweep of an agent; it may miss a sandbox, each of them once. Maybe a second one when it is due."""
        where = self._node(node)
        sandbox = _pick(where.attached, missing)
        for sweep in ("first", again):
            if where.agent is None or sweep == "no":
                return
            if sweep == "after the sandbox was made again" and sandbox is not None:
                self.world.destroy(where, sandbox)
                self.world.ensure_sandbox(where, sandbox.pod)
                self._turn()
                sandbox = next((item for item in where.attached if item.pod is sandbox.pod), None)
            if misses and sandbox is not None and not sandbox.was_missed:
                sandbox.was_missed = sandbox.miss_next = True
            self._collect(where.agent, served=served or again != "no")
            self.world.now += 31.0 if again != "no" else 0.0

    @rule(node=picks)
    def agent_replays(self, node: int) -> None:
        agent = self._node(node).agent
        if agent is not None:
            agent.start(agent.replay())
            self._turn()

    def _collect(self, process: Agent | Controller, *, served: bool) -> None:
        """Start a sweep; serve what it asks for, and nothing else that waits."""
        before = list(self.world.requests)
        process.start(process.gc() if isinstance(process, Agent) else process.sweep())
        self._turn()
        while served:
            asked = [item for item in self.world.requests if item.process is process and item not in before]
            if not asked:
                return
            asked[0].fate.set_result(Fate.ANSWERED)
            self._turn()

    @rule(served=st.booleans())
    def controller_collects(self, served: bool) -> None:
        if self.world.controller.dead:
            self.world.controller = Controller(self.world)
        self._collect(self.world.controller, served=served)

    @rule(node=picks, event=st.sampled_from(_NODE_EVENTS))
    def node_changes(self, node: int, event: str) -> None:
        match event:
            case "partitioned" | "connected":
                self.partition(node, event == "partitioned")
            case "off":
                self.power_off(node)
            case "on":
                self.power_on(node)
            case "rebooted":
                self.power_off(node)
                self.power_on(node)
            case "untainted":
                self.remove_taint(node)
            case "back, still tainted":
                self.power_off(node)
                self.give_node_up(node, "fenced")
                self.power_on(node)
            case _:
                self.power_off(node)
                self.give_node_up(node, event)

    def partition(self, node: int, on: bool) -> None:
        where = self._node(node)
        where.partitioned = on and where.powered

    def power_off(self, node: int) -> None:
        where = self._node(node)
        self._kill(where.agent)
        for sandbox in where.sandboxes.values():
            sandbox.exists = False
            sandbox.addresses = ()
            self.old_keys.append((where, sandbox.key))
        where.sandboxes.clear()
        where.powered = where.partitioned = False
        self._turn()

    def power_on(self, node: int) -> None:
        where = self._node(node)
        if not where.powered:
            where.powered, where.boot = True, where.boot + 1
            self.world.node_objects.setdefault(where.name, a_node(where.name))
            self.start_agent(node)

    def give_node_up(self, node: int, how: str) -> None:
        """Taint it out-of-service or delete its Node, while it is off; what it ran is deleted by Kubernetes."""
        where = self._node(node)
        if where.powered:
            return
        if how == "fenced" and where.name in self.world.node_objects:
            self.world.node_objects[where.name] = a_node(where.name, fenced=True)
        else:
            self.world.node_objects.pop(where.name, None)
        for name, pod in list(self.world.pods.items()):
            if pod.spec.node_name == where.name:
                del self.world.pods[name]

    def remove_taint(self, node: int) -> None:
        where = self._node(node)
        if where.powered and where.name in self.world.node_objects:
            self.world.node_objects[where.name] = a_node(where.name)
