"""Explains one address: who holds it, on which evidence, and which rule keeps or frees it. Writes nothing.

The rules asked are those that agent and controller act by; nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fast.api.core import Event
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, pool_addresses
from fast.api.resources import EVENTS
from fast.errors import Forbidden, InvalidRange
from fast.ipam.release.controller_sweep import plan_sweep, pod_of
from fast.ipam.rules import agent_gc_rules, controller_gc_rules, record_states
from fast.ipam.rules.claim_request import AttachmentKey, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.store.live_reads import NAMESPACE, one_look
from fast.ipam.store.snapshot import Snapshot
from fast.kube import KubeClient
from fast.net import IPAddress, record_name


@dataclass(frozen=True, slots=True)
class ThisNode:
    """The node on which the question is asked: who it is, and which sandbox has which address."""

    identity: NodeIdentity
    sandboxes: Mapping[IPAddress, AttachmentKey]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of one address.

    Attributes:
        address: In its usual spelling.
        state: ``bound``, ``retained``, ``free``, or ``in no pool``.
        record: Its record, where there is one.
        pools: Names of the pools that hold it.
        verdicts: Who decided what by which rule, on which evidence.
        history: What is known of its past, oldest first: times and sentences.
    """

    address: str
    state: str
    record: IpEndpoint | None
    pools: tuple[str, ...]
    verdicts: tuple[tuple[str, Decision], ...]
    history: tuple[tuple[str, str], ...]


def records_of_pod(snapshot: Snapshot, namespace: str, name: str) -> list[IpEndpoint]:
    """Give the records that name this pod, whatever its UID, retained ones included."""
    wanted = (namespace, name)
    return [
        item for item in snapshot.records.values() if (item.spec.pod.namespace, item.spec.pod.name) == wanted
    ]


async def explain(
    client: KubeClient, snapshot: Snapshot, address: IPAddress, node: ThisNode | None = None
) -> Explanation:
    """Explain an address.

    Args:
        client: The cluster; asked live for what decides.
        snapshot: Its records and pools.
        address: Which.
        node: The node that the question is asked on, if any: its agent's rules are asked, too.

    Raises:
        KubeError: The API server refused or is away.
    """
    record = snapshot.records.get(record_name(address))
    pools = tuple(sorted(name for name, pool in snapshot.pools.items() if _holds(pool, address)))
    if record is None:
        state = "free" if pools else "in no pool"
    else:
        state = "retained" if record_states.is_retained(record) else "bound"
    verdicts: list[tuple[str, Decision]] = []
    if record is not None:
        verdicts.append(("controller", await _by_the_controller(client, snapshot, record)))
        if node is not None and record.spec.node == node.identity.name:
            verdicts.append((f"agent of {record.spec.node}", _by_its_agent(record, address, node)))
    history = await _history(client, record, address)
    return Explanation(str(address), state, record, pools, tuple(verdicts), history)


async def _by_the_controller(client: KubeClient, snapshot: Snapshot, record: IpEndpoint) -> Decision:
    """What the controller's sweep would decide. The pod is read even if its node alone decides."""
    cluster = await one_look(client, NAMESPACE, unknown_seconds=math.inf)
    if not record_states.is_retained(record):
        node, pod = await cluster.node(record.spec.node), await pod_of(record, cluster)
        silent = cluster.silent_seconds(record.spec.node)
        return controller_gc_rules.on_controller_sweep(record, pod, node, silent)
    try:
        plan = await plan_sweep(snapshot.records.values(), cluster)
    except Forbidden as error:  # an agent may not list StatefulSets; the controller may
        return Decision(
            Action.KEEP, "cannot-tell", f"the controller decides; this account may not ask: {error}"
        )
    return next(finding.decision for finding in (*plan.to_free, *plan.kept) if finding.record is record)


def _by_its_agent(record: IpEndpoint, address: IPAddress, node: ThisNode) -> Decision:
    """What a first sweep of the node's agent would say."""
    key = (record.spec.container_id, record.spec.interface)
    return agent_gc_rules.on_agent_sweep(
        record,
        node.identity,
        has_sandbox=node.sandboxes.get(address) == key,
        adding=False,
        sighting=None,
        now=0.0,
    )


def _holds(pool: Ips, address: IPAddress) -> bool:
    try:
        found = pool_addresses(pool.spec)
    except InvalidRange:
        return False
    return address.version == found.version and address in found.usable


async def _history(
    client: KubeClient, record: IpEndpoint | None, address: IPAddress
) -> tuple[tuple[str, str], ...]:
    """What the record and the Events still kept say, oldest first."""
    known = []
    uid = ""
    if record is not None:
        pod = record.spec.pod
        uid = pod.uid
        known.append((record.metadata.creation_timestamp or "", f"claimed from pool {record.spec.pool}"))
    try:
        events = (await client.list(EVENTS)).items
    except Forbidden as error:  # an agent's own account has no business with Events
        events = []
        known.append(("", f"Events cannot be read: {error}"))
    for event in events:
        if _is_about(event, uid, address):
            about = f"{event.involved_object.kind} {event.involved_object.name}"
            times = f" ({event.count} times)" if event.count > 1 else ""
            known.append(
                (
                    event.last_timestamp or event.metadata.creation_timestamp or "",
                    f"{event.reason} on {about}{times}: {event.message}",
                )
            )
    return tuple(sorted(known))


def _is_about(event: Event, pod_uid: str, address: IPAddress) -> bool:
    """Whether the Event is Fast's word on this pod, or names the address as a whole word."""
    if not event.source.component.startswith("fast-"):
        return False
    words = event.message.replace(":", " ").replace(",", " ").split()
    return bool(pod_uid and event.involved_object.uid == pod_uid) or bool(
        {str(address), record_name(address)} & {word.strip(".;()") for word in words}
    )
