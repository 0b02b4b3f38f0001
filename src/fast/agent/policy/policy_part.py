"""Everything of NetworkPolicy that the agent starts, wired up. No decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from fast.agent.policy.label_writer import LabelWriter
from fast.agent.policy.policy_sync import PolicyKnown, PolicyMaps, PolicySync
from fast.api.core import Namespace, Node, Pod
from fast.api.fastnode import FastNode
from fast.api.meta import HasMetadata
from fast.api.resources import NETWORKPOLICIES, reference_to
from fast.ipam import KubeStore
from fast.ipam.store.record_store import EndpointChange
from fast.kube import Change, EventRecorder, Informer, KubeClient
from fast.net import IPAddress
from fast.policy import Problem


class PolicyPart:
    """The informer of NetworkPolicies, what follows it, and what it needs of the agent's other informers."""

    def __init__(
        self,
        client: KubeClient,
        store: KubeStore,
        informers: tuple[Informer[Node], Informer[FastNode], Informer[Pod], Informer[Namespace]],
        maps: PolicyMaps,
        events: EventRecorder,
        *,
        own_name: str,
        own_addresses: Collection[IPAddress],
    ) -> None:
        """Connect; nothing runs before :meth:`run`.

        Args:
            client: The cluster.
            store: Records of addresses.
            informers: Of Nodes, FastNodes, this node's Pods, Namespaces.
            maps: The datapath.
            events: Tells people of policies that are not in force.
            own_name: This node.
            own_addresses: Its addresses.
        """
        nodes, fast_nodes, pods, namespaces = informers
        self.informer = Informer(client, NETWORKPOLICIES)
        self._events = events
        known = PolicyKnown(
            self.informer.cache,
            namespaces.cache,
            store.endpoints,
            nodes.cache,
            fast_nodes.cache,
            pods.cache,
        )
        self.sync = PolicySync(maps, known, self._tell, own_name=own_name, own_addresses=own_addresses)
        self._labels = LabelWriter(pods.cache, self.sync.records_of, store.replace)
        self.informer.add_handler(_both(self.sync.policy_changed))
        namespaces.add_handler(_both(self.sync.namespace_changed))
        nodes.add_handler(lambda change: self.sync.node_changed(change.current.metadata.name))
        fast_nodes.add_handler(lambda change: self.sync.node_changed(change.current.metadata.name))
        pods.add_handler(self._pod_changed)

    def record_changed(self, change: EndpointChange) -> None:
        """Take note of a changed record."""
        self.sync.record_changed(change.old, change.new)

    async def run(self) -> None:
        """Follow until cancelled; every list must be complete, and the datapath up."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sync.run())
            group.create_task(self._labels.run())

    def _pod_changed(self, change: Change[Pod]) -> None:
        if change.new is None:
            return
        if change.old is not None and (
            change.old.metadata.labels == change.new.metadata.labels and change.old.spec == change.new.spec
        ):
            return
        self.sync.pod_changed(change.new)
        self._labels.pod_changed(f"{change.new.metadata.namespace}/{change.new.metadata.name}")

    def _tell(self, problem: Problem) -> None:
        """Record an Event on the policy."""
        ref = problem.policy
        policy = self.informer.cache.get(f"{ref.namespace}/{ref.name}")
        if policy is not None:
            text = f"{problem.path}: {problem.message}" if problem.path else problem.message
            self._events.event(reference_to(policy), "Warning", problem.kind.value, text)


T = TypeVar("T", bound=HasMetadata)


def _both(handler: Callable[[T | None, T | None], None]) -> Callable[[Change[T]], None]:
    return lambda change: handler(change.old, change.new)
