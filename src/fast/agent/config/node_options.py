"""Command-line options about a node that ``fast-agent`` and ``fast-ctl`` share: paths, and the tunnel's port."""

from __future__ import annotations

from pathlib import Path

import click

from fast.datapath.datapath_config import DEFAULT_TUNNEL_PORT

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
#: A parameter that is a file, whether it exists or not.
FILE = click.Path(path_type=Path, dir_okay=False)

state_dir_option = click.option(
    "--state-dir",
    type=_DIRECTORY,
    envvar="FAST_STATE_DIR",
    default="/var/lib/fast",
    show_default=True,
    show_envvar=True,
    help="Where the tombstones of DELs are kept, which must survive a reboot.",
)

cni_bin_dir_option = click.option(
    "--cni-bin-dir",
    type=_DIRECTORY,
    envvar="FAST_CNI_BIN_DIR",
    default="/opt/cni/bin",
    show_default=True,
    show_envvar=True,
    help="Where the container runtime looks for plugins.",
)

cni_conf_dir_option = click.option(
    "--cni-conf-dir",
    type=_DIRECTORY,
    envvar="FAST_CNI_CONF_DIR",
    default="/etc/cni/net.d",
    show_default=True,
    show_envvar=True,
    help="Where the container runtime looks for network configurations.",
)

#: Passed as ``socket_path``, since the module ``socket`` has the other name.
socket_option = click.option(
    "--socket",
    "socket_path",
    type=FILE,
    envvar="FAST_AGENT_SOCKET",
    default="/run/fast/agent.sock",
    show_default=True,
    show_envvar=True,
    help="The agent's socket, where fast-cni finds it.",
)

tunnel_port_option = click.option(
    "--tunnel-port",
    type=click.IntRange(1, 65535),
    envvar="FAST_TUNNEL_PORT",
    default=DEFAULT_TUNNEL_PORT,
    show_default=True,
    show_envvar=True,
    help="UDP port of the VXLAN device; the same on every node.",
)
