"""The live part of ``fast-ctl trace``: packets from one pod to the other, watched on both nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fast.ctl.see.trace_report import BAD, NODE, OK, SKIPPED, UNKNOWN, Report
from fast.ctl.see.trace_steps import End, Nodes, drops_between

if TYPE_CHECKING:
    from fast.api.fastnode import FastNode

_WATCH_SECONDS = 6
_WATCH_STARTS_SECONDS = 1.5


async def probe(
    nodes: Nodes, report: Report, ends: tuple[End, End], told: dict[str, FastNode | None], port: int
) -> None:
    """Send packets from the first end to the second, and find where they are lost."""
    places = list(dict.fromkeys(end.node for end in ends if end.of_fast))
    watching = {node: asyncio.create_task(_watch(nodes, ends, node, told)) for node in places}
    await asyncio.sleep(_WATCH_STARTS_SECONDS)
    sent, why_not = await _send(nodes, ends, port)
    rules = {node: await task for node, task in watching.items()}
    if sent is None:
        report.add("probe", UNKNOWN, f"no packet could be sent: {why_not}")
        return
    report.delivered = sent["answered"] > 0
    if report.delivered:
        refused = ", by a refusal: nothing listens on the port" if sent["refused"] else ""
        text = f"{sent['answered']} of {sent['sent']} packets were answered{refused}"
        report.add("probe", OK, text)
        await _probe_size(nodes, report, ends, told)
        return
    _name_loss(report, ends, sent, rules)
    if report.cause is None or report.cause.name == NODE:
        await _name_by_counters(nodes, report, ends, port)


async def _send(nodes: Nodes, ends: tuple[End, End], port: int, size: int = 0) -> tuple[Any, str]:
    source, destination = ends
    more: tuple[str, ...] = ("--port", str(port)) if port else ()
    more += ("--size", str(size)) if size else ()
    return await nodes.ask(source.node, "probe", "send", str(source.address), str(destination.address), *more)


async def _watch(
    nodes: Nodes, ends: tuple[End, End], node: str, told: dict[str, FastNode | None]
) -> list[str]:
    """Return the netfilter rules of a node that drop packets between the ends, as far as it can be asked."""
    source, destination = ends
    other = source.node if node == destination.node else destination.node
    peer = told.get(other) if other != node else None
    tunnel: tuple[str, ...] = ()
    if peer is not None and peer.find_addresses():
        tunnel = ("--tunnel-from", str(peer.find_addresses()[0]), "--tunnel-port", str(peer.spec.tunnel.port))
    arguments = (str(source.address), str(destination.address), "--seconds", str(_WATCH_SECONDS), *tunnel)
    found, _ = await nodes.ask(node, "probe", "watch", *arguments)
    return [] if found is None else list(found["dropping"])


def _name_loss(
    report: Report, ends: tuple[End, End], sent: dict[str, Any], rules: dict[str, list[str]]
) -> None:
    if sent["error"]:
        text = f"{ends[0].name} cannot send: {sent['error']}"
        report.add("probe", BAD, text, "delete the pod: Fast does not repair inside a pod")
        return
    for node, found in rules.items():
        for rule in found:
            text = f"{node}, nftables: {rule}"
            report.add(
                "netfilter", BAD, text, f"remove that rule on {node}, or let it accept pods and the tunnel"
            )
            return
    report.add(
        "probe", SKIPPED, f"none of {sent['sent']} packets was answered; no netfilter rule dropped them"
    )


async def _name_by_counters(nodes: Nodes, report: Report, ends: tuple[End, End], port: int) -> None:
    """Say where packets were last seen: by counts of drops, then by what the receiver's programs count."""
    source, destination = ends
    for node in dict.fromkeys(end.node for end in ends if end.of_fast):
        rows, _ = await nodes.ask(node, "drops", "--since", "1m", "--all", "-o", "json")
        for one, other in ((source, destination), (destination, source)):
            found = drops_between(rows or [], one, other)
            if found is not None:
                text = f"{node} drops packets from {one.name} to {other.name}: the packet {found['what']}"
                report.add(
                    "drops", BAD, f"{text} ({found['reason']})", f"fast-ctl drops --node {node} -o wide"
                )
                return
    if not destination.of_fast:
        return
    arrived = await _arrived(nodes, ends, port)
    if arrived is None:
        return
    if arrived:
        ask = f"does it listen on port {port}?" if port else "does it answer pings?"
        text = f"{destination.node} hands the packets to {destination.name}, which does not answer: {ask}"
        report.add("receiver", BAD, text, f"kubectl exec {destination.name.split('/')[-1]} -- ss -lnt")
    elif source.node != destination.node:
        text = (
            f"{source.node} sends through the tunnel, and none of it reaches {destination.node}: what lies between the "
            "nodes drops it"
        )
        report.add("underlay", BAD, text, "allow UDP to the tunnel's port between nodes, and its size")


async def _arrived(nodes: Nodes, ends: tuple[End, End], port: int) -> bool | None:
    """Send once more; return whether the receiver's node counted packets that it handed to a pod."""
    before = await _handed_over(nodes, ends[1].node)
    sent, _ = await _send(nodes, ends, port)
    after = await _handed_over(nodes, ends[1].node)
    if sent is None or before is None or after is None:
        return None
    return bool(after - before >= sent["sent"])


async def _handed_over(nodes: Nodes, node: str) -> int | None:
    rows, _ = await nodes.ask(node, "metrics", "-o", "json")
    if rows is None:
        return None
    return sum(int(row["packets"]) for row in rows if row["reason"] in ("forward_local_pod", "stack_to_pod"))


async def _probe_size(
    nodes: Nodes, report: Report, ends: tuple[End, End], told: dict[str, FastNode | None]
) -> None:
    """Send packets of the pods' whole MTU: small ones pass where large ones do not."""
    node = told.get(ends[0].node)
    if node is None or not node.spec.pod_mtu:
        return
    size = node.spec.pod_mtu
    sent, _ = await _send(nodes, ends, 0, size)
    if sent is None:
        return
    if sent["answered"]:
        report.add("size", OK, f"packets of {size} bytes, the pods' MTU, get through")
        return
    report.delivered = False
    why = sent["error"] or "they are lost without a word"
    text = f"small packets pass, those of {size} bytes, the pods' MTU, do not: {why}"
    remedy = "raise the underlay's MTU on every device between the nodes, or set the agents' --mtu lower"
    report.add("size", BAD, text, remedy)
