"""The agent's configuration: one table of options, from flags, environment and a file.

In that order of precedence. ``fast-agent --help`` prints this table; it is the reference. Nothing is started here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal

import click
import yaml

from fast.agent.config.node_options import (
    FILE,
    cni_bin_dir_option,
    cni_conf_dir_option,
    state_dir_option,
    tunnel_port_option,
)
from fast.datapath.bpf_dir import bpf_dir_option
from fast.datapath.datapath_config import DatapathConfig
from fast.errors import InvalidConfig, InvalidRange
from fast.logs import LogFormat
from fast.net import parse_address
from fast.probes import parse_listen_address

Routing = Literal["vxlan", "native"]

#: Key of the click context's ``meta`` under which the configuration file's path is found.
CONFIG_FILE = "fast.agent.config_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Every option of the agent; names are those of the flags. Directories and files as paths of this node."""

    node_name: str
    node_ip: IPv4Address | None
    node_ip6: IPv6Address | None
    kubeconfig: Path | None
    namespace: str
    socket: Path
    bpf_dir: Path
    state_dir: Path
    cni_bin_dir: Path
    cni_conf_dir: Path
    install_plugin: Path | None
    install_conflist: bool
    routing: Routing
    tunnel_port: int
    vni: int
    pod_mtu: int | None
    masquerade: bool
    skip_tunnel_device: bool
    network_policy: bool
    max_cluster_entries: int
    http_address: str
    metrics_token_file: Path | None
    gc_interval_seconds: float
    verify_interval_seconds: float
    log_level: str
    log_format: LogFormat

    def datapath(self, node_ip: IPv4Address) -> DatapathConfig:
        """Return the datapath's part of it; raises InvalidConfig if a value is out of range."""
        return DatapathConfig(
            node_name=self.node_name,
            node_ip=node_ip,
            node_ip6=self.node_ip6,
            bpf_dir=self.bpf_dir,
            routing=self.routing,
            tunnel_port=self.tunnel_port,
            vni=self.vni,
            pod_mtu=self.pod_mtu,
            masquerade=self.masquerade,
            skip_tunnel_device=self.skip_tunnel_device,
            network_policy=self.network_policy,
            max_cluster_entries=self.max_cluster_entries,
        )


class _Address(click.ParamType[Any]):
    """An IP address of one family."""

    def __init__(self, kind: type[IPv4Address] | type[IPv6Address]) -> None:
        self._kind = kind
        self.name = "ipv4" if kind is IPv4Address else "ipv6"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            address = parse_address(str(value))
        except InvalidRange as error:
            self.fail(str(error), param, ctx)
        if not isinstance(address, self._kind):
            self.fail(f"{value} is not an {self.name} address", param, ctx)
        return address


class _ListenAddress(click.ParamType[Any]):
    """HOST:PORT."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            parse_listen_address(value)
        except InvalidConfig as error:
            self.fail(str(error), param, ctx)
        return value


def _read_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Use the file's values for options that neither a flag nor the environment sets."""
    if path is None:
        return None
    ctx.meta[CONFIG_FILE] = path
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.BadParameter(f"{path} cannot be read: {error}", ctx=ctx) from error
    if not isinstance(values, Mapping):
        raise click.BadParameter(f"{path} is not a mapping of option names to values", ctx=ctx)
    known = {field.name.replace("_", "-") for field in fields(AgentConfig)}
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise click.BadParameter(f"{path} has unknown options: {', '.join(unknown)}", ctx=ctx)
    ctx.default_map = {str(key).replace("-", "_"): value for key, value in values.items()}
    return path


#: In the order of ``--help``.
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        envvar="FAST_AGENT_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_read_file,
        show_envvar=True,
        help="YAML or JSON file with any of these options by their long names, without dashes in front. "
        "A flag wins over the environment, the environment over the file.",
    ),
    click.option(
        "--node-name",
        envvar="NODE_NAME",
        required=True,
        show_envvar=True,
        help="Name of this node's Node object.",
    ),
    click.option(
        "--node-ip",
        type=_Address(IPv4Address),
        envvar="FAST_NODE_IP",
        show_envvar=True,
        help="This node's underlay address, which other nodes tunnel to. Default: the Node's first IPv4 InternalIP, "
        "which the agent first has to ask the API server for.",
    ),
    click.option(
        "--node-ip6",
        type=_Address(IPv6Address),
        envvar="FAST_NODE_IP6",
        show_envvar=True,
        help="This node's IPv6 address, for traffic between the node and pods over IPv6. Default: the lowest lasting "
        "one of the device that has the underlay address.",
    ),
    click.option(
        "--kubeconfig",
        type=FILE,
        envvar="KUBECONFIG",
        show_envvar=True,
        help="How to reach the API server. Default: as a pod of the cluster.",
    ),
    click.option(
        "--namespace",
        envvar="FAST_NAMESPACE",
        default="fast-system",
        show_default=True,
        show_envvar=True,
        help="Fast's namespace, in which the agent renews its heartbeat Lease.",
    ),
    click.option(
        "--socket",
        type=FILE,
        envvar="FAST_AGENT_SOCKET",
        default="/run/fast/agent.sock",
        show_default=True,
        show_envvar=True,
        help="Where fast-cni finds the agent.",
    ),
    bpf_dir_option,
    state_dir_option,
    cni_bin_dir_option,
    cni_conf_dir_option,
    click.option(
        "--install-plugin",
        type=FILE,
        envvar="FAST_INSTALL_PLUGIN",
        show_envvar=True,
        help="Keep this fast-cni in the CNI binary directory. Default: keep the one that is there; if there is none, "
        "this installation's.",
    ),
    click.option(
        "--install-conflist/--no-install-conflist",
        envvar="FAST_INSTALL_CONFLIST",
        default=True,
        show_default=True,
        show_envvar=True,
        help="Write 10-fast.conflist once the node can carry traffic, and keep it.",
    ),
    click.option(
        "--routing",
        type=click.Choice(["vxlan", "native"]),
        envvar="FAST_ROUTING",
        default="vxlan",
        show_default=True,
        show_envvar=True,
        help="How packets reach other nodes; native needs all nodes on one L2.",
    ),
    tunnel_port_option,
    click.option(
        "--vni",
        type=click.IntRange(1, (1 << 24) - 1),
        envvar="FAST_VNI",
        default=1,
        show_default=True,
        show_envvar=True,
        help="VXLAN network identifier; the same on every node.",
    ),
    click.option(
        "--pod-mtu",
        type=click.IntRange(576, 65535),
        envvar="FAST_POD_MTU",
        show_envvar=True,
        help="MTU of the pods' interfaces, in bytes. Default: the underlay's, less the tunnel's overhead.",
    ),
    click.option(
        "--masquerade/--no-masquerade",
        envvar="FAST_MASQUERADE",
        default=True,
        show_default=True,
        show_envvar=True,
        help="Whether traffic from pods to outside the cluster takes the node's address.",
    ),
    click.option(
        "--skip-tunnel-device/--no-skip-tunnel-device",
        envvar="FAST_SKIP_TUNNEL_DEVICE",
        default=True,
        show_default=True,
        show_envvar=True,
        help=(
            "Whether pods' packets go into the tunnel on the fast path, past this node's output chains and rules. "
            "Turned off once an IPsec policy is seen. Use --no-skip-tunnel-device where traffic must never leave "
            "unencrypted."
        ),
    ),
    click.option(
        "--network-policy/--no-network-policy",
        envvar="FAST_NETWORK_POLICY",
        default=False,
        show_default=True,
        show_envvar=True,
        help="Enforce NetworkPolicies (networking.k8s.io/v1); the same on every node. Needs Linux 6.4. New: try it out "
        "before you rely on it.",
    ),
    click.option(
        "--max-cluster-entries",
        type=click.IntRange(1),
        envvar="FAST_MAX_CLUSTER_ENTRIES",
        default=262_144,
        show_default=True,
        show_envvar=True,
        help="Size of the map of all pod and node addresses.",
    ),
    click.option(
        "--http-address",
        type=_ListenAddress(),
        envvar="FAST_HTTP_ADDRESS",
        default="127.0.0.1:9095",
        show_default=True,
        show_envvar=True,
        help="Where to serve /healthz, /readyz and /metrics.",
    ),
    click.option(
        "--metrics-token-file",
        type=FILE,
        envvar="FAST_METRICS_TOKEN_FILE",
        show_envvar=True,
        help="File with a bearer token that /metrics asks for. Default: whoever reaches the port may read metrics.",
    ),
    click.option(
        "--gc-interval-seconds",
        type=click.FloatRange(min=1),
        envvar="FAST_GC_INTERVAL_SECONDS",
        default=60.0,
        show_default=True,
        show_envvar=True,
        help="How often to look for addresses whose sandbox is gone.",
    ),
    click.option(
        "--verify-interval-seconds",
        type=click.FloatRange(min=0.5),
        envvar="FAST_VERIFY_INTERVAL_SECONDS",
        default=10.0,
        show_default=True,
        show_envvar=True,
        help="How often to verify devices, programs, routes and rules, and to repair them.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        envvar="FAST_LOG_LEVEL",
        default="info",
        show_default=True,
        show_envvar=True,
        help="The least severe messages to log.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["json", "console"]),
        envvar="FAST_LOG_FORMAT",
        default="json",
        show_default=True,
        show_envvar=True,
        help="json for machines, console for people.",
    ),
)


def agent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option of the agent to a click command, as keyword arguments with the names of AgentConfig's fields."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
