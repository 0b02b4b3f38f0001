"""``fast-ctl metrics``: packets and bytes by what the eBPF programs did with them and why (map ``fast_metrics``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fast.ctl.node.map_options import open_pinned
from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import listing
from fast.datapath.bpf_dir import bpf_dir_option

_COLUMNS = (
    Column("REASON", "reason", colour=lambda reason: "red" if reason.startswith("drop_") else None),
    Column("DIRECTION", "direction"),
    Column("PACKETS", "packets"),
    Column("BYTES", "bytes"),
    Column("THE PACKET …", "description", wide=True),
)


@click.command()
@click.option("--drops", is_flag=True, help="Only packets that were dropped.")
@bpf_dir_option
@listing(_COLUMNS, nothing="No packets were counted on this node.")
def metrics(drops: bool, bpf_dir: Path) -> Sequence[Row]:
    """Count this node's packets by reason and direction. Counters only grow, also over restarts of the agent."""
    from fast.datapath.bpf.maps import Metrics

    with open_pinned(Metrics.open, bpf_dir) as counters:
        found = counters.read()
    return [
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
