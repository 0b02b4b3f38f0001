"""Records what a playground has on this machine while it is up, to check afterwards that all of it is gone."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.processes import find_processes, start_ticks

_NAMESPACES = ("net", "mnt", "pid")
_BPF_FILESYSTEM = Path("/sys/fs/bpf")


@dataclass(frozen=True)
class Traces:
    """What a playground had on the machine.

    Attributes:
        directory: Of the playground.
        namespaces: Its network, mount and pid namespaces, as the kernel spells them: ``net:[4026532281]``.
        pins: Files of the machine's own BPF filesystem, which a playground must not change.
        devices: The machine's own network devices, which a playground must not change.
        noted_ticks: When, in clock ticks since boot. The kernel gives a namespace's number away again: what a process
            that started later is in, is another namespace of the same number.
    """

    directory: StateDirectory
    namespaces: frozenset[str]
    pins: frozenset[str]
    devices: frozenset[str]
    noted_ticks: float

    def remaining(self) -> list[str]:
        """Return what is still there and what the playground changed on the machine; empty if it is clean."""
        found = [f"process {pid}" for pid in find_processes(self.directory.name)]
        if self.directory.path.exists():
            found.append(f"directory {self.directory.path}")
        found += [f"mount {line}" for line in _mounts() if str(self.directory.path) in line]
        found += [
            f"namespace {item}" for item in sorted(self.namespaces & _held_namespaces(self.noted_ticks))
        ]
        found += [f"pin {_BPF_FILESYSTEM}/{name}" for name in sorted(_names(_BPF_FILESYSTEM) - self.pins)]
        found += [f"network device {name}" for name in sorted(_devices() ^ self.devices)]
        return found


def find_traces(playground: str) -> Traces:
    """Record what a playground has on this machine now.

    Args:
        playground: Its name; one that is up.

    Returns:
        Its traces; compare them after ``down``.
    """
    own = {_namespace("self", kind) for kind in _NAMESPACES}
    held = {_namespace(str(pid), kind) for pid in find_processes(playground) for kind in _NAMESPACES}
    return Traces(
        directory=StateDirectory(playground),
        namespaces=frozenset(held - own - {""}),
        pins=frozenset(_names(_BPF_FILESYSTEM)),
        devices=frozenset(_devices()),
        noted_ticks=time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"),
    )


def _held_namespaces(before_ticks: float) -> set[str]:
    """Every namespace that a process of before that time is in, or that a mount of this mount namespace keeps."""
    mounted = {line.split()[3] for line in _mounts() if " - nsfs " in line}
    pids = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    return mounted | {
        _namespace(pid, kind) for pid in pids if _is_older(pid, before_ticks) for kind in _NAMESPACES
    }


def _is_older(pid: str, ticks: float) -> bool:
    try:
        return start_ticks(int(pid)) < ticks
    except OSError:  # the process has ended
        return False


def _namespace(pid: str, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:  # the process has ended
        return ""


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def _devices() -> set[str]:
    return _names(Path("/sys/class/net"))
