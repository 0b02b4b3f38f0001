"""``fast-ctl cluster-ips``: where every pod and node of the cluster is (map ``fast_cluster_pods``)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

import click

from fast.ctl.node.map_options import AddressType, delete_entries, open_pinned, sort_key
from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import listing
from fast.datapath.bpf_dir import bpf_dir_option
from fast.net import IPAddress

_COLUMNS = (
    Column("IP", "ip"),
    Column("POD", "pod", spell=lambda pod: pod or "-"),
    Column("NODE-IP", "nodeIP"),
    Column("KIND", "kind"),
    Column("FLAGS", "flags", wide=True, spell=hex),
)


@click.group()
def cluster_ips() -> None:
    """Show and change where this node's eBPF map says that addresses of the cluster are."""


@cluster_ips.command("list")
@bpf_dir_option
@listing(_COLUMNS, nothing="No addresses of the cluster are known on this node.", address_field="ip")
def list_(bpf_dir: Path) -> Sequence[Row]:
    """List the pods and nodes of the cluster."""
    from fast.datapath.bpf.maps import ClusterPods

    with open_pinned(ClusterPods.open, bpf_dir) as pods:
        entries = sorted(pods.items(), key=lambda entry: sort_key(entry[0]))
    return [
        {"ip": str(address), "nodeIP": str(pod.node_ip), "kind": pod.kind.name.lower(), "flags": pod.flags}
        for address, pod in entries
    ]


@cluster_ips.command("set")
@click.argument("ip", type=AddressType())
@click.option("--node-ip", type=AddressType(), required=True, help="Underlay address (IPv4) of its node.")
@click.option(
    "--kind", type=click.Choice(["pod", "node"]), default="pod", show_default=True, help="What it belongs to."
)
@bpf_dir_option
def set_(ip: IPAddress, node_ip: IPAddress, kind: str, bpf_dir: Path) -> None:
    """Set the entry of one address. The agent's next full sync takes back what the cluster does not know."""
    from fast.datapath.bpf.layout import ClusterPod, Kind
    from fast.datapath.bpf.maps import ClusterPods

    if not isinstance(node_ip, IPv4Address):
        raise click.BadParameter(
            f"{node_ip} is no IPv4 address, and the underlay is IPv4", param_hint="--node-ip"
        )
    with open_pinned(ClusterPods.open, bpf_dir) as pods:
        pods.put(ip, ClusterPod(node_ip, Kind[kind.upper()]))
    click.echo(f"cluster address {ip} set")


@cluster_ips.command()
@click.argument("ips", metavar="IP...", type=AddressType(), nargs=-1, required=True)
@bpf_dir_option
def delete(ips: tuple[IPAddress, ...], bpf_dir: Path) -> None:
    """Delete the entries of addresses. This node does not reach them until the agent's next full sync."""
    from fast.datapath.bpf.maps import ClusterPods

    with open_pinned(ClusterPods.open, bpf_dir) as pods:
        delete_entries(pods.delete, ips, "cluster address")
