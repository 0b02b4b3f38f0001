"""Process 1 of a playground or of one of its nodes: makes the mounts, then starts, watches and ends programs.

``python -m fast_playground.cluster.init --socket PATH [--disks DIR | --disk DIR]``, in fresh namespaces made by
unshare(1) (with neither, as for the underlay, the mounts stay as they are). Requests come over a unix socket
(``control.py`` is the other end). Standard library only, one thread, no decisions: if this process ends, the kernel
kills all others of its pid namespace.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fast_playground.cluster.mounts import mount_node, mount_playground
from fast_playground.default_signals import restore_default_signals

#: Pause before a program is started again, like a kubelet's back-off. It is fixed, because tests wait for it.
RESTART_SECONDS = 1.0
_MESSAGE_BYTES = 1 << 17
_MAX_DESCRIPTORS = 8


@dataclass
class Program:
    """A program of this init; it may be stopped.

    ``descriptors[0]`` becomes its stdout and stderr; the number of ``descriptors[1]`` stands for ``{fd1}`` in ``argv``,
    and so on.
    """

    name: str
    argv: list[str]
    environment: dict[str, str]
    descriptors: list[int]
    restarts: bool
    process: subprocess.Popen[bytes] | None = None
    exit_status: int | None = None
    starts: int = 0
    start_at: float | None = field(default=None)  # monotonic; when to start it again

    def start(self) -> None:
        """Start the process; OSError if it cannot be executed."""
        self.start_at = None
        self.starts += 1
        self.process = subprocess.Popen(
            [_with_numbers(word, self.descriptors) for word in self.argv],
            env=os.environ | self.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self.descriptors[0],
            stderr=subprocess.STDOUT,
            pass_fds=self.descriptors[1:],
            start_new_session=True,
        )
        self.exit_status = None

    def ended(self, status: int) -> None:
        """Record that the process ended, and when to start it again."""
        self.process = None
        self.exit_status = status
        if self.restarts:
            self.start_at = time.monotonic() + RESTART_SECONDS

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` answers."""
        return {
            "pid": self.process.pid if self.process else None,
            "exit_status": self.exit_status,
            "starts": self.starts,
            "restarts": self.restarts,
        }


def _with_numbers(word: str, descriptors: list[int]) -> str:
    for index, number in enumerate(descriptors):
        word = word.replace(f"{{fd{index}}}", str(number))
    return word


class Init:
    """The loop of process 1."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._programs: dict[str, Program] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        woken, waker = socket.socketpair()
        woken.setblocking(False)
        waker.setblocking(False)
        self._waker = waker
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(512))

    def run(self) -> None:
        """Serve until killed."""
        while True:
            due = [program.start_at for program in self._programs.values() if program.start_at is not None]
            timeout = max(0.0, min(due) - time.monotonic()) if due else None
            for key, _ in self._selector.select(timeout):
                key.data()
            self._reap()
            self._restart()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _MAX_DESCRIPTORS)
            if not message:
                raise ConnectionResetError
            connection.send(json.dumps(self._answer(json.loads(message), descriptors)).encode())
        except OSError:
            self._selector.unregister(connection)
            connection.close()

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        try:
            match request.pop("op"):
                case "start":
                    return self._start(descriptors=descriptors, **request)
                case "again":
                    return self._again(**request)
                case "signal":
                    return self._signal(**request)
                case "status":
                    return {
                        "programs": {name: program.describe() for name, program in self._programs.items()}
                    }
                case other:
                    return {"error": f"unknown request {other!r}"}
        except (OSError, KeyError, TypeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _start(
        self,
        *,
        name: str,
        argv: list[str],
        environment: dict[str, str],
        restarts: bool,
        descriptors: list[int],
    ) -> dict[str, Any]:
        known = self._programs.get(name)
        if known is not None:
            if known.process is not None:
                return {"error": f"{name} runs already"}
            known.close()
        program = Program(name, argv, environment, descriptors, restarts)
        self._programs[name] = program
        program.start()
        return program.describe()

    def _again(self, *, name: str) -> dict[str, Any]:
        """Start a program that was stopped, as it was started before."""
        program = self._programs[name]
        if program.process is not None:
            return {"error": f"{name} runs already"}
        program.restarts = True
        program.start()
        return program.describe()

    def _signal(self, *, name: str, number: int, restarts: bool) -> dict[str, Any]:
        """Send a signal; ``restarts`` says whether init starts the program again once it has ended."""
        program = self._programs[name]
        program.restarts = restarts
        if not restarts:
            program.start_at = None
        if program.process is not None:
            program.process.send_signal(number)
        return program.describe()

    def _reap(self) -> None:
        """Collect every child that ended: own programs, and orphans that process 1 inherits."""
        by_pid = {program.process.pid: program for program in self._programs.values() if program.process}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid and (process := by_pid[pid].process) is not None:
                process.returncode = os.waitstatus_to_exitcode(status)
                by_pid[pid].ended(process.returncode)

    def _restart(self) -> None:
        for program in self._programs.values():
            if program.start_at is not None and program.start_at <= time.monotonic():
                try:
                    program.start()
                except OSError as error:
                    print(f"init: cannot start {program.name}: {error}", file=sys.stderr, flush=True)
                    program.ended(127)


def main() -> None:
    """Make the mounts, then serve. The socket accepts connections once everything is in place."""
    parser = argparse.ArgumentParser(prog="fast_playground.cluster.init")
    parser.add_argument("--socket", type=Path, required=True)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--disks", type=Path, help="a playground's init: folder for the nodes' disks")
    place.add_argument("--disk", type=Path, help="a node's init: its disk")
    options = parser.parse_args()
    restore_default_signals()
    with contextlib.suppress(FileNotFoundError):
        options.socket.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(options.socket))  # before the mounts hide its folder
    options.socket.chmod(0o600)
    if options.disks is not None:
        mount_playground(options.disks)
    elif options.disk is not None:
        mount_node(options.disk)
    listener.listen(16)
    Init(listener).run()


if __name__ == "__main__":
    main()
