"""``fast-ctl node``: puts Fast's plugin on this node, and removes every trace of Fast from it.

What the datapath's traces are is fast.datapath's; the cluster's objects are not touched here.
"""

from __future__ import annotations

import errno
import shutil
import socket
from ipaddress import IPv4Address
from pathlib import Path

import click

from fast.agent.cni.conflist import install_plugin, uninstall
from fast.agent.cni.tombstones import Tombstones
from fast.agent.config.node_options import (
    FILE,
    cni_bin_dir_option,
    cni_conf_dir_option,
    socket_option,
    state_dir_option,
)
from fast.cni.plugin_binary import PLUGIN, find_plugin
from fast.datapath.bpf_dir import bpf_dir_option
from fast.errors import FastError

_CONNECT_SECONDS = 2.0


@click.group()
def node() -> None:
    """Install Fast's plugin on this node; remove Fast from it."""


@node.command()
@cni_bin_dir_option
@click.option(
    "--plugin",
    type=FILE,
    envvar="FAST_INSTALL_PLUGIN",
    show_envvar=True,
    help="The executable to copy. Default: the one this installation of Fast has.",
)
def install(cni_bin_dir: Path, plugin: Path | None) -> None:
    """Copy fast-cni to where the container runtime looks for plugins, atomically: a call may execute it right now."""
    source = plugin or find_plugin()
    try:
        install_plugin(source, cni_bin_dir)
    except OSError as error:
        raise FastError(f"{cni_bin_dir / PLUGIN} cannot be written: {error.strerror}") from error
    click.echo(f"{cni_bin_dir / PLUGIN} is {source}")


@node.command()
@cni_bin_dir_option
@cni_conf_dir_option
@bpf_dir_option
@state_dir_option
@socket_option
@click.option(
    "--force", is_flag=True, help="Also while pods have interfaces or releases are still to be told."
)
def clean(
    cni_bin_dir: Path, cni_conf_dir: Path, bpf_dir: Path, state_dir: Path, socket_path: Path, force: bool
) -> None:
    """Remove every trace of Fast from this node: for uninstalling, after the agent is gone and the node drained.

    Goes: network configuration and plugin, pods' interfaces, tunnel device, eBPF programs and maps, routes, nftables
    table, FORWARD accepts, state. Stays: kernel parameters, as others may rely on them. Idempotent.

    Refused while an agent runs, for it would put everything back; and, without --force, while pods have interfaces or
    tombstones wait, for their addresses would stay taken until the Node object is deleted.
    """
    if _agent_runs(socket_path):
        raise FastError(f"an agent serves {socket_path}: stop it first, or it puts everything back")
    if not force:
        _refuse_if_in_use(state_dir / "tombstones")
    removed = [str(path) for path in uninstall(cni_bin_dir, cni_conf_dir)]
    _clean_datapath(bpf_dir)
    removed += [str(path) for path in (state_dir,) if _remove_tree(path)]
    removed += _remove_socket(socket_path)
    for path in removed:
        click.echo(f"removed {path}")
    click.echo("this node has no trace of Fast any more; kernel parameters (net.ipv4.ip_forward) stay")


def _agent_runs(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(_CONNECT_SECONDS)
        try:
            channel.connect(str(path))
        except OSError:
            return False
    return True


def _refuse_if_in_use(tombstones: Path) -> None:
    from fast.datapath.netlink import Netlink
    from fast.datapath.pod.identity import endpoint_of

    with Netlink() as netlink:
        pods = [link.name for link in netlink.links("veth") if endpoint_of(link) is not None]
    if pods:
        raise FastError(
            f"{len(pods)} pods still have interfaces of Fast ({', '.join(sorted(pods)[:3])}): drain the node first, "
            "or cut them off by --force"
        )
    waiting = len(list(Tombstones(tombstones).waiting()))
    if waiting:
        raise FastError(
            f"{waiting} releases wait in {tombstones} for an agent to tell them to the API server: run one once more, "
            "or forget them by --force"
        )


def _clean_datapath(bpf_dir: Path) -> None:
    from fast.datapath.datapath_config import DatapathConfig
    from fast.datapath.node.node_datapath import NodeDatapath

    # traces are recognised by their names: who the node was does not matter
    NodeDatapath(DatapathConfig(node_name="", node_ip=IPv4Address(0), bpf_dir=bpf_dir)).clean()


def _remove_tree(path: Path) -> bool:
    """Remove a directory with everything in it; of one that is mounted into this container, what is in it."""
    if not path.is_dir():
        return False
    for inside in path.iterdir():
        if inside.is_dir() and not inside.is_symlink():
            shutil.rmtree(inside)
        else:
            inside.unlink()
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EROFS):
            raise
    return True


def _remove_socket(path: Path) -> list[str]:
    removed = []
    if path.exists():
        path.unlink()
        removed.append(str(path))
    if path.parent == Path("/run/fast") and _remove_tree(path.parent):
        removed.append(str(path.parent))
    return removed
