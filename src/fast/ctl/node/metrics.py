"""``fast-ctl metrics``: packets and bytes by what the eBPF programs did with them and why (map ``fast_metrics``)."""

from __future__ import annotations

from pathlib import Path

import click

from fast.ctl.node.map_options import open_pinned
from fast.ctl.output import Column, output_option, print_rows
from fast.datapath.bpf_dir import bpf_dir_option

_COLUMNS = (
    Column("REASON", "reason"),
    Column("DIRECTION", "direction"),
    Column("PACKETS", "packets"),
    Column("BYTES", "bytes"),
    Column("THE PACKET …", "description", wide=True),
)


@click.command()
@click.option("--drops", is_flag=True, help="Only packets that were dropped.")
@bpf_dir_option
@output_option
def metrics(drops: bool, bpf_dir: Path, output: str) -> None:
    """Count this node's packets by reason and direction. Counters only grow, also over restarts of the agent."""
    from fast.datapath.bpf.maps import Metrics

    with open_pinned(Metrics.open, bpf_dir) as counters:
        found = counters.read()
    rows = [
        {
            "reason": reason.name.lower(),
            "direction": direction.name.lower(),
            "packets": metric.packets,
            "bytes": metric.byte_count,
            "drop": reason.is_drop,
            "description": reason.description,
        }
        for (reason, direction), metric in sorted(found.items())
        if reason.is_drop or not drops
    ]
    print_rows(
        rows, _COLUMNS, output, nothing="No packets were counted on this node." if not drops else "No drops."
    )
