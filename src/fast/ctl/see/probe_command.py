"""``fast-ctl probe``: what ``trace`` has a node do. Hidden: for programs, its output is JSON."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import click

from fast.ctl.node.map_options import AddressType
from fast.datapath.bpf_dir import bpf_dir_option
from fast.net import IPAddress


@click.group(hidden=True)
def probe() -> None:
    """Do on this node what fast-ctl trace needs."""


def _print(found: Any) -> None:
    click.echo(json.dumps(found))


@probe.command()
@click.argument("source", type=AddressType())
@click.argument("destination", type=AddressType())
@click.option("--port", type=int, default=0)
@bpf_dir_option
def verdict(source: IPAddress, destination: IPAddress, port: int, bpf_dir: Path) -> None:
    """Ask the program in service what it does with a packet."""
    from fast.datapath.verdict import ICMP, ICMPV6, TCP, PacketSpec, ask_verdict

    echo = ICMP if isinstance(source, IPv4Address) else ICMPV6
    found = ask_verdict(bpf_dir, PacketSpec(source, destination, TCP if port else echo, port))
    _print(
        {
            "reason": found.reason.name.lower(),
            "what": found.reason.description,
            "drop": found.reason.is_drop,
            "nodeIP": str(found.outer_destination or ""),
        }
    )


@probe.command()
@click.argument("source", type=AddressType())
@click.argument("destination", type=AddressType())
@click.option("--port", type=int, default=0)
@click.option("--size", "size_bytes", type=int, default=84)
@bpf_dir_option
def send(source: IPAddress, destination: IPAddress, port: int, size_bytes: int, bpf_dir: Path) -> None:
    """Send packets from a pod of this node, and count the answers."""
    from fast.ctl.see.pod_probe import probe_from_pod

    _print(probe_from_pod(bpf_dir / "maps", source, destination, port, size_bytes).as_row())


@probe.command()
@click.argument("source", type=AddressType())
@click.argument("destination", type=AddressType())
@click.option("--seconds", type=float, default=4.0)
@click.option("--tunnel-from", type=AddressType(), default=None)
@click.option("--tunnel-port", type=int, default=0)
def watch(
    source: IPAddress, destination: IPAddress, seconds: float, tunnel_from: IPAddress | None, tunnel_port: int
) -> None:
    """Watch netfilter for rules that drop packets between two addresses."""
    from fast.ctl.see.nft_trace import watch_for_drops

    tunnel = (tunnel_from, tunnel_port) if isinstance(tunnel_from, IPv4Address) else None
    _print({"dropping": watch_for_drops(seconds, source, destination, tunnel)})
