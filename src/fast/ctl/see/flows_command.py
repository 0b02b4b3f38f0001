"""``fast-ctl flows``: new flows, drops and samples as they happen; ``flows list`` has those kept on the stack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fast.ctl.node.flows import list_
from fast.ctl.printable import printable
from fast.ctl.see.agent_socket import follow_agent, traffic_socket_option
from fast.ctl.see.filters import Filter, end, with_filters

_COLOURS = {"drop": "red", "flow": "cyan", "sample": "green", "lost": "yellow"}
_WINDOW_SECONDS = 2.0
#: One packet in so many is sampled.
_SAMPLED = 1024


class SampleRates:
    """Adds samples up, and gives packets a second by ends and reason every two seconds.

    Args:
        clock: Seconds that never jump back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._groups: dict[tuple[str, str, str, str], list[int]] = {}

    def add(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Add a sample; returns the rates of the window that ended with it, the largest first, or nothing."""
        port = f":{item['destinationPort']}" if item.get("destinationPort") else ""
        source = end(item["source"], item.get("sourcePod", ""))
        destination = end(item["destination"], item.get("destinationPod", "")) + port
        group = self._groups.setdefault((source, destination, item["protocol"], item["reason"]), [0, 0])
        group[0] += 1
        group[1] += item["sizeBytes"]
        seconds = self._clock() - self._since
        if seconds < _WINDOW_SECONDS:
            return []
        found, self._groups, self._since = self._groups, {}, self._clock()
        rates = [
            {
                "time": item["time"],
                "kind": "sample",
                "from": ends[0],
                "to": ends[1],
                "protocol": ends[2],
                "reason": ends[3],
                "packetsPerSecond": round(packets * _SAMPLED / seconds),
                "bitsPerSecond": round(size * 8 * _SAMPLED / seconds),
            }
            for ends, (packets, size) in found.items()
        ]
        return sorted(rates, key=lambda rate: -rate["packetsPerSecond"])


@click.group(invoke_without_command=True)
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--drops", "only_drops", is_flag=True, help="Only drops.")
@with_filters
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print: json is one object a line.",
)
@traffic_socket_option
@click.pass_context
def flows(
    ctx: click.Context, /, follow: bool, only_drops: bool, output: str, traffic_socket: Path, **filters: Any
) -> None:
    """Show traffic as it happens on this node: drops, new flows through the stack, and rates of the fast path.

    Without -f only the last drops are shown. New flows and samples are told only while somebody follows; rates are
    estimates from one packet in 1,024.
    """
    if ctx.invoked_subcommand is not None:
        return
    kinds = "drop" if only_drops or not follow else "drop,flow,sample"
    query = f"/events?kinds={kinds}" + ("&follow=1" if follow else "")
    wanted, rates = Filter(**filters), SampleRates()
    for item in follow_agent(traffic_socket, query):
        if item["kind"] == "lost":
            _print(item, output)
        elif wanted.matches(item):
            for shown in rates.add(item) if item["kind"] == "sample" else (item,):
                _print(shown, output)


flows.add_command(list_)


def _print(item: dict[str, Any], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(item))
    else:
        click.echo(format_event(item))


def format_event(item: dict[str, Any]) -> str:
    """Write one event as one line."""
    item = {key: printable(value) if isinstance(value, str) else value for key, value in item.items()}
    kind = click.style(f"{item['kind']:6}", fg=_COLOURS.get(item["kind"]))
    if item["kind"] == "lost":
        return f"{kind} {item['events']} events are not shown: there were too many at once"
    at = item["time"][11:23]
    if "packetsPerSecond" in item:
        return (
            f"{at} {kind} {item['from']} → {item['to']}  {item['protocol']}  ~{item['packetsPerSecond']:,} packet/s"
            f"  ~{item['bitsPerSecond'] / 1e6:,.1f} Mbit/s  {item['reason']}"
        )
    ends = [
        end(item["source"], item.get("sourcePod", ""), item.get("pod", "") if item["kind"] == "drop" else ""),
        end(item["destination"], item.get("destinationPod", "")),
    ]
    ports = [f":{item[field]}" if item.get(field) else "" for field in ("sourcePort", "destinationPort")]
    reason = item["reason"].removeprefix("drop_")
    return (
        f"{at} {kind} {ends[0]}{ports[0]} → {ends[1]}{ports[1]}  {item['protocol']}  {item['sizeBytes']} B"
        f"  {reason}: {item['what']}"
    )
