"""A node for tests: the tables, the maps as the kernel would hold them, and the world the oracle looks at."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from fast.net.address import map_key
from fast.policy import (
    Direction,
    LocalPod,
    Maps,
    Namespace,
    NodeAddress,
    Packet,
    Plan,
    PodAddress,
    PolicyTables,
)
from fast.policy.judge import Verdict, judge
from fast.policy.oracle import World, allows_direction
from fast.policy.rule_groups import ref_of

SECOND = 1_000_000_000


class Node:
    """Does what the agent does: tells the tables of events, carries plans out, writes entries of addresses."""

    def __init__(self, capacity=None) -> None:
        self.tables = PolicyTables(capacity)
        self.maps = Maps()
        self.world = World()
        self.now = 100 * SECOND
        self.watcher: Callable[[str], None] | None = None

    # ── events ──────────────────────────────────────────────────────────────────────────────────

    def namespace(self, name: str, labels: dict[str, str] | None = None, *, audit: bool = False) -> None:
        item = Namespace(name, {"kubernetes.io/metadata.name": name, **(labels or {})}, audit)
        self.world.namespaces[name] = item
        self.tables.set_namespace(item)

    def policy(self, policy) -> None:
        self.unpolicy(policy, tell=False)
        self.world.policies.append(policy)
        self.tables.set_policy(policy)

    def unpolicy(self, policy, *, tell: bool = True) -> None:
        ref = ref_of(policy)
        self.world.policies = [item for item in self.world.policies if ref_of(item) != ref]
        if tell:
            self.tables.remove_policy(ref)

    def remote(self, address: str, namespace: str, labels: dict[str, str], ports=()) -> None:
        item = PodAddress(ip_address(address), namespace, labels, tuple(ports))
        self.world.remote = [pod for pod in self.world.remote if pod.address != item.address] + [item]
        self.tables.set_address(item)

    def remote_gone(self, address: str) -> None:
        self.world.remote = [pod for pod in self.world.remote if pod.address != ip_address(address)]
        self.maps.classes.pop(map_key(ip_address(address)), None)
        self.tables.remove_address(ip_address(address))

    def node(self, address: str, name: str, labels: dict[str, str]) -> None:
        item = NodeAddress(ip_address(address), name, labels)
        self.world.nodes = [node for node in self.world.nodes if node.address != item.address] + [item]
        self.maps.nodes.add(map_key(item.address))
        self.tables.set_node_address(item)

    def local(self, name: str, namespace: str, labels: dict[str, str], addresses, ports=()) -> LocalPod:
        uid = f"uid of {namespace} {name}"
        given = tuple(ip_address(address) for address in addresses)
        pod = LocalPod(uid, namespace, name, labels, given, tuple(ports))
        self.world.pods = [item for item in self.world.pods if item.uid != uid] + [pod]
        self.tables.set_local_pod(pod)
        return pod

    def local_gone(self, pod: LocalPod) -> None:
        self.world.pods = [item for item in self.world.pods if item.uid != pod.uid]
        for key in pod.keys:
            self.maps.pods.pop(key, None)
        self.tables.remove_local_pod(pod.uid)

    # ── plans ───────────────────────────────────────────────────────────────────────────────────

    def plan(self, after: int = 0) -> Plan:
        """Plan and carry out; ``watcher`` looks at the maps after every write."""
        self.now += after
        plan = self.tables.plan(self.now)
        for write in plan:
            self.maps.apply(write)
            if self.watcher is not None:
                self.watcher(repr(write))
        for item in (*self.world.remote, *self.world.nodes):
            if not self.world.find_local(item.address):
                key = map_key(item.address)
                assert self.maps.classes.setdefault(key, self.tables.class_of(item.address)) == (
                    self.tables.class_of(item.address)
                )
        return plan

    def quiesce(self) -> None:
        """Let time pass until nothing is left to remove."""
        while (due := self.tables.next_plan_ns) is not None:
            self.now = max(self.now, due)
            self.plan()

    # ── verdicts ────────────────────────────────────────────────────────────────────────────────

    def verdict(self, packet: Packet) -> Verdict:
        return judge(self.maps, packet).verdict

    def directions(self, packet: Packet) -> tuple[bool, bool]:
        """Whether the maps let it out of its source, and into its destination."""
        allowed = {decision.direction: decision.allowed for decision in judge(self.maps, packet).decisions}
        return allowed.get(Direction.EGRESS, True), allowed.get(Direction.INGRESS, True)

    def expected(self, packet: Packet) -> tuple[bool, bool]:
        """The same by the oracle."""
        return (
            allows_direction(self.world, packet, Direction.EGRESS),
            allows_direction(self.world, packet, Direction.INGRESS),
        )

    def check(self, packets) -> None:
        """Compare maps and oracle, the audited verdicts included."""
        for packet in packets:
            assert self.directions(packet) == self.expected(packet), packet
            for decision in judge(self.maps, packet).audit:
                audited = allows_direction(self.world, packet, decision.direction, audited=True)
                assert decision.allowed == audited, packet
