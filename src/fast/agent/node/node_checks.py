"""Problems of this node: checks that look and change nothing, for ``fast-ctl doctor`` and an agent's start.

Each check is a function of its own that gives findings; what is as it should be gives none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path

from fast.agent.cni.conflist import CONFLIST, find_earlier
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
    """How bad a finding is: ``error`` keeps pods from working, ``warning`` may."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of the node.

    Attributes:
        check: Name of the check that found it.
        severity: How bad.
        problem: What is the matter.
        remedy: What to do about it.
    """

    check: str
    severity: Severity
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """Where to look; the options of the agent of the same names."""

    node_ip: IPv4Address | None = None
    tunnel_port: int = DEFAULT_TUNNEL_PORT
    bpf_dir: Path = DEFAULT_BPF_DIR
    cni_bin_dir: Path = Path("/opt/cni/bin")
    cni_conf_dir: Path = Path("/etc/cni/net.d")


def examine(facts: NodeFacts) -> list[Finding]:
    """Run every check, in the calling thread's network and mount namespaces. Blocks for some tens of milliseconds.

    A check that cannot be carried out is a finding itself: it never raises FastError or OSError.
    """
    found: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            found += (Finding(name, *finding) for finding in check(facts))
        except (FastError, OSError) as error:
            found.append(
                Finding(name, Severity.WARNING, f"it cannot be told: {error}", "run it as root on the node")
            )
    return found


_Found = Iterator[tuple[Severity, str, str]]


def _kernel(_: NodeFacts) -> _Found:
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


def _bpf_filesystem(facts: NodeFacts) -> _Found:
    if not is_in_bpf_filesystem(facts.bpf_dir):
        yield (
            Severity.ERROR,
            f"{facts.bpf_dir} is in no bpf filesystem, so pods would lose their network with the agent",
            f"{MOUNT_COMMAND} (systemd does at boot; in a container, mount the host's)",
        )


def _ip_forward(_: NodeFacts) -> _Found:
    if sysctl.read("ipv4/ip_forward") != "1":
        yield (
            Severity.WARNING,
            "net.ipv4.ip_forward is 0: the node passes nothing on between pods and other machines",
            "the agent sets it; so that a reload of sysctl.d does not undo it, set net.ipv4.ip_forward = 1 there",
        )


def _rp_filter(_: NodeFacts) -> _Found:
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


def _forward_policy(_: NodeFacts) -> _Found:
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


def _network_configuration(facts: NodeFacts) -> _Found:
    if not facts.cni_conf_dir.is_dir():
        return
    earlier = find_earlier(facts.cni_conf_dir)
    if earlier is not None:
        yield (
            Severity.ERROR,
            f"{earlier} comes before {CONFLIST}: the container runtime uses that network",
            "remove it, once the other network plugin is uninstalled (docs/operate/migrate.md)",
        )


def _plugins(facts: NodeFacts) -> _Found:
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


def _tunnel_port(facts: NodeFacts) -> _Found:
    with Netlink() as netlink:
        owner = find_port_owner(netlink, facts.tunnel_port)
    if owner:
        yield (
            Severity.ERROR,
            f"UDP port {facts.tunnel_port}, which the tunnel needs for itself, is taken by {owner}",
            "give Fast another (--tunnel-port, the same on every node), or remove the other one",
        )


def _underlay(facts: NodeFacts) -> _Found:
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


def _commands(_: NodeFacts) -> _Found:
    if shutil.which("nft") is None:
        yield (
            Severity.ERROR,
            "there is no command nft, which masquerade and the tunnel's protection are made with",
            "install package nftables; Fast's image has it",
        )


#: By name, in the order in which they are run.
CHECKS: dict[str, Callable[[NodeFacts], _Found]] = {
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
