"""Finds addresses about which records, sandboxes and eBPF maps disagree. Pure: the caller reads, this compares.

``fast-ctl ipam audit`` prints it, the agent exports it as ``fast_ipam_drift{kind}``. A difference that lasts only
while a pod comes or goes is not drift: :func:`lasting` keeps what two looks found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fast.api.core import Pod
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, PoolAddresses, pool_addresses
from fast.errors import InvalidRange
from fast.ipam.rules.record_states import is_retained
from fast.net import IPAddress, IPNetwork, parse_address
from fast.net.node_state import NodeState


class DriftKind(StrEnum):
    """How two of them differ."""

    UNREADABLE_RECORD = "unreadable-record"
    RECORD_WITHOUT_SANDBOX = "record-without-sandbox"
    SANDBOX_WITHOUT_RECORD = "sandbox-without-record"
    RECORD_OF_ANOTHER_SANDBOX = "record-of-another-sandbox"
    SANDBOX_NOT_IN_LOCAL_MAP = "sandbox-not-in-local-map"
    LOCAL_ENTRY_OF_ANOTHER_DEVICE = "local-entry-of-another-device"
    LOCAL_ENTRY_WITHOUT_SANDBOX = "local-entry-without-sandbox"
    RECORD_NOT_IN_CLUSTER_MAP = "record-not-in-cluster-map"
    CLUSTER_ENTRY_OF_ANOTHER_NODE = "cluster-entry-of-another-node"
    CLUSTER_ENTRY_WITHOUT_RECORD = "cluster-entry-without-record"
    RECORD_WITHOUT_POD = "record-without-pod"
    POD_WITHOUT_RECORD = "pod-without-record"


@dataclass(frozen=True, slots=True, order=True)
class Drift:
    """One difference: its kind, the address (or the record's name, if that is no address), and a sentence."""

    kind: DriftKind
    address: str
    text: str = field(compare=False)


def audit_node(
    records: Iterable[IpEndpoint], name: str, node: NodeState, underlays: Mapping[str, str]
) -> list[Drift]:
    """Compare the records of the cluster with a node's sandboxes and maps.

    Args:
        records: All of the cluster, retained ones included.
        name: The node's.
        node: Its state, read at about the same time.
        underlays: By node, the address that others tunnel to, as the FastNodes have it.

    Returns:
        The differences, by kind and address.
    """
    bound, found = _bound(records)
    mine = {address: record for address, record in bound.items() if record.spec.node == name}
    found += _records_and_sandboxes(mine, node)
    found += _sandboxes_and_local_map(node)
    found += _records_and_cluster_map(bound, node, underlays)
    return sorted(found)


def audit_cluster(records: Iterable[IpEndpoint], pools: Iterable[Ips], pods: Iterable[Pod]) -> list[Drift]:
    """Compare the records of the cluster with its pods. Needs no node.

    Args:
        records: All of the cluster.
        pools: All of the cluster: an address outside their subnets is none of Fast's.
        pods: All of the cluster.

    Returns:
        The differences, by kind and address. A record without a pod may be right: its sandbox may still run.
    """
    bound, found = _bound(records)
    living = {pod.sandbox_uid: pod for pod in pods}
    for address, record in bound.items():
        ref = record.spec.pod
        if ref.uid and ref.uid not in living:
            text = f"pod {ref.namespace}/{ref.name} (UID {ref.uid}) is gone; node {record.spec.node} has the sandbox"
            found.append(Drift(DriftKind.RECORD_WITHOUT_POD, str(address), text))
    subnets = [addresses.subnet for pool in pools if (addresses := _readable(pool)) is not None]
    by_name = {str(address): record for address, record in bound.items()}
    for pod in living.values():
        text = pod.status.pod_ip
        if not text or pod.spec.host_network or pod.finished or pod.terminating:
            continue
        known = by_name.get(text)
        if known is not None and known.spec.pod.uid == pod.sandbox_uid:
            continue
        if known is not None or any(_holds(subnet, text) for subnet in subnets):
            whose = f"is recorded for UID {known.spec.pod.uid}" if known else "has no record"
            found.append(
                Drift(DriftKind.POD_WITHOUT_RECORD, text, f"{text} of pod {pod.metadata.key} {whose}")
            )
    return sorted(found)


def lasting(first: Iterable[Drift], second: Iterable[Drift]) -> list[Drift]:
    """Give what two looks both found, with the second one's texts."""
    before = set(first)
    return [drift for drift in second if drift in before]


def _bound(records: Iterable[IpEndpoint]) -> tuple[dict[IPAddress, IpEndpoint], list[Drift]]:
    """The bound records by address, and those whose name is none."""
    bound: dict[IPAddress, IpEndpoint] = {}
    found = []
    for record in records:
        try:
            address = record.address
        except InvalidRange as error:
            found.append(Drift(DriftKind.UNREADABLE_RECORD, record.metadata.name, str(error)))
            continue
        if not is_retained(record):
            bound[address] = record
    return bound, found


def _records_and_sandboxes(mine: Mapping[IPAddress, IpEndpoint], node: NodeState) -> list[Drift]:
    found = []
    for address in mine.keys() | node.sandboxes.keys():
        record, sandbox = mine.get(address), node.sandboxes.get(address)
        held = f"{sandbox[0][0]} ({sandbox[0][1]})" if sandbox else ""
        if record is None:
            kind, text = (
                DriftKind.SANDBOX_WITHOUT_RECORD,
                f"sandbox {held} has it, and this node has no record",
            )
        elif sandbox is None:
            kind = DriftKind.RECORD_WITHOUT_SANDBOX
            text = f"recorded for sandbox {record.spec.container_id}, which does not have it"
        elif sandbox[0] != (record.spec.container_id, record.spec.interface):
            kind = DriftKind.RECORD_OF_ANOTHER_SANDBOX
            text = f"recorded for {record.spec.container_id} ({record.spec.interface}), but {held} has it"
        else:
            continue
        found.append(Drift(kind, str(address), text))
    return found


def _sandboxes_and_local_map(node: NodeState) -> list[Drift]:
    found = []
    for address in node.sandboxes.keys() | node.local.keys():
        sandbox, ifindex = node.sandboxes.get(address), node.local.get(address)
        if sandbox is None:
            kind, text = DriftKind.LOCAL_ENTRY_WITHOUT_SANDBOX, f"no sandbox has it; device {ifindex}"
        elif ifindex is None:
            kind, text = DriftKind.SANDBOX_NOT_IN_LOCAL_MAP, f"sandbox {sandbox[0][0]} has it"
        elif ifindex != sandbox[1]:
            kind = DriftKind.LOCAL_ENTRY_OF_ANOTHER_DEVICE
            text = f"the map says device {ifindex}, sandbox {sandbox[0][0]} has device {sandbox[1]}"
        else:
            continue
        found.append(Drift(kind, str(address), text))
    return found


def _records_and_cluster_map(
    bound: Mapping[IPAddress, IpEndpoint], node: NodeState, underlays: Mapping[str, str]
) -> list[Drift]:
    found = []
    for address in bound.keys() | node.cluster.keys():
        record, node_ip = bound.get(address), node.cluster.get(address)
        if record is None:
            kind, text = DriftKind.CLUSTER_ENTRY_WITHOUT_RECORD, f"the map says node {node_ip}"
        elif (underlay := underlays.get(record.spec.node)) is None:
            continue  # a node without a FastNode is reached by no tunnel, or, during an upgrade, as before
        elif node_ip is None:
            kind, text = DriftKind.RECORD_NOT_IN_CLUSTER_MAP, f"it is on node {record.spec.node} ({underlay})"
        elif node_ip != underlay:
            kind = DriftKind.CLUSTER_ENTRY_OF_ANOTHER_NODE
            text = f"the map says node {node_ip}, node {record.spec.node} has {underlay}"
        else:
            continue
        found.append(Drift(kind, str(address), text))
    return found


def _readable(pool: Ips) -> PoolAddresses | None:
    try:
        return pool_addresses(pool.spec)
    except InvalidRange:
        return None


def _holds(subnet: IPNetwork, text: str) -> bool:
    try:
        return parse_address(text) in subnet
    except InvalidRange:
        return False
