"""Sequences of the machine's steps that are rare by chance, each as one step: the circumstances of a race.

Single steps live in ``machine``; what must hold is the world's.
"""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st
from hypothesis.stateful import rule

from fakes.store import Fate
from unit.ipam.machine import PODS, Cluster, picks
from unit.ipam.processes import Agent, Request, Violation
from unit.ipam.world import STATEFUL_SET, a_stateful_set


class UnluckyCluster(Cluster):
    """The machine with these sequences among its steps."""

    @rule(pick=picks, node=picks)
    def move_pod_by_force(self, pick: int, node: int) -> None:
        """Delete it by force and make it again elsewhere, as is done with a StatefulSet's pod on a silent node."""
        names = list(self.world.pods)
        if names:
            self.delete_pod(pick, "by force")
            self.make_pod(names[pick % len(names)], node, True)

    @rule(name=st.sampled_from(PODS), node=picks, fenced=st.booleans())
    def pod_comes_between_two_sweeps(self, name: str, node: int, fenced: bool) -> None:
        """Where the node is back and still tainted, nothing but the pod's being there keeps its address."""
        if fenced:
            self.node_changes(node, "back, still tainted")
        self.controller_collects(True)
        self.make_pod(name, node, True)
        self.world.controller.store.deliver()
        self.controller_collects(True)

    @rule(pick=picks, restarted=st.booleans(), then=picks)
    def record_is_lost_while_its_sandbox_lives(self, pick: int, restarted: bool, then: int) -> None:
        """Somebody deletes it, while the node's agent runs or before it starts; then another pod wants an address."""
        found = [
            (node, sandbox)
            for node, sandbox in self._sandboxes()
            if sandbox.served
            and node.agent is not None
            and not node.partitioned
            and not node.agent.ipam.is_attaching(sandbox.key)
            and not node.agent.deleting[sandbox.key]
            and sandbox.key not in node.tombstones
        ]
        if not found or self.world.requests:
            return
        node, sandbox = found[pick % len(found)]
        if node.boot > 1 and any(
            self.world.cluster.endpoints[address].spec.boot_id != f"boot-{node.boot}"
            for address in sandbox.addresses
        ):
            return
        for process in self.world.processes():
            process.store.deliver()
        self._turn()
        self.world.being_restored = set(sandbox.addresses)
        if restarted:
            self._kill(node.agent)
        for address in sandbox.addresses:
            self.world.cluster.delete(self.world.cluster.endpoints[address])
        if restarted:
            node.agent = Agent(self.world, node)
        assert node.agent is not None
        node.agent.store.deliver()
        node.agent.start(node.agent.gc(restore_only=True))
        self._turn()
        self._serve_agent(node.agent)
        self.world.being_restored = set()
        self._turn()
        self.make_pod(PODS[then % len(PODS)], then, True)

    @rule(node=picks, other=picks)
    def address_is_released_while_a_watch_is_stalled(self, node: int, other: int) -> None:
        """The only address of a pool is released on one node; the agent of another, which does not see it, needs it."""
        one, two = self._node(node), self._node(other)
        if one is two or self.world.requests or {"tiny-0", "tiny-1"} & self.world.pods.keys():
            return
        if any(item.agent is None or item.partitioned or self._is_fenced(item) for item in (one, two)):
            return
        if "10.0.2.0" in self.world.cluster.endpoints:
            return
        self.world.prompt = True
        self.world.now += 31.0
        for process in self.world.processes():
            process.store.deliver()
        self.make_pod("tiny-0", node, True)
        for process in self.world.processes():
            process.store.deliver()
        self.delete_pod(list(self.world.pods).index("tiny-0"), "gracefully")
        self.kubelet_cleans_up(node)
        if "10.0.2.0" in self.world.cluster.endpoints:
            return
        self.world.now += 31.0
        self.make_pod("tiny-1", other, True)
        if not any("10.0.2.0" in item.addresses for item in two.sandboxes.values()):
            raise Violation("pod tiny-1 has no address, though the one of its pool is free")

    @rule(node=picks, again=st.booleans())
    def node_object_is_deleted_while_the_node_runs(self, node: int, again: bool) -> None:
        """Its pods are deleted with it; kubelet, agent and sandboxes run on, and it is registered again."""
        where = self._node(node)
        if where.agent is None or where.partitioned or self._is_fenced(where):
            return
        self._turn()
        for name in [name for name, pod in self.world.pods.items() if pod.spec.node_name == where.name]:
            del self.world.pods[name]
        before = self.world.node_objects.pop(where.name)
        self.world.controller.store.deliver()
        self.controller_collects(True)
        if again:
            self.world.now += 31.0
            self._turn()
            self.controller_collects(True)
        self.world.node_objects[where.name] = before

    @rule(name=st.sampled_from(("db-0", "db-1")), node=picks, replicas=st.sampled_from((0, 1)))
    def pod_comes_back_while_its_set_is_scaled_down(self, name: str, node: int, replicas: int) -> None:
        """The controller last saw its address retained, and sweeps when the pod has it again."""
        names = list(self.world.pods)
        if name in names:
            where = int(self.world.pods[name].spec.node_name.removeprefix("n")) - 1
            self.delete_pod(names.index(name), "gracefully")
            self.kubelet_cleans_up(where)
        self.world.controller.store.deliver()
        self.make_pod(name, node, True)
        self.world.stateful_sets = {STATEFUL_SET: a_stateful_set(replicas)}
        self.controller_collects(True)

    @rule(name=st.sampled_from(PODS), node=picks, told=st.booleans())
    def newer_sandbox_is_served_first(self, name: str, node: int, told: bool) -> None:
        """A pod's sandbox is made again while the ADD or the DEL of the older one waits for its answer."""
        self.world.prompt = False
        self.make_pod(name, node, True)
        older = [number for number, item in enumerate(self._sandboxes()) if item[1].pod.metadata.name == name]
        if not older:
            return
        self.take_down_sandbox(older[0], told, True)
        for _ in range(20):
            if self.world.requests:
                self.serve(len(self.world.requests) - 1, Fate.ANSWERED)

    @rule(name=st.sampled_from(PODS), node=picks)
    def add_is_repeated_during_a_sweep(self, name: str, node: int) -> None:
        """An ADD fails, and so does undoing it; it is repeated when the sweep is about to free what it left."""
        where = self._node(node)
        agent = where.agent
        self.world.prompt = False
        self.make_pod(name, node, True)
        sandbox = next((item for item in where.sandboxes.values() if item.pod.metadata.name == name), None)
        if agent is None or sandbox is None:
            return
        self._serve_agent(agent, attach=Fate.LOST, delete=Fate.LOST)
        for held in ((), ("delete",)):
            agent.start(agent.gc())
            self._turn()
            self._serve_agent(agent, held)
            self.world.now += 31.0
        agent.start(agent.add(sandbox, uid_known=True))
        self._turn()
        self._serve_agent(agent, ("delete",))
        self._serve_agent(agent)

    @rule(node=picks, again=picks)
    def container_is_started_again_during_a_replay(self, node: int, again: int) -> None:
        """The DELs of a node's sandboxes wait on disk; while the first is carried out, another one is made."""
        where = self._node(node)
        agent, old = where.agent, list(where.sandboxes.values())
        if agent is None or len(old) < 2:
            return
        self.world.prompt = False
        for sandbox in old:
            self.world.destroy(where, sandbox)
            self._tell_del(where, sandbox.key)
            self._turn()
            self._serve_agent(agent, delete=Fate.LOST, replace=Fate.LOST)
        agent.start(agent.replay())
        self._turn()
        under_way = list(self.world.requests)
        sandbox = old[1 + again % (len(old) - 1)]
        self.world.ensure_sandbox(
            where, sandbox.pod, container_id=sandbox.container_id, ifname=sandbox.ifname
        )
        self._turn()
        self._serve_agent(agent, but=under_way)
        self._serve_agent(agent)

    @rule(name=st.sampled_from(PODS), node=picks, unanswered=st.sampled_from((Fate.ANSWERED, Fate.LOST)))
    def agent_is_stopped(self, name: str, node: int, unanswered: Fate) -> None:
        """An ADD that wires a pod is cut off, and all else; the agent ends when that is undone, as far as it can be."""
        self.world.prompt = False
        self.make_pod(name, node, True)
        where = self._node(node)
        agent = where.agent
        if agent is None:
            return
        self._serve_agent(agent, ("attach",))
        where.agent = None
        agent.stop()
        self._turn()
        self._serve_agent(agent, delete=unanswered, replace=unanswered)
        agent.kill()
        self._turn()

    def _serve_agent(
        self, agent: Agent, held: Collection[str] = (), but: Collection[Request] = (), **fates: Fate
    ) -> None:
        """Serve what an agent asks for until nothing is left, without the verbs ``held`` and the requests ``but``."""
        for _ in range(40):
            left = [
                item
                for item in self.world.requests
                if item.process is agent and item.verb not in held and item not in but
            ]
            if not left:
                return
            left[0].fate.set_result(fates.get(left[0].verb, Fate.ANSWERED))
            self._turn()
