"""``fast-ctl flows list``: the flows that stay on the kernel's stack (map ``fast_flow_table``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fast.ctl.node.map_options import boot_age_seconds, device_name, open_pinned, sort_key
from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import listing
from fast.datapath.bpf_dir import bpf_dir_option

_COLUMNS = (
    Column("PROTOCOL", "protocol"),
    Column("ADDRESS", "lowIP"),
    Column("PORT", "lowPort"),
    Column("ADDRESS", "highIP"),
    Column("PORT", "highPort"),
    Column("LAST-SEEN", "lastSeenSecondsAgo", spell=lambda seconds: f"{seconds:.0f}s ago"),
    Column("FLAGS", "flags", wide=True, spell=lambda flags: ",".join(flags) or "<none>"),
    Column("OWNER", "owner", wide=True, spell=lambda name: name or "<none>"),
)


@click.command("list")
@bpf_dir_option
@listing(_COLUMNS, nothing="No flows are kept on the stack.")
def list_(bpf_dir: Path) -> Sequence[Row]:
    """List the flows; the order of a flow's two ends means nothing. Ports of ICMP echoes are their identifier."""
    from fast.datapath.bpf.layout import FLOW_OWNER_INBOUND, protocol_name
    from fast.datapath.bpf.maps import Flows

    with open_pinned(Flows.open, bpf_dir) as found:
        entries = sorted(found.items(), key=lambda entry: (sort_key(entry[0].low), sort_key(entry[0].high)))
    return [
        {
            "protocol": protocol_name(key.protocol),
            "lowIP": str(key.low),
            "lowPort": key.low_port,
            "highIP": str(key.high),
            "highPort": key.high_port,
            "lastSeenSecondsAgo": round(boot_age_seconds(flow.last_seen_ns), 1),
            "flags": [flag.name for flag in type(flow.flags) if flag in flow.flags and flag.name],
            "owner": device_name(flow.owner & ~FLOW_OWNER_INBOUND),
        }
        for key, flow in entries
    ]
