"""Reads and prints what ``fast-ctl ipam why`` explains. Explaining is in fast.ipam.explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fast.api.resources import NAMESPACES, NODES, PODS
from fast.ctl.printable import printable
from fast.errors import FastError, InvalidRange, NotFound
from fast.ipam import NodeIdentity
from fast.ipam.explain.waiting import explain_waiting
from fast.ipam.explain.why import Explanation, ThisNode, explain, records_of_pod
from fast.ipam.store.snapshot import Snapshot, read_snapshot
from fast.kube import KubeClient
from fast.net import IPAddress, parse_address, parse_record_name
from fast.net.node_state import NodeState

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def explain_all(
    client: KubeClient, what: str, namespace: str, node: str, here: NodeState | None
) -> list[Explanation]:
    """Explain an address, or every address of a pod.

    Args:
        client: The cluster.
        what: An address, a record's name, a pod's name, or NAMESPACE/NAME.
        namespace: Of a pod named without one.
        node: The Node whose kernel ``here`` shows.
        here: What it says; None if this is no node.

    Raises:
        NoAddress: The pod has no address; says why.
        KubeError: The API server refused or is away.
    """
    snapshot = await read_snapshot(client, pods=False)
    address = _address(what)
    if address is not None:
        wanted = [address]
    else:
        of, _, name = what.rpartition("/")
        wanted = [record.address for record in records_of_pod(snapshot, of or namespace, name)]
        if not wanted:
            raise NoAddress(await _why_none(client, snapshot, of or namespace, name))
    this_node = None if here is None else _this_node(node, here)
    return [await explain(client, snapshot, address, this_node) for address in wanted]


class NoAddress(FastError):
    """The pod has no address; the message says why, a line for each reason."""


async def _why_none(client: KubeClient, snapshot: Snapshot, namespace: str, name: str) -> str:
    try:
        pod = await client.get(PODS, name, namespace)
    except NotFound:
        return f"there is no pod {namespace}/{name}, and no address is recorded for one"
    of = await client.get(NAMESPACES, namespace)
    node = pod.spec.node_name
    labels = (await client.get(NODES, node)).metadata.labels if node else {}
    reasons = explain_waiting(snapshot, pod, of, labels)
    return "\n  ".join((f"pod {namespace}/{name} has no address:", *map(printable, reasons)))


def _this_node(name: str, here: NodeState) -> ThisNode:
    identity = NodeIdentity(name, _BOOT_ID.read_text().strip())
    return ThisNode(identity, {address: key for address, (key, _) in here.sandboxes.items()})


def _address(text: str) -> IPAddress | None:
    for parse in (parse_address, parse_record_name):
        try:
            return parse(text)
        except InvalidRange:
            continue
    return None


def explanation_row(found: Explanation) -> dict[str, Any]:
    """An explanation as JSON and YAML have it."""
    spec = found.record.spec if found.record else None
    return {
        "address": found.address,
        "state": found.state,
        "pools": list(found.pools),
        "owner": None
        if spec is None
        else {
            "pool": spec.pool,
            "namespace": spec.pod.namespace,
            "pod": spec.pod.name,
            "podUID": spec.pod.uid,
            "containerID": spec.container_id,
            "interface": spec.interface,
            "node": spec.node,
            "bootID": spec.boot_id,
            "stickyKey": spec.sticky_key,
        },
        "verdicts": [
            {"by": who, "action": item.action.value, "rule": item.rule, "evidence": item.evidence}
            for who, item in found.verdicts
        ],
        "history": [{"time": when, "what": text} for when, text in found.history],
    }


def explanation_text(found: Explanation) -> str:
    """An explanation for people."""
    lines = [f"{found.address} is {found.state}"]
    if found.pools:
        lines.append(f"  pools:   {', '.join(found.pools)}")
    if found.record is not None:
        spec = found.record.spec
        lines.append(f"  pod:     {spec.pod.namespace}/{spec.pod.name} (UID {spec.pod.uid or 'unknown'})")
        if spec.container_id:
            lines.append(f"  sandbox: {spec.container_id}, interface {spec.interface}")
            lines.append(f"  node:    {spec.node}, boot {spec.boot_id}")
        if spec.sticky_key:
            lines.append(f"  kept for {spec.sticky_key}")
    for who, item in found.verdicts:
        lines.append(f"  {who}: {item.action.value}, rule {item.rule}: {item.evidence}")
    lines += [f"  {when or 'at some time'}: {text}" for when, text in found.history]
    if not found.history:
        lines.append("  no history is known: Events are kept for an hour, by default")
    return "\n".join(map(printable, lines))
