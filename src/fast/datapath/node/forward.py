"""Lets pods' packets through a FORWARD policy of DROP, as Docker sets it: accepts in iptables, only if needed.

A packet that one nftables base chain accepts still passes every other base chain of the hook, and a drop is final: no
rule in Fast's own table can overrule another table's policy. So if the FORWARD chain of iptables (nf_tables or legacy)
has the policy DROP, two rules are appended to it through iptables: accept what comes from, and what goes to, a device
of Fast. What an administrator's earlier rules drop stays dropped. The policies of other tables are only logged: Fast
cannot know where in them an accept belongs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import structlog

from fast.datapath.netlink.nftables import ForwardChain, forward_chains
from fast.datapath.node.firewall import TABLE
from fast.datapath.node.host_command import call, run
from fast.datapath.pod.identity import DEVICE_PREFIX
from fast.datapath.repair import Repair, RepairKind

log = structlog.get_logger()

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
    """Add the accepts where a policy of DROP needs them; return what was added.

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
            run(command, "-w", "-A", "FORWARD", *rule)
        if added:
            repairs.append(
                Repair(RepairKind.FORWARD_POLICY, f"{command}: FORWARD drops; accepts for pods added")
            )
    return repairs


def remove_forwarding() -> None:
    """Remove the accepts wherever they are. Idempotent."""
    for command in (*_NFT_COMMANDS.values(), *_legacy_in_use()):
        if shutil.which(command) is None:
            continue
        for rule in _RULES:
            while _has_rule(command, rule):
                run(command, "-w", "-D", "FORWARD", *rule)


def find_dropping_chains() -> tuple[set[str], list[str]]:
    """Find policies of DROP for forwarded packets. Changes nothing.

    Returns:
        The iptables commands whose FORWARD chain has one; and other chains, as ``family table chain``.

    Raises:
        NftablesError: A command refused.
    """
    commands, others = set(_dropping_legacy_commands()), []
    for chain in forward_chains():
        if not chain.drops or chain.table == TABLE:
            continue
        command = _iptables_of(chain)
        if command:
            commands.add(command)
        else:
            others.append(f"{chain.family} {chain.table} {chain.name}")
    return commands, others


def find_rejecting_chains() -> list[str]:
    """Find chains that end in a rule which drops or rejects every forwarded packet, before any accept of Fast's.

    firewalld and the default rules of iptables-services leave the policy at accept and end so: pods then reach neither
    Services elsewhere nor outside. Fast adds nothing to them: what an administrator wrote as the last word stays it.

    Returns:
        Each as ``family table chain: rule``, or ``iptables variant FORWARD: rule``.

    Raises:
        NftablesError: A command refused.
    """
    found = []
    for chain in forward_chains():
        if chain.table == TABLE:
            continue
        command = _iptables_of(chain)
        last = _last_iptables_rule(command) if command else _last_nft_rule(chain)
        if last:
            found.append(f"{command} FORWARD: {last}" if command else f"{_spelled(chain)}: {last}")
    found += [
        f"{command} FORWARD: {last}" for command in _legacy_in_use() if (last := _last_iptables_rule(command))
    ]
    return found


def _spelled(chain: ForwardChain) -> str:
    return f"{chain.family} {chain.table} {chain.name}"


def _iptables_of(chain: ForwardChain) -> str | None:
    """Return the iptables command whose FORWARD chain it is; None if it is no chain of iptables."""
    command = _NFT_COMMANDS.get(chain.family)
    if chain.table == "filter" and chain.name == "FORWARD" and command and shutil.which(command):
        return command
    return None


def _last_iptables_rule(command: str) -> str:
    """Return the rule of FORWARD that no packet passes; empty if there is none, or Fast's accepts stand before it."""
    for line in run(command, "-w", "-S", "FORWARD").splitlines():
        if _COMMENT in line:
            return ""
        if line.startswith(("-A FORWARD -j REJECT", "-A FORWARD -j DROP")):
            return line.removeprefix("-A FORWARD ")
    return ""


def _last_nft_rule(chain: ForwardChain) -> str:
    listed = json.loads(run("nft", "-j", "list", "chain", chain.family, chain.table, chain.name))
    for item in listed["nftables"]:
        statements = item.get("rule", {}).get("expr", [])
        verdicts = [next(iter(statement)) for statement in statements if "counter" not in statement]
        if len(verdicts) == 1 and verdicts[0] in ("reject", "drop"):
            return str(verdicts[0])
    return ""


def _legacy_in_use() -> Iterator[str]:
    """Give the legacy commands that have a filter table; asking the others would create one."""
    for listing, command in _LEGACY_COMMANDS.items():
        try:
            tables = Path(f"/proc/thread-self/net/{listing}").read_text().split()
        except FileNotFoundError:
            continue
        if "filter" in tables and shutil.which(command):
            yield command


def _dropping_legacy_commands() -> Iterator[str]:
    for command in _legacy_in_use():
        if "-P FORWARD DROP" in run(command, "-w", "-S", "FORWARD"):
            yield command


def _has_rule(command: str, rule: tuple[str, ...]) -> bool:
    return call(command, "-w", "-C", "FORWARD", *rule).returncode == 0
