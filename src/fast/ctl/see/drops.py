"""``fast-ctl drops``: who lost packets, where to, why, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import listing
from fast.ctl.see.agent_socket import ask_agent, traffic_socket_option
from fast.ctl.see.filters import Filter, end, format_seconds, parse_seconds, with_filters

#: Healthy pods send these all the time: multicast DNS, router solicitations.
_USUAL = "drop_not_unicast"
_COLUMNS = (
    Column("REASON", "reason", spell=lambda reason: reason.removeprefix("drop_"), colour=lambda _: "red"),
    Column("FROM", "from"),
    Column("TO", "to"),
    Column("PACKETS", "packets"),
    Column("LAST", "secondsAgo", spell=lambda seconds: f"{format_seconds(seconds)} ago"),
    Column("PROTOCOL", "protocol", wide=True),
    Column("DIRECTION", "direction", wide=True),
    Column("POD", "pod", wide=True, spell=lambda pod: pod or "-"),
    Column("FIRST", "first", wide=True),
    Column("THE PACKET …", "what", wide=True),
)


@click.command()
@click.option(
    "--since",
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="Only if the last one was dropped since: 30s, 10m, 2h.",
)
@with_filters
@click.option("--all", "usual", is_flag=True, help=f"Also {_USUAL}, which healthy pods cause.")
@traffic_socket_option
@listing(_COLUMNS, nothing="No drops.")
def drops(since: str, traffic_socket: Path, usual: bool, **filters: Any) -> Sequence[Row]:
    """Show who lost packets, where to, and why. The counts are exact, and the kernel's.

    With --node or -A, other nodes are asked by the API server's exec, with your own rights.
    """
    wanted, seconds = Filter(**filters), parse_seconds(since)
    answer = ask_agent(traffic_socket, "/drops")
    if answer["notShown"]:
        click.echo(
            f"{answer['notShown']} further drops are counted by reason only (fast-ctl metrics --drops):"
            " there were too many different ones.",
            err=True,
        )
    return [
        _row(item)
        for item in answer["drops"]
        if item["secondsAgo"] <= seconds
        and (usual or wanted.reason or item["reason"] != _USUAL)
        and wanted.matches(item)
    ]


def _row(item: dict[str, Any]) -> dict[str, Any]:
    port = f":{item['destinationPort']}" if item["destinationPort"] else ""
    return {
        **item,
        "from": end(item["source"], item["sourcePod"], item["pod"]),
        "to": end(item["destination"], item["destinationPod"]) + port,
    }
