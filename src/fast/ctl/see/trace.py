"""``fast-ctl trace``: why one pod does not reach another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fast.ctl.api_options import kubeconfig_option
from fast.ctl.completion import complete_pods
from fast.ctl.reach.every_node import CANNOT_TELL, with_nodes
from fast.errors import KubeError

if TYPE_CHECKING:
    from fast.ctl.reach.node_runner import NodeRunner
    from fast.ctl.see.trace_report import Report
    from fast.kube import KubeClient


@click.command()
@click.argument("source", shell_complete=complete_pods)
@click.argument("destination", shell_complete=complete_pods)
@click.option("-n", "--namespace", default="default", show_default=True, help="Of pods named without one.")
@click.option("--port", type=click.IntRange(1, 65535), help="TCP port to connect to; without it, pings.")
@click.option("--ipv6", is_flag=True, help="Trace between the pods' IPv6 addresses.")
@click.option("--no-probe", is_flag=True, help="Send nothing: only look.")
@click.option(
    "--via",
    type=click.Choice(["auto", "local", "playground", "exec"]),
    default="auto",
    show_default=True,
    help="The way to the nodes.",
)
@kubeconfig_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
)
@click.pass_context
def trace(
    ctx: click.Context,
    /,
    source: str,
    destination: str,
    via: str,
    kubeconfig: Path | None,
    output: str,
    **wanted: Any,
) -> None:
    """Find out why SOURCE does not reach DESTINATION, and what to do about it.

    Both are pods ([NAMESPACE/]POD); DESTINATION may be an address. It looks at pods, records, nodes and endpoints, asks
    the program in service for its verdict, then sends a few packets from SOURCE and watches both nodes.

    Exit status: 0 if packets are answered, 1 if something is wrong and named, 3 if it cannot be told.
    """
    from fast.ctl.see.trace_report import Report

    report = Report(source, destination)

    async def work(client: KubeClient, runner: NodeRunner) -> None:
        await _trace(client, runner, report, **wanted)

    try:
        with_nodes(kubeconfig, via, work)
    except KubeError as error:
        report.add("API", "?", f"the API server cannot be asked: {error}")
    if output == "json":
        import json

        click.echo(json.dumps(report.as_row(), indent=2))
    else:
        click.echo(report.as_text())
    ctx.exit(CANNOT_TELL if report.steps and report.steps[-1].name == "API" else report.exit_status)


async def _trace(
    client: KubeClient,
    runner: NodeRunner,
    report: Report,
    *,
    namespace: str,
    port: int | None,
    ipv6: bool,
    no_probe: bool,
) -> None:
    from fast.ctl.see import trace_steps
    from fast.ctl.see.trace_probe import probe

    nodes, family = trace_steps.Nodes(runner), 6 if ipv6 else 4
    source = await trace_steps.find_end(client, report, report.source, namespace, family)
    destination = await trace_steps.find_end(client, report, report.destination, namespace, family)
    if not report.stopped and not source.of_fast:
        report.stop(
            "pod", f"{source.name} is no pod with an address of Fast", "name a pod that is not on hostNetwork"
        )
    if report.stopped:
        return
    ends = [end for end in (source, destination) if end.of_fast]
    for end in ends:
        await trace_steps.look_at_record(client, report, end)
    told = {
        node: await trace_steps.look_at_node(client, report, node)
        for node in dict.fromkeys(end.node for end in ends)
    }
    for end in ends:
        await trace_steps.look_at_endpoint(nodes, report, end)
    for one, other in ((source, destination), (destination, source)):
        if one.of_fast:
            there = told.get(other.node)
            node_ip = str(there.find_addresses()[0]) if there is not None and there.find_addresses() else ""
            await trace_steps.ask_program(
                nodes, report, (one, other), node_ip, (port or 0) if one is source else 0
            )
    if not no_probe:
        await probe(nodes, report, (source, destination), told, port or 0)
