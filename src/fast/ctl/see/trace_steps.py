"""The steps of ``fast-ctl trace``: what the API server says of both ends, then what both nodes say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fast.api.fastnode import SILENT_SECONDS, FastNode, lease_name
from fast.api.resources import EVENTS, FASTNODES, IPENDPOINTS, LEASES, PODS
from fast.ctl.reach.node_runner import run_on_nodes
from fast.ctl.see.trace_report import BAD, NODE, OK, SKIPPED, UNKNOWN, Report
from fast.errors import InvalidRange, NotFound
from fast.net import IPAddress, parse_address, record_name

if TYPE_CHECKING:
    from fast.api.core import Pod
    from fast.ctl.reach.node_runner import NodeRunner
    from fast.kube import KubeClient

_NODE_SECONDS = 15.0
#: Fast's own namespace, where the heartbeats are.
_NAMESPACE = "fast-system"


@dataclass(slots=True)
class End:
    """One end of a trace; ``node`` is empty if it is no pod of Fast's."""

    name: str
    address: IPAddress | None = None
    node: str = ""
    host_network: bool = False

    @property
    def of_fast(self) -> bool:
        """Whether the address is a pod's that Fast wired."""
        return self.address is not None and bool(self.node) and not self.host_network


class Nodes:
    """Runs ``fast-ctl`` on nodes, and reads the JSON it prints."""

    def __init__(self, runner: NodeRunner) -> None:
        self._runner = runner

    async def ask(self, node: str, *arguments: str) -> tuple[Any, str]:
        """Return what the command printed, and why it did not; one of both is empty."""
        outcome = (await run_on_nodes(self._runner, [node], arguments, seconds=_NODE_SECONDS))[node]
        if outcome.unreachable:
            return None, f"{node} cannot be asked: {outcome.unreachable}"
        try:
            return json.loads(outcome.stdout), ""
        except ValueError:
            said = outcome.stderr.decode(errors="replace").strip().splitlines()
            return None, said[-1].removeprefix("Error: ") if said else f"exit status {outcome.status}"


async def find_end(client: KubeClient, report: Report, text: str, namespace: str, family: int) -> End:
    """Find out who an end is; a pod that has no address yet, or is none, stops the trace."""
    try:
        address = parse_address(text)
    except InvalidRange:
        of, _, name = text.rpartition("/")
        return await _find_pod(client, report, of or namespace, name, family)
    end = End(text, address)
    try:
        record = await client.get(IPENDPOINTS, record_name(address))
        end.node = record.spec.node
        end.name = f"{record.spec.pod.namespace}/{record.spec.pod.name}"
    except NotFound:
        report.add("record", SKIPPED, f"{address} is no pod's address")
    return end


async def _find_pod(client: KubeClient, report: Report, namespace: str, name: str, family: int) -> End:
    end = End(f"{namespace}/{name}")
    try:
        pod = await client.get(PODS, name, namespace)
    except NotFound:
        report.stop("pod", f"there is no pod {end.name}", "kubectl get pods -A shows which there are")
        return end
    end.node, end.host_network = pod.spec.node_name, pod.spec.host_network
    addresses = [item.ip for item in pod.status.pod_ips] or [pod.status.pod_ip]
    end.address = next(
        (parse_address(ip) for ip in addresses if ip and (":" in ip) == (family == 6)),  # noqa: PLR2004
        None,
    )
    if end.address is None:
        why = await _why_no_address(client, pod)
        report.stop("pod", f"{end.name} has no address: {why}", f"kubectl -n {namespace} describe pod {name}")
    else:
        report.add("pod", OK, f"{end.name} is {end.address} on {end.node}")
    return end


async def _why_no_address(client: KubeClient, pod: Pod) -> str:
    """Return the newest warning about the pod."""
    selector = f"involvedObject.name={pod.metadata.name},involvedObject.kind=Pod"
    events = (await client.list(EVENTS, pod.metadata.namespace, field_selector=selector)).items
    warnings = sorted(
        (
            event
            for event in events
            if event.type == "Warning" and event.involved_object.uid == pod.metadata.uid
        ),
        key=lambda event: event.last_timestamp or "",
    )
    fast = [event for event in warnings if event.source.component.startswith("fast")]
    chosen = (fast or warnings)[-1:]
    return (
        f"{chosen[0].reason}: {chosen[0].message}" if chosen else f"it is {pod.status.phase or 'not running'}"
    )


async def look_at_record(client: KubeClient, report: Report, end: End) -> None:
    """Compare the end's record with its pod."""
    assert end.address is not None
    try:
        spec = (await client.get(IPENDPOINTS, record_name(end.address))).spec
    except NotFound:
        text = f"{end.name} has {end.address}, but there is no IpEndpoint {record_name(end.address)}"
        report.add("record", BAD, text, f"fast-ctl ipam audit --node {end.node}; then delete the pod")
        return
    holder = f"{spec.pod.namespace}/{spec.pod.name}"
    if (holder, spec.node) != (end.name, end.node):
        text = f"the record of {end.address} names {holder} on {spec.node}, not {end.name} on {end.node}"
        report.add("record", BAD, text, f"fast-ctl ipam why {end.address}")
    else:
        report.add("record", OK, f"{end.address} is held by {holder}, pool {spec.pool}")


async def look_at_node(client: KubeClient, report: Report, node: str) -> FastNode | None:
    """Look at what the node's agent says, and whether it still says it."""
    try:
        found = await client.get(FASTNODES, node)
    except NotFound:
        report.add(
            "node", BAD, f"{node} has no FastNode: no agent ever ran there", "kubectl get pods -A -o wide"
        )
        return None
    silent = await _silent_seconds(client, node)
    if silent > SILENT_SECONDS:
        text = f"the agent on {node} has been silent for {silent:.0f} s: it is dead or hangs"
        report.add(
            "node", BAD, text, f"look at the log of the agent on {node}; restart it (pods keep their network)"
        )
    status = found.status
    errors = [] if not hasattr(status, "problems") else [p for p in status.problems if p.severity == "error"]
    for problem in errors:
        report.add(NODE, BAD, f"{node}: {problem.problem}", problem.remedy)
    if not found.find_addresses():
        report.add(NODE, BAD, f"{node}: the datapath is not up", f"fast-ctl doctor on {node}")
    elif not errors and silent <= SILENT_SECONDS:
        report.add(NODE, OK, f"{node} is {found.find_addresses()[0]}, pod MTU {found.spec.pod_mtu}")
    return found


async def _silent_seconds(client: KubeClient, node: str) -> float:
    try:
        lease = await client.get(LEASES, lease_name(node), _NAMESPACE)
        renewed = datetime.fromisoformat(lease.spec.renew_time)
    except (NotFound, ValueError):
        return 0.0
    return (datetime.now(UTC) - renewed).total_seconds()


async def look_at_endpoint(nodes: Nodes, report: Report, end: End) -> None:
    """Have the pod's node check its interface, routes, neighbours, programs, map entries and MTU."""
    rows, why_not = await nodes.ask(end.node, "check", end.name, "-o", "json")
    if not rows:
        if "no such command" not in why_not.lower():
            report.add("endpoint", UNKNOWN, f"{end.name}: {why_not or 'not found on its node'}")
        return
    for row in rows:
        if row["check"] == BAD:
            report.add("endpoint", BAD, f"{end.name}: {'; '.join(row['problems'])}", row["do"])
        elif row["check"] == OK:
            report.add("endpoint", OK, f"{end.name} is wired as ADD did it")
        else:
            report.add("endpoint", UNKNOWN, f"{end.name}: {'; '.join(row['problems'])}")


async def ask_program(nodes: Nodes, report: Report, ends: tuple[End, End], node_ip: str, port: int) -> str:
    """Ask the sender's program in service for its verdict; returns the reason's name, empty if it cannot be told."""
    source, destination = ends
    port_option = ("--port", str(port)) if port else ()
    found, why_not = await nodes.ask(
        source.node, "probe", "verdict", str(source.address), str(destination.address), *port_option
    )
    if found is None:
        missing = "is not in this node's map" in why_not
        remedy = (
            f"the agent on {source.node} restores it within seconds; if not, see its log" if missing else ""
        )
        report.add("program", BAD if missing else UNKNOWN, f"{source.node}: {why_not}", remedy)
        return ""
    where = f"{source.node}: a packet from {source.name} to {destination.name} {found['what']}"
    if found["drop"]:
        report.add("program", BAD, f"{where} ({found['reason']})", _drop_remedy(destination))
    elif destination.of_fast and found["reason"] == "stack_not_pod":
        text = f"{source.node} does not know {destination.address}: it is not in its map of the cluster"
        report.add(
            "program", BAD, text, f"fast-ctl doctor on {source.node}; fast-ctl ipam why {destination.address}"
        )
    elif found["nodeIP"] and node_ip and found["nodeIP"] != node_ip:
        text = f"{source.node} sends to {found['nodeIP']}, but {destination.node} is {node_ip}"
        report.add("program", BAD, text, f"fast-ctl doctor on {source.node}: its map of the cluster is stale")
    else:
        report.add("program", OK, f"{where} ({found['reason']})")
    return str(found["reason"])


def _drop_remedy(destination: End) -> str:
    return f"docs/develop/datapath.md explains the reason; fast-ctl ipam why {destination.address}"


def drops_between(rows: Sequence[dict[str, Any]], source: End, destination: End) -> dict[str, Any] | None:
    """Return the newest group of drops from the one to the other in the last ten seconds; None if there is none."""
    ends = (str(source.address), str(destination.address))
    fitting = [row for row in rows if (row["source"], row["destination"]) == ends and row["secondsAgo"] < 10]  # noqa: PLR2004
    return min(fitting, key=lambda row: row["secondsAgo"], default=None)
