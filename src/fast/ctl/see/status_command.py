"""``fast-ctl status``: the cluster on one screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fast.ctl.api_options import kubeconfig_option, with_cluster
from fast.ctl.output import Column, format_table
from fast.ctl.reach.every_node import CANNOT_TELL
from fast.errors import KubeError

if TYPE_CHECKING:
    from fast.kube import KubeClient


def _problem_colour(problem: str) -> str | None:
    return "red" if problem else None


_NODES = (
    Column("NODE", "node"),
    Column("ADDRESS", "address", spell=lambda text: text or "-"),
    Column(
        "HEARD",
        "heardSecondsAgo",
        spell=lambda seconds: "never" if seconds is None else f"{seconds:.0f}s ago",
    ),
    Column("PODS", "pods"),
    Column("PROBLEMS", "problems"),
    Column("FIRST PROBLEM", "problem", spell=lambda text: text or "-", colour=_problem_colour),
)
_POOLS = (
    Column("POOL", "pool"),
    Column("USED", "used"),
    Column("TOTAL", "total"),
    Column("FREE", "free"),
    Column("RETAINED", "retained"),
    Column("PROBLEM", "problem", spell=lambda text: text or "-", colour=_problem_colour),
)


@click.command()
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
def status(ctx: click.Context, /, kubeconfig: Path | None, output: str) -> None:
    """Show every node and pool of the cluster in a line, and what is wrong with it.

    Exit status: 0 if all is sound, 1 if something is wrong, 3 if the API server cannot be asked or a node is silent.
    """
    try:
        nodes, pools = with_cluster(kubeconfig, _read)
    except KubeError as error:
        click.echo(f"Error: the API server cannot be asked: {error}", err=True)
        ctx.exit(CANNOT_TELL)
    if output == "json":
        click.echo(json.dumps({"nodes": nodes, "pools": pools}, indent=2))
    else:
        sound = sum(row["sound"] for row in nodes)
        click.echo(f"{sound} of {len(nodes)} nodes sound\n")
        click.echo(format_table(nodes, _NODES))
        click.echo("\n" + format_table(pools, _POOLS))
    if any(row["silent"] for row in nodes):
        ctx.exit(CANNOT_TELL)
    ctx.exit(0 if all(row["sound"] for row in (*nodes, *pools)) else 1)


async def _read(client: KubeClient) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from fast.api.resources import FASTNODES, IPSES, LEASES, NODES
    from fast.ctl.see.status_board import heard_seconds, node_rows, pool_rows

    fast_nodes = {item.metadata.name: item for item in (await client.list(FASTNODES)).items}
    heard = heard_seconds((await client.list(LEASES, "fast-system")).items)
    nodes = node_rows((await client.list(NODES)).items, fast_nodes, heard)
    return nodes, pool_rows((await client.list(IPSES)).items)
