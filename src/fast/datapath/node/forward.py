"""Letting pods' packets through a FORWARD policy of DROP, as Docker sets it: accepts in iptables, only where needed.

A packet that one nftables base chain accepts still meets every other base chain of the hook, and a drop is final: no
rule in Fast's own table can overrule another table's policy. So where the FORWARD chain of iptables (nf_tables or
legacy) has the policy DROP, two rules are put at its end through iptables itself: accept what comes from, and what goes
to, a device of Fast's. What an administrator's rules before them drop stays dropped. Other tables' policies are only
logged: where in them an accept belongs is not to be told.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import structlog

from fast.datapath.node.firewall import TABLE
from fast.datapath.pod.identity import DEVICE_PREFIX
from fast.datapath.repair import Repair, RepairKind
from fast.errors import NftablesError

log = structlog.get_logger()

_COMMAND_SECONDS = 30.0
_COMMENT = "fast: pods"
_RULES = (
    ("-i", f"{DEVICE_PREFIX}+", "-m", "comment", "--comment", _COMMENT, "-j", "ACCEPT"),
    ("-o", f"{DEVICE_PREFIX}+", "-m", "comment", "--comment", _COMMENT, "-j", "ACCEPT"),
)
#: nftables family → iptables variant of it.
_NFT_COMMANDS = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}
#: Where the kernel lists legacy tables in use → the command for them.
_LEGACY_COMMANDS = {"ip_tables_names": "iptables-legacy", "ip6_tables_names": "ip6tables-legacy"}


def ensure_forwarding() -> list[Repair]:
    """Put the accepts where a policy of DROP makes them necessary, and tell where that was.

    Raises:
        NftablesError: A command refused.
    """
    repairs = []
    commands, others = find_dropping_chains()
    for chain in others:
        log.warning(
            "an nftables chain drops what is forwarded; what it does not accept reaches no pod over the stack",
            chain=chain,
        )
    for command in commands:
        added = [rule for rule in _RULES if not _has_rule(command, rule)]
        for rule in added:
            _run(command, "-w", "-A", "FORWARD", *rule)
        if added:
            repairs.append(
                Repair(RepairKind.FORWARD_POLICY, f"{command}: FORWARD drops; accepts for pods added")
            )
    return repairs


def remove_forwarding() -> None:
    """Take the accepts away wherever they are. Idempotent."""
    for command in (*_NFT_COMMANDS.values(), *_legacy_in_use()):
        if shutil.which(command) is None:
            continue
        for rule in _RULES:
            while _has_rule(command, rule):
                _run(command, "-w", "-D", "FORWARD", *rule)


def find_dropping_chains() -> tuple[set[str], list[str]]:
    """Find policies of DROP for what is forwarded. Looks only.

    Returns:
        The iptables commands that show one in their FORWARD chain; and as ``family table chain`` those of others.

    Raises:
        NftablesError: A command refused.
    """
    commands, others = set(_dropping_legacy_commands()), []
    for chain in _forward_chains():
        family, table, name = chain["family"], chain["table"], chain["name"]
        if chain.get("policy") != "drop" or table == TABLE:
            continue
        command = _NFT_COMMANDS.get(family)
        if table == "filter" and name == "FORWARD" and command and shutil.which(command):
            commands.add(command)
        else:
            others.append(f"{family} {table} {name}")
    return commands, others


def _forward_chains() -> list[dict[str, str]]:
    result = _call("nft", "-j", "list", "chains")
    if result.returncode:
        raise NftablesError(f"nft cannot list chains: {result.stderr.strip()}")
    chains = [item["chain"] for item in json.loads(result.stdout)["nftables"] if "chain" in item]
    return [chain for chain in chains if chain.get("hook") == "forward"]


def _legacy_in_use() -> Iterator[str]:
    """Give the legacy commands that have a filter table; asking them otherwise would make one."""
    for listing, command in _LEGACY_COMMANDS.items():
        try:
            tables = Path(f"/proc/thread-self/net/{listing}").read_text().split()
        except FileNotFoundError:
            continue
        if "filter" in tables and shutil.which(command):
            yield command


def _dropping_legacy_commands() -> Iterator[str]:
    for command in _legacy_in_use():
        if "-P FORWARD DROP" in _run(command, "-w", "-S", "FORWARD"):
            yield command


def _has_rule(command: str, rule: tuple[str, ...]) -> bool:
    return _call(command, "-w", "-C", "FORWARD", *rule).returncode == 0


def _run(command: str, *arguments: str) -> str:
    result = _call(command, *arguments)
    if result.returncode:
        raise NftablesError(f"{command} {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def _call(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftablesError(f"{command} cannot be run: {error}") from error
