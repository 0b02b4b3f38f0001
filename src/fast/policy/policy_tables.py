"""The tables of design §8 together: events go in, plans come out.

Events change the tables only; :meth:`PolicyTables.plan` computes what they come to. To have every packet get the old
or the new verdict at every moment, plan after each event; events planned together are one change, in which each address
and each pod changes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fast.net.address import IPAddress, map_key
from fast.policy.addresses import Addresses
from fast.policy.classes import PeersMap, RuleSet
from fast.policy.map_layout import Capacity, PodPolicy
from fast.policy.matching import Namespaces, Peers, Watches
from fast.policy.plan import Plan
from fast.policy.planning import Planning
from fast.policy.pods import Pods
from fast.policy.policy_objects import LocalPod, Namespace, NodeAddress, PodAddress, PolicyRef, Problem
from fast.policy.recipes import Recipes
from fast.policy.restart import Remembered
from fast.policy.rule_groups import Policy, Subject
from fast.policy.selection import PolicyIndex, selects_pod

if TYPE_CHECKING:
    from fast.policy.compiled_maps import Maps


class PolicyTables:
    """What policy means on this node, kept up to date by events.

    Not thread-safe. Nothing is raised for what objects say: see :attr:`Plan.problems`.
    """

    def __init__(self, capacity: Capacity | None = None) -> None:
        """Begin with empty maps; see :meth:`adopt` for others."""
        self.namespaces = Namespaces()
        self.policies = PolicyIndex(self.namespaces)
        self.peers = Peers(self.namespaces)
        self.watches = Watches(self.peers)
        self.addresses = Addresses(self.peers, self.watches)
        self.maps = PeersMap()
        self.capacity = capacity or Capacity()
        self.recipes = Recipes(self.peers, self.watches, self.maps, self.capacity)
        self.pods = Pods(self.policies, self.recipes, self.namespaces)
        self._records: dict[bytes, PodAddress] = {}
        self._planning = Planning(self)
        self._now_ns = 0

    # ── restart ─────────────────────────────────────────────────────────────────────────────────

    def adopt(self, maps: Maps) -> None:
        """Begin with what the maps hold already: the first plan writes the difference. Call it before any plan.

        The first plan has to come after every list is complete: until then the maps stay as they are.
        """
        self._planning.remember(Remembered(maps))

    # ── events ──────────────────────────────────────────────────────────────────────────────────

    def set_namespace(self, namespace: Namespace) -> None:
        """A namespace is there, or its labels or annotation changed: its profiles are matched again."""
        before = self.namespaces.set(namespace)
        if before == namespace:
            return
        if before is None or before.labels != namespace.labels:
            self.addresses.rematch(namespace.name)
        self.pods.touch_namespace(namespace.name)

    def remove_namespace(self, name: str) -> None:
        """A namespace is gone. While pods of it are left, it counts with the labels it had last."""
        self.namespaces.remove(name)

    def set_policy(self, policy: Policy) -> None:
        """A policy is there or changed. Costs nothing where it selects no pod of this node."""
        self._touch(self.policies.set(policy))

    def remove_policy(self, ref: PolicyRef) -> None:
        """A policy is gone."""
        self._touch(self.policies.remove(ref))

    def set_address(self, address: PodAddress) -> None:
        """A pod's address is there or changed (IpEndpoint). What a local pod says of its own address counts more."""
        key = map_key(address.address)
        if key in self.pods.by_key:
            self._records[key] = address
            return
        self.addresses.enter(key, address.namespace, address.labels, address.named_ports)

    def set_node_address(self, address: NodeAddress) -> None:
        """A node's address is there, or its labels changed."""
        key = map_key(address.address)
        if key not in self.pods.by_key:
            self.addresses.enter(key, None, address.labels)

    def remove_address(self, address: IPAddress) -> None:
        """An address of a pod or node is gone; delete its entry before carrying the next plan out."""
        key = map_key(address)
        self._records.pop(key, None)
        if key not in self.pods.by_key:
            self.addresses.remove(key)

    def set_local_pod(self, pod: LocalPod) -> None:
        """A pod of this node is there (ADD, before its programs are linked) or changed."""
        before = self.pods.find(pod.uid)
        gone = set(before.pod.keys).difference(pod.keys) if before else set()
        for key in pod.keys:
            other = self.pods.by_key.get(key)
            if other is not None and other.pod.uid != pod.uid:
                self.remove_local_pod(other.pod.uid)
        state = self.pods.enter(pod)
        self._planning.remembered_pod(state)
        for key in pod.keys:
            self.addresses.enter(key, pod.namespace, pod.labels, pod.named_ports)
        for key in gone:
            self._give_back(key)

    def remove_local_pod(self, uid: str) -> None:
        """A pod of this node is gone; delete its entries before carrying the next plan out."""
        state = self.pods.remove(uid, self._now_ns)
        for key in state.pod.keys if state else ():
            self._give_back(key)

    def _give_back(self, key: bytes) -> None:
        """Believe the record again about an address that no local pod has any more."""
        record = self._records.pop(key, None)
        if record is None:
            self.addresses.remove(key)
        else:
            self.addresses.enter(key, record.namespace, record.labels, record.named_ports)
            self._planning.rewrite(key)

    def _touch(self, subjects: tuple[Subject | None, ...]) -> None:
        for state in self.pods:
            if any(selects_pod(subject, state.pod, self.namespaces) for subject in subjects):
                self.pods.dirty[state] = None

    # ── what comes out ──────────────────────────────────────────────────────────────────────────

    def plan(self, now_ns: int) -> Plan:
        """Give the writes that bring the maps to what the tables say; the tables take them for carried out.

        Args:
            now_ns: ``CLOCK_MONOTONIC``, as the programs read it.
        """
        self._now_ns = now_ns
        return self._planning.plan(now_ns)

    @property
    def next_plan_ns(self) -> int | None:
        """When there will be something to remove; None if there is nothing."""
        return self._planning.next_plan_ns

    def class_of(self, address: IPAddress) -> int:
        """The class to write with an address's entry, as of the last plan."""
        cell = self.addresses.find_cell(map_key(address))
        return 0 if cell is None or cell.peer_class is None else cell.peer_class.number

    def pod_policy(self, address: IPAddress) -> PodPolicy | None:
        """Policy's part of a local pod's entry, as of the last plan."""
        key = map_key(address)
        state = self.pods.by_key.get(key)
        return None if state is None else state.written.get(key)

    def find_rule_set(self, number: int) -> RuleSet | None:
        """The rule set with this page, also for ten minutes after it is gone."""
        return self._planning.find_rule_set(number)

    def problems_of(self, uid: str) -> list[Problem]:
        """Why a local pod is pending, or has older rules than its policies say."""
        state = self.pods.find(uid)
        recipes = state.recipes.values() if state else ()
        return [recipe.too_large for recipe in recipes if recipe is not None and recipe.too_large is not None]
