"""Explains why a pod has no address yet: which annotation, which pool and which rule keep it waiting. Writes nothing.

Asks the rules that the agent claims by, on a snapshot. Needs no rights that an agent does not have.
"""

from __future__ import annotations

from fast.api.core import Namespace, Pod
from fast.api.ipendpoint import PodRef
from fast.api.ips import ANNOTATION_POOLS, DEFAULT_POOL
from fast.errors import InvalidConfig, IPAMError
from fast.ipam.claim.allocator import refusal
from fast.ipam.pool.ledger import Ledger
from fast.ipam.rules.annotations import misspelt
from fast.ipam.rules.claim_request import Attachment, ClaimRequest, NodeIdentity, resolve_pools
from fast.ipam.rules.claim_rules import held_by
from fast.ipam.rules.record_states import is_retained
from fast.ipam.store.snapshot import Snapshot, SnapshotStore
from fast.net import record_name


def explain_waiting(
    snapshot: Snapshot, pod: Pod, namespace: Namespace | None, node_labels: dict[str, str]
) -> list[str]:
    """Say, in sentences, what stands between the pod and an address.

    Args:
        snapshot: Records and pools of the cluster.
        pod: The pod, without an address.
        namespace: Its namespace; None if it cannot be read.
        node_labels: The labels of its node; empty if it has none yet.
    """
    if pod.spec.host_network:
        return ["it uses its node's network, and gets no address of its own"]
    if pod.finished:
        return [f"it has finished ({pod.status.phase}), and needs no address"]
    said = [f"annotation {key} means nothing to Fast; did you mean {meant}?" for key, meant in misspelt(pod)]
    said.append(_named_by(pod, namespace))
    if not pod.spec.node_name:
        said.append("it is not on a node yet: an address is claimed only when its sandbox is made")
    try:
        request = resolve_pools(pod, namespace)
    except InvalidConfig as error:
        return [*said, str(error)]
    ledger = Ledger(SnapshotStore(snapshot), "", clock=lambda: 0.0)
    identity = NodeIdentity(pod.spec.node_name, "", labels=node_labels)
    said += [_of_pool(ledger, name, request, identity) for name in request.pools]
    said += _of_sticky_key(ledger, request)
    attachment = Attachment("", "eth0", PodRef(pod.metadata.namespace, pod.metadata.name, pod.sandbox_uid))
    for address in request.addresses:
        holder = snapshot.records.get(record_name(address))
        state = held_by(holder, attachment) if holder is not None else "is free"
        said.append(f"it asks for {address} and no other, which {state}")
    return said


def _named_by(pod: Pod, namespace: Namespace | None) -> str:
    if (text := pod.metadata.annotations.get(ANNOTATION_POOLS)) is not None:
        return f"its annotation {ANNOTATION_POOLS} names {text!r}"
    if namespace is not None and (text := namespace.metadata.annotations.get(ANNOTATION_POOLS)) is not None:
        return f"the annotation {ANNOTATION_POOLS} of namespace {namespace.metadata.name} names {text!r}"
    return f"neither it nor its namespace has the annotation {ANNOTATION_POOLS}: it takes from {DEFAULT_POOL}"


def _of_pool(ledger: Ledger, name: str, request: ClaimRequest, node: NodeIdentity) -> str:
    entry = ledger.pools.get(name)
    if entry is None:
        return f"there is no Ips named {name!r}"
    refused: tuple[type[IPAMError], str] | None = refusal(entry, request, node)
    if refused is not None:
        return refused[1]
    counts = ledger.counts(name)
    return f"pool {name} {'is exhausted' if not counts.free else 'can serve it'} ({counts})"


def _of_sticky_key(ledger: Ledger, request: ClaimRequest) -> list[str]:
    said = []
    for key in request.sticky_keys:
        for record in ledger.of_sticky_key(key):
            address, spec = record.metadata.name, record.spec
            if is_retained(record):
                said.append(f"{address} is retained for it, as {key}")
            else:
                said.append(
                    f"it waits for {address}, which the pod before it still holds on node {spec.node}"
                )
    return said
