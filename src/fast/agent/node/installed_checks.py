"""Checks of a node on which Fast is installed: agent, plugin, configuration, tombstones, disk. They change nothing."""

from __future__ import annotations

import filecmp
import os
import time
from pathlib import Path

import msgspec

from fast.agent.cni.conflist import CONFLIST
from fast.agent.cni.tombstones import Tombstones
from fast.agent.node.node_checks import CHECKS, Check, Found, NodeFacts, Severity
from fast.cni.agent_client import call_agent
from fast.cni.frames import CniCall, CniReply
from fast.cni.network_config import NEWEST_VERSION
from fast.cni.plugin_binary import PLUGIN, find_plugin
from fast.errors import InvalidConfig

_ANSWER_SECONDS = 2.0
_OLD_SECONDS = 300.0
_LEAST_FREE = 0.05


def is_installed(facts: NodeFacts) -> bool:
    """Return whether Fast is installed here: its configuration is there, and a directory of the agent's can be seen.

    In the container of ``deploy/doctor`` there is neither, so nothing is said about an agent that it cannot reach.
    """
    if facts.socket_path.exists():
        return True
    seen = facts.socket_path.parent.exists() or facts.state_dir.exists()
    return seen and (facts.cni_conf_dir / CONFLIST).exists()


def ask_status(path: Path, seconds: float = _ANSWER_SECONDS) -> CniReply:
    """Ask the agent for CNI STATUS. Blocking.

    Raises:
        OSError: There is no agent, or it does not answer in time (TimeoutError).
        InvalidConfig: The answer is not a frame.
    """
    config = {"cniVersion": NEWEST_VERSION, "name": "fast", "type": PLUGIN}
    call = CniCall({"CNI_COMMAND": "STATUS"}, msgspec.json.encode(config))
    return call_agent(path, call, seconds=seconds)


def _agent(facts: NodeFacts) -> Found:
    try:
        reply = ask_status(facts.socket_path)
    except TimeoutError:
        problem = (
            f"fast-agent does not answer on {facts.socket_path} within {_ANSWER_SECONDS:.0f} s: it hangs"
        )
        yield Severity.ERROR, problem, "restart it; running pods keep their network meanwhile"
        return
    except OSError as error:
        problem = f"no fast-agent serves {facts.socket_path} ({error.strerror}): pods can neither start nor be deleted"
        yield (
            Severity.ERROR,
            problem,
            "start it: kubectl -n fast-system get pods -o wide; its log says why it ended",
        )
        return
    if reply.exit_code:
        try:
            text = msgspec.json.decode(reply.stdout)["msg"]
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise InvalidConfig(f"the agent's answer cannot be read: {reply.stdout[:80]!r}") from error
        yield (
            Severity.ERROR,
            f"the node is not ready for pods: {text}",
            "see docs/operate/troubleshoot.md, Readiness",
        )


def _installation(facts: NodeFacts) -> Found:
    if not (facts.cni_conf_dir / CONFLIST).exists():
        yield (
            Severity.ERROR,
            f"{facts.cni_conf_dir / CONFLIST} is missing: the container runtime does not know Fast",
            "the agent writes it once the node is ready, and again if it is removed; see check agent",
        )
    installed = facts.cni_bin_dir / PLUGIN
    try:
        own = find_plugin()
    except InvalidConfig:
        return  # this installation of Fast has no plugin to compare with
    if installed.exists() and not filecmp.cmp(own, installed, shallow=False):
        yield (
            Severity.WARNING,
            f"{installed} is not the one of this version of Fast ({own})",
            "fast-ctl node install",
        )


def _tombstones(facts: NodeFacts) -> Found:
    directory = facts.state_dir / "tombstones"
    old = 0
    for container_id, ifname in Tombstones(directory).waiting():
        try:
            age = time.time() - (directory / f"{container_id}:{ifname}").stat().st_mtime
        except FileNotFoundError:
            continue  # carried out meanwhile
        old += age > _OLD_SECONDS
    if old:
        yield (
            Severity.WARNING,
            f"{old} DELs have waited in {directory} for more than {_OLD_SECONDS / 60:.0f} minutes: their addresses "
            "stay in use",
            "the agent's log says what refuses them (tombstone not carried out)",
        )


def _disk(facts: NodeFacts) -> Found:
    directory = facts.state_dir
    while not directory.exists():
        directory = directory.parent
    found = os.statvfs(directory)
    if found.f_flag & os.ST_RDONLY:
        problem = f"{facts.state_dir} is on a read-only file system: no DEL can be kept while the API server is away"
        yield Severity.ERROR, problem, "look for disk errors (dmesg), then mount it for writing"
        return
    for what, free, total in (
        ("space", found.f_bavail, found.f_blocks),
        ("inodes", found.f_favail, found.f_files),
    ):
        if total and free / total < _LEAST_FREE:
            problem = f"less than {_LEAST_FREE:.0%} of the {what} below {facts.state_dir} is free"
            yield (
                Severity.WARNING,
                problem,
                "free some: without it, no DEL can be kept while the API server is away",
            )


#: By name, in the order in which they are run. ``agent`` is for others than the agent.
INSTALLED_CHECKS: dict[str, Check] = {
    "agent": _agent,
    "installation": _installation,
    "tombstones": _tombstones,
    "disk": _disk,
}
#: What the agent itself looks at every minute.
RUNNING_CHECKS: dict[str, Check] = {
    **CHECKS,
    **{name: check for name, check in INSTALLED_CHECKS.items() if name != "agent"},
}
