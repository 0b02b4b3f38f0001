"""Checks that find problems of this node and change nothing, for ``fast-ctl doctor`` and the running agent.

Each check is a function that yields problems. What an installed Fast adds is in ``installed_checks``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path

from fast.agent.cni.conflist import CONFLIST, find_earlier
from fast.api.fastnode import NodeProblem
from fast.cni.plugin_binary import PLUGIN
from fast.datapath import sysctl
from fast.datapath.bpf.features import FEATURES
from fast.datapath.bpf_dir import DEFAULT_BPF_DIR, MOUNT_COMMAND, is_in_bpf_filesystem
from fast.datapath.datapath_config import DEFAULT_TUNNEL_PORT, MIN_MTU, TUNNEL_OVERHEAD_BYTES
from fast.datapath.netlink import Netlink
from fast.datapath.node.forward import find_dropping_chains
from fast.datapath.node.tunnel import TUNNEL_DEVICE, find_port_owner, find_underlay
from fast.errors import DatapathError, FastError

_STRICT = "1"


class Severity(StrEnum):
    """How bad a problem is: ``error`` keeps pods from working, ``warning`` may."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """Where to look: the agent's options of the same names, and what only a running agent knows.

    Attributes:
        peers: Returns name and underlay address of the other nodes. Called in a thread.
        clock_ahead_seconds: Returns how far this node's clock is ahead of the API server's; None if that is not known.
    """

    node_ip: IPv4Address | None = None
    tunnel_port: int = DEFAULT_TUNNEL_PORT
    bpf_dir: Path = DEFAULT_BPF_DIR
    cni_bin_dir: Path = Path("/opt/cni/bin")
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    state_dir: Path = Path("/var/lib/fast")
    socket_path: Path = Path("/run/fast/agent.sock")
    pod_mtu: int | None = None
    peers: Callable[[], Sequence[tuple[str, IPv4Address]]] = tuple
    clock_ahead_seconds: Callable[[], float | None] = lambda: None


Found = Iterator[tuple[Severity, str, str]]
Check = Callable[[NodeFacts], Found]


def examine(facts: NodeFacts, checks: Mapping[str, Check]) -> list[NodeProblem]:
    """Run the checks in the calling thread's network and mount namespaces. Blocks for some tens of milliseconds.

    A check that cannot be carried out is a problem itself: it never raises FastError or OSError.

    Returns:
        The problems, errors first.
    """
    found: list[NodeProblem] = []
    for name, check in checks.items():
        try:
            found += (NodeProblem(name, severity.value, *texts) for severity, *texts in check(facts))
        except (FastError, OSError) as error:
            problem = f"the check cannot be made: {error}"
            found.append(NodeProblem(name, Severity.WARNING.value, problem, "run it as root on the node"))
    return sorted(found, key=lambda problem: problem.severity != Severity.ERROR)


def _kernel(_: NodeFacts) -> Found:
    for feature in FEATURES:
        if feature.probe():
            continue
        problem = (
            f"this kernel ({os.uname().release}) lacks {feature.name}, which came with Linux {feature.kernel}"
        )
        if feature.needed:
            yield Severity.ERROR, problem, f"run Linux {feature.kernel} or later"
        else:
            yield Severity.WARNING, problem, "nothing: clsact filters are used instead"


def _bpf_filesystem(facts: NodeFacts) -> Found:
    if not is_in_bpf_filesystem(facts.bpf_dir):
        yield (
            Severity.ERROR,
            f"{facts.bpf_dir} is in no bpf filesystem, so pods would lose their network with the agent",
            f"{MOUNT_COMMAND} (systemd does at boot; in a container, mount the host's)",
        )


def _ip_forward(_: NodeFacts) -> Found:
    if sysctl.read("ipv4/ip_forward") != "1":
        yield (
            Severity.WARNING,
            "net.ipv4.ip_forward is 0: the node passes nothing on between pods and other machines",
            "the agent sets it; so that a reload of sysctl.d does not undo it, set net.ipv4.ip_forward = 1 there",
        )


def _rp_filter(_: NodeFacts) -> Found:
    every, tunnel = (
        sysctl.read("ipv4/conf/all/rp_filter"),
        sysctl.read(f"ipv4/conf/{TUNNEL_DEVICE}/rp_filter"),
    )
    # the larger of both counts
    if tunnel and max(every, tunnel) == _STRICT:
        yield (
            Severity.ERROR,
            f"rp_filter is strict on {TUNNEL_DEVICE}: packets of other nodes to pods of this one are dropped",
            f"sysctl -w net.ipv4.conf.{TUNNEL_DEVICE}.rp_filter=2 (the agent does, when it next verifies)",
        )
    elif not tunnel and _STRICT in (every, sysctl.read("ipv4/conf/default/rp_filter")):
        yield (
            Severity.WARNING,
            "rp_filter is strict (1) by default on this node",
            f"the agent makes {TUNNEL_DEVICE} loose (2); keep sysctl.d from setting net.ipv4.conf.*.rp_filter = 1",
        )


def _forward_policy(_: NodeFacts) -> Found:
    commands, chains = find_dropping_chains()
    for command in sorted(commands):
        yield (
            Severity.WARNING,
            f"the policy of FORWARD in {command} is DROP (Docker sets it so)",
            "the agent puts accepts for pods in front; if something takes them away, it puts them back",
        )
    for chain in chains:
        yield (
            Severity.ERROR,
            f"nftables chain {chain} drops what is forwarded, and no other table can overrule it",
            'accept iifname "fast*" and oifname "fast*" in it (firewalld: put the devices into zone trusted)',
        )


def _network_configuration(facts: NodeFacts) -> Found:
    if not facts.cni_conf_dir.is_dir():
        return
    earlier = find_earlier(facts.cni_conf_dir)
    if earlier is not None:
        yield (
            Severity.ERROR,
            f"{earlier} comes before {CONFLIST}: the container runtime uses that network",
            "remove it, once the other network plugin is uninstalled (docs/operate/migrate.md)",
        )


def _plugins(facts: NodeFacts) -> Found:
    if not (facts.cni_bin_dir / "loopback").exists():
        yield (
            Severity.WARNING,
            f"there is no plugin loopback in {facts.cni_bin_dir}: containerd before 2.0 makes no sandbox without",
            "install the reference CNI plugins (package kubernetes-cni or containernetworking-plugins)",
        )
    if not os.access(facts.cni_bin_dir / PLUGIN, os.X_OK) and (facts.cni_conf_dir / CONFLIST).exists():
        yield (
            Severity.ERROR,
            f"{CONFLIST} names {PLUGIN}, which is not in {facts.cni_bin_dir}",
            "fast-ctl node install",
        )


def _tunnel_port(facts: NodeFacts) -> Found:
    with Netlink() as netlink:
        owner = find_port_owner(netlink, facts.tunnel_port)
    if owner:
        yield (
            Severity.ERROR,
            f"UDP port {facts.tunnel_port}, which the tunnel needs for itself, is taken by {owner}",
            "give Fast another (--tunnel-port, the same on every node), or remove the other one",
        )


def _underlay(facts: NodeFacts) -> Found:
    if facts.node_ip is None:
        return
    needed = MIN_MTU + TUNNEL_OVERHEAD_BYTES
    try:
        with Netlink() as netlink:
            underlay = find_underlay(netlink, facts.node_ip)
    except DatapathError as error:
        yield Severity.ERROR, str(error), "give the node's underlay address by --node-ip"
        return
    if underlay.mtu < needed:
        yield (
            Severity.ERROR,
            f"device {underlay.name} has an MTU of {underlay.mtu} bytes; {needed} are needed",
            f"ip link set {underlay.name} mtu 1500",
        )


def _commands(_: NodeFacts) -> Found:
    if shutil.which("nft") is None:
        yield (
            Severity.ERROR,
            "there is no command nft, which masquerade and the tunnel's protection are made with",
            "install package nftables; Fast's image has it",
        )


#: By name, in the order in which they are run.
CHECKS: dict[str, Check] = {
    "kernel": _kernel,
    "bpf-filesystem": _bpf_filesystem,
    "commands": _commands,
    "ip-forward": _ip_forward,
    "rp-filter": _rp_filter,
    "forward-policy": _forward_policy,
    "network-configuration": _network_configuration,
    "plugins": _plugins,
    "tunnel-port": _tunnel_port,
    "underlay": _underlay,
}
