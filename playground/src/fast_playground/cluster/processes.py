"""Finds and ends a playground's processes: exactly those that have its name in their environment."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from fast.errors import FastError

#: Every process of a playground has this variable, with the playground's name.
VARIABLE = "FAST_PLAYGROUND"
_START_TICKS_FIELD = 22


def find_processes(playground: str) -> list[int]:
    """List the pids of a playground's processes (zombies have no environment, so they do not count)."""
    mark = f"{VARIABLE}={playground}".encode()
    return [pid for pid in _pids() if pid != os.getpid() and mark in _environment(pid)]


def find_playgrounds() -> set[str]:
    """List the names of the playgrounds that have processes."""
    prefix = f"{VARIABLE}=".encode()
    return {
        word[len(prefix) :].decode(errors="replace")
        for pid in _pids()
        for word in _environment(pid)
        if word.startswith(prefix)
    }


def kill_processes(playground: str, *, timeout_seconds: float = 15) -> None:
    """Kill (SIGKILL) every process of a playground and wait until they have ended.

    Raises:
        FastError: Some did not end in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while pids := find_processes(playground):
        for pid in pids:
            _kill(pid, playground, deadline)
        if time.monotonic() > deadline:
            raise FastError(f"processes of playground {playground} do not end: {pids}")


def _kill(pid: int, playground: str, deadline: float) -> None:
    """Kill one process by pidfd. Check it again first, because its pid may have been reused."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if f"{VARIABLE}={playground}".encode() in _environment(pid):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(descriptor)
    with contextlib.suppress(ChildProcessError):  # ours only if this very process started the playground
        os.waitpid(pid, os.WNOHANG)


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; OSError if there is none."""
    return int(_stat_fields(pid)[_START_TICKS_FIELD - 3])


def process_state(pid: int) -> str:
    """Return a process's state as the kernel spells it (``Z`` is a zombie); OSError if there is none."""
    return _stat_fields(pid)[0]


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third. They follow the name, which may contain any byte."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
