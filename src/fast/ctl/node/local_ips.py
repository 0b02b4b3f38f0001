"""``fast-ctl local-ips``: the pods of this node as its eBPF programs know them (map ``fast_local_pods``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fast.ctl.node.map_options import (
    AddressType,
    DeviceType,
    MacType,
    delete_entries,
    device_name,
    open_pinned,
    sort_key,
)
from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import listing
from fast.datapath.bpf_dir import bpf_dir_option
from fast.net import IPAddress, Mac

_COLUMNS = (
    Column("IP", "ip"),
    Column("POD", "pod", spell=lambda pod: pod or "-"),
    Column("DEVICE", "device", spell=lambda name: name or "<gone>"),
    Column("IFINDEX", "ifindex"),
    Column("POD-MAC", "podMAC"),
    Column("HOST-MAC", "hostMAC", wide=True),
    Column("FLAGS", "flags", wide=True, spell=lambda flags: ",".join(flags) or "<none>"),
)


@click.group()
def local_ips() -> None:
    """Show and change the pods of this node in its eBPF map."""


@local_ips.command("list")
@bpf_dir_option
@listing(_COLUMNS, nothing="No pods on this node.", address_field="ip")
def list_(bpf_dir: Path) -> Sequence[Row]:
    """List the pods of this node."""
    from fast.datapath.bpf.maps import LocalPods

    with open_pinned(LocalPods.open, bpf_dir) as pods:
        entries = sorted(pods.items(), key=lambda entry: sort_key(entry[0]))
    return [
        {
            "ip": str(address),
            "device": device_name(pod.ifindex),
            "ifindex": pod.ifindex,
            "podMAC": str(pod.pod_mac),
            "hostMAC": str(pod.host_mac),
            "flags": [flag.name for flag in type(pod.flags) if flag in pod.flags],
        }
        for address, pod in entries
    ]


@local_ips.command("set")
@click.argument("ip", type=AddressType())
@click.option(
    "--device", type=DeviceType(), required=True, help="Host side of the pod's veth: name or index."
)
@click.option("--pod-mac", type=MacType(), required=True, help="MAC of the pod's interface.")
@click.option("--host-mac", type=MacType(), required=True, help="MAC of the veth's host side.")
@click.option(
    "--via-stack", is_flag=True, help="Send its packets through the kernel's stack, past the fast path."
)
@bpf_dir_option
def set_(ip: IPAddress, device: int, pod_mac: Mac, host_mac: Mac, via_stack: bool, bpf_dir: Path) -> None:
    """Set the entry of one address. The agent knows nothing of it and may put back its own."""
    from fast.datapath.bpf.layout import LocalPod, LocalPodFlag
    from fast.datapath.bpf.maps import LocalPods

    flags = LocalPodFlag.VIA_STACK if via_stack else LocalPodFlag(0)
    with open_pinned(LocalPods.open, bpf_dir) as pods:
        pods.put(ip, LocalPod(device, pod_mac, host_mac, flags))
    click.echo(f"local pod {ip} set")


@local_ips.command()
@click.argument("ips", metavar="IP...", type=AddressType(), nargs=-1, required=True)
@bpf_dir_option
def delete(ips: tuple[IPAddress, ...], bpf_dir: Path) -> None:
    """Delete the entries of addresses. Their pods are cut off until the agent puts them back."""
    from fast.datapath.bpf.maps import LocalPods

    with open_pinned(LocalPods.open, bpf_dir) as pods:
        delete_entries(pods.delete, ips, "local pod")
