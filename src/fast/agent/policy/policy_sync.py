"""Keeps the policy maps as the watched objects say: events in, plans out, carried out one at a time.

The event loop has the tables; writing is done in threads. If a write fails, everything is read back and compared again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge

from fast.api.core import Namespace, Node, Pod
from fast.api.fastnode import FastNode
from fast.api.ipendpoint import IpEndpoint
from fast.api.networkpolicy import NetworkPolicy
from fast.errors import AgentUnavailable, FastError, InvalidRange
from fast.net import IPAddress, map_key, parse_address
from fast.policy import (
    LocalPod,
    Maps,
    NodeAddress,
    PodAddress,
    PodPolicy,
    PolicyTables,
    Problem,
    SetPod,
    Write,
)
from fast.policy.policy_objects import ANNOTATION_MODE, MODE_AUDIT, PROTOCOLS, NamedPort
from fast.policy.policy_objects import Namespace as NamespaceLabels
from fast.policy.rule_groups import ref_of

log = structlog.get_logger()

#: How long events are gathered before they are planned together.
_GATHER_SECONDS = 0.005
_RETRY_SECONDS = 2.0

_FAILURES = Counter(
    "fast_policy_failures", "Plans of policy that could not be carried out; they are tried again."
)
_RESTRICTED = Gauge("fast_policy_restricted_pods", "Pods of this node that a policy isolates.")
_PROBLEMS = Gauge("fast_policy_problems", "Policies that are not, or not wholly, in force on this node.")


class PolicyMaps(Protocol):
    """The datapath's part. Blocking."""

    def read_policy(self) -> Maps:
        """Read everything back."""

    def apply_policy(self, writes: Iterable[Write]) -> None:
        """Carry out writes in order."""

    def forget_policy(self, keys: Iterable[bytes]) -> None:
        """Forget addresses that are gone."""

    def keep_policy_classes(self, known: Callable[[bytes], bool]) -> None:
        """Forget the classes of addresses that policy does not know."""


@dataclass(frozen=True, slots=True)
class PolicyKnown:
    """What the informers know now: mappings that they keep up to date."""

    policies: Mapping[str, NetworkPolicy]
    namespaces: Mapping[str, Namespace]
    records: Mapping[str, IpEndpoint]
    nodes: Mapping[str, Node]
    fast_nodes: Mapping[str, FastNode]
    pods: Mapping[str, Pod]


class PolicySync:
    """Feeds the policy maps. Everything but reading and writing maps is in the event loop."""

    def __init__(
        self,
        maps: PolicyMaps,
        known: PolicyKnown,
        report: Callable[[Problem], None],
        *,
        own_name: str,
        own_addresses: Collection[IPAddress],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            maps: The datapath.
            known: Everything as seen now.
            report: Told once of each problem that a policy has.
            own_name: This node.
            own_addresses: Its addresses.
            clock_ns: ``CLOCK_MONOTONIC``, as the programs read it.
        """
        self._maps = maps
        self._known = known
        self._report = report
        self._own_name = own_name
        self._own_addresses = tuple(own_addresses)
        self._clock_ns = clock_ns
        self._tables: PolicyTables | None = None
        self._records_of: dict[str, dict[str, IpEndpoint]] = {}
        self._node_addresses: dict[str, frozenset[IPAddress]] = {}
        self._gone: set[bytes] = set()
        self._told: frozenset[Problem] = frozenset()
        self._planning = asyncio.Lock()
        self._wake = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether the maps follow the policies: then an ADD may be served."""
        return self._tables is not None

    def records_of(self, uid: str) -> Collection[IpEndpoint]:
        """Return the records that this node's sandboxes of a pod hold."""
        return self._records_of.get(uid, {}).values()

    # ── events ──────────────────────────────────────────────────────────────────────────────────

    def policy_changed(self, old: NetworkPolicy | None, new: NetworkPolicy | None) -> None:
        """A policy appeared, changed or is gone."""
        if self._tables is None:
            return
        if new is not None:
            self._tables.set_policy(new)
        elif old is not None:
            self._tables.remove_policy(ref_of(old))
        self._wake.set()

    def namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        """A namespace appeared, changed or is gone."""
        if self._tables is None:
            return
        if new is not None:
            self._tables.set_namespace(_namespace(new))
        elif old is not None:
            self._tables.remove_namespace(old.metadata.name)
        self._wake.set()

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> None:
        """A record appeared, changed or is gone."""
        if self._tables is None:
            return
        shown = new or old
        address = shown.find_address() if shown is not None else None
        if shown is None or address is None:
            return
        name = shown.metadata.name
        new = new if new is not None and new.spec.container_id else None  # retained: no pod has it
        before = old.spec.pod.uid if old is not None and self._is_local(old) else ""
        after = new.spec.pod.uid if new is not None and self._is_local(new) else ""
        if before and before != after:
            self._records_of.get(before, {}).pop(name, None)
            self._enter_local(before)
        if new is None:
            self._tables.remove_address(address)
            self._gone.add(map_key(address))
        else:
            self._gone.discard(map_key(address))
            self._tables.set_address(_address(address, new))
        if after and new is not None:
            self._records_of.setdefault(after, {})[name] = new
            self._enter_local(after)
        self._wake.set()

    def node_changed(self, name: str) -> None:
        """A Node or FastNode of that name appeared, changed or is gone."""
        if self._tables is None:
            return
        node, fast_node = self._known.nodes.get(name), self._known.fast_nodes.get(name)
        addresses = set(self._own_addresses) if name == self._own_name else set()
        for text in fast_node.spec.addresses if fast_node is not None else ():
            with contextlib.suppress(InvalidRange):
                addresses.add(parse_address(text))
        for address in self._node_addresses.get(name, frozenset()) - addresses:
            self._tables.remove_address(address)
            self._gone.add(map_key(address))
        labels = dict(node.metadata.labels) if node is not None else {}
        for address in addresses:
            self._gone.discard(map_key(address))
            self._tables.set_node_address(NodeAddress(address, name, labels))
        self._node_addresses[name] = frozenset(addresses)
        self._wake.set()

    def pod_changed(self, pod: Pod) -> None:
        """A pod of this node changed: its labels count, also before its records have them."""
        if self._tables is not None and pod.sandbox_uid in self._records_of:
            self._enter_local(pod.sandbox_uid)
            self._wake.set()

    def _is_local(self, record: IpEndpoint) -> bool:
        spec = record.spec
        return bool(spec.node == self._own_name and spec.container_id and spec.pod.uid)

    def _enter_local(self, uid: str) -> None:
        assert self._tables is not None
        records = self._records_of.get(uid)
        if not records:
            self._records_of.pop(uid, None)
            self._tables.remove_local_pod(uid)
            return
        first = next(iter(records.values()))
        ref = first.spec.pod
        pod = self._known.pods.get(f"{ref.namespace}/{ref.name}")
        labels = first.spec.pod_labels
        if pod is not None and pod.sandbox_uid == uid:
            labels = pod.metadata.labels
        addresses = tuple(sorted((record.address for record in records.values()), key=map_key))
        self._tables.set_local_pod(
            LocalPod(uid, ref.namespace, ref.name, dict(labels), addresses, _named_ports(first))
        )

    # ── ADD ─────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, records: Collection[IpEndpoint]) -> None:
        """Have the rules of a pod in the maps, for the records that its ADD has claimed.

        Raises:
            AgentUnavailable: The policies are not in the maps yet, or the pod's rules do not fit. Retrying helps.
            DatapathError: The kernel refused.
        """
        for record in records:
            self.record_changed(self._known_local(record), record)
        if self._tables is None:
            raise AgentUnavailable("the network policies are not in the kernel's maps yet")
        await self._plan()
        for record in records:
            policy = self._tables.pod_policy(record.address)
            if policy is None:  # nobody knows which pod this is, so no policy selects it
                nothing = SetPod(
                    map_key(record.address), PodPolicy(peer_class=self._tables.class_of(record.address))
                )
                await asyncio.to_thread(self._maps.apply_policy, [nothing])
                continue
            if problems := self._tables.problems_of(record.spec.pod.uid):
                raise AgentUnavailable(f"the pod's network policies are not in force: {problems[0].message}")

    def _known_local(self, record: IpEndpoint) -> IpEndpoint | None:
        """Return the record as this has it, for whichever pod that was."""
        name = record.metadata.name
        return next((records[name] for records in self._records_of.values() if name in records), None)

    # ── plans ───────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Follow the objects until cancelled. Call it when every list is complete and the datapath is up."""
        while True:
            try:
                if self._tables is None:
                    await self._begin()
                await self._until_due()
                await self._plan()
            except FastError as error:
                _FAILURES.inc()
                log.warning("policy not written; trying again", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _begin(self) -> None:
        """Read the maps back, and compare them with everything that is known."""
        maps = await asyncio.to_thread(self._maps.read_policy)
        async with self._planning:
            tables = self._tables = PolicyTables()
            try:
                tables.adopt(maps)
                self._feed()
                await self._carry_out()
            except BaseException:
                self._tables = None
                raise
            await asyncio.to_thread(self._maps.apply_policy, list(self._every_local_pod(tables)))
            known = {map_key(a) for a in self._every_address()}
            await asyncio.to_thread(self._maps.keep_policy_classes, known.__contains__)
        log.info("network policies are in force", policies=len(self._known.policies))

    @staticmethod
    def _every_local_pod(tables: PolicyTables) -> Iterable[SetPod]:
        """Give what each local pod's entry says, so that the datapath can repair it."""
        for state in tables.pods:
            for key, policy in state.written.items():
                yield SetPod(key, policy)

    def _every_address(self) -> Iterable[IPAddress]:
        for record in self._known.records.values():
            if (address := record.find_address()) is not None:
                yield address
        for addresses in self._node_addresses.values():
            yield from addresses

    def _feed(self) -> None:
        self._records_of.clear()
        self._node_addresses.clear()
        self._gone.clear()
        known = self._known
        for namespace in known.namespaces.values():
            self.namespace_changed(None, namespace)
        for record in list(known.records.values()):
            self.record_changed(None, record)
        for name in {*known.fast_nodes, self._own_name}:
            self.node_changed(name)
        for policy in known.policies.values():
            self.policy_changed(None, policy)

    async def _until_due(self) -> None:
        """Wait for events, or until there is something to remove."""
        due = self._tables.next_plan_ns if self._tables is not None else None
        timeout = None if due is None else max(0.0, (due - self._clock_ns()) / 1e9)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
                await asyncio.sleep(_GATHER_SECONDS)

    async def _plan(self) -> None:
        async with self._planning:
            if self._tables is None:
                raise AgentUnavailable("the network policies are being read again")
            try:
                await self._carry_out()
            except BaseException:
                # What is in the maps now is not what the tables believe: compare everything again.
                self._tables = None
                self._wake.set()
                raise

    async def _carry_out(self) -> None:
        assert self._tables is not None
        self._wake.clear()
        plan = self._tables.plan(self._clock_ns())
        gone, self._gone = self._gone, set()
        if plan:
            await _finish(self._apply(list(plan)))
        if gone:
            await _finish(self._forget(gone))
        _RESTRICTED.set(sum(state.restricted for state in self._tables.pods))
        self._tell(plan.problems)

    async def _apply(self, writes: list[Write]) -> None:
        await asyncio.to_thread(self._maps.apply_policy, writes)

    async def _forget(self, keys: set[bytes]) -> None:
        await asyncio.to_thread(self._maps.forget_policy, keys)

    def _tell(self, problems: Collection[Problem]) -> None:
        _PROBLEMS.set(len({problem.policy for problem in problems}))
        for problem in set(problems) - self._told:
            log.warning(
                "policy not wholly in force",
                policy=str(problem.policy),
                reason=problem.kind.value,
                path=problem.path,
                message=problem.message,
            )
            self._report(problem)
        self._told = frozenset(problems)


async def _finish(work: Coroutine[object, object, None]) -> None:
    """Await it to its end, also if the caller is cancelled: writes must not overtake each other."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _namespace(namespace: Namespace) -> NamespaceLabels:
    meta = namespace.metadata
    audit = meta.annotations.get(ANNOTATION_MODE) == MODE_AUDIT
    return NamespaceLabels(meta.name, {"kubernetes.io/metadata.name": meta.name} | dict(meta.labels), audit)


def _named_ports(record: IpEndpoint) -> tuple[NamedPort, ...]:
    return tuple(
        NamedPort(item.name, PROTOCOLS[item.protocol], item.port)
        for item in record.spec.named_ports
        if item.protocol in PROTOCOLS
    )


def _address(address: IPAddress, record: IpEndpoint) -> PodAddress:
    return PodAddress(address, record.spec.pod.namespace, record.spec.pod_labels, _named_ports(record))
