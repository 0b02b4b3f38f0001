"""``fast-ctl local-dev``: this node's devices as its eBPF programs know them (map ``fast_local_dev``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fast.ctl.node.map_options import device_name, open_pinned
from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import listing
from fast.datapath.bpf_dir import bpf_dir_option

_COLUMNS = (
    Column("ROLE", "role"),
    Column("DEVICE", "device", spell=lambda name: name or "<gone>"),
    Column("IFINDEX", "ifindex"),
    Column("MTU", "mtu"),
    Column("FLAGS", "flags", spell=lambda flags: ",".join(flags) or "<none>"),
)


@click.group()
def local_dev() -> None:
    """Show the devices that this node's eBPF programs use."""


@local_dev.command("list")
@bpf_dir_option
@listing(_COLUMNS, nothing="No devices are known on this node.")
def list_(bpf_dir: Path) -> Sequence[Row]:
    """List the devices by role."""
    from fast.datapath.bpf.maps import LocalDevices

    with open_pinned(LocalDevices.open, bpf_dir) as devices:
        found = devices.by_role()
    return [
        {
            "role": role.name.lower(),
            "device": device_name(device.ifindex),
            "ifindex": device.ifindex,
            "mtu": device.mtu,
            "flags": [flag.name for flag in type(device.flags) if flag in device.flags],
        }
        for role, device in found.items()
    ]
