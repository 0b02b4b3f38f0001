"""The client's end of an init's socket: starting, signalling and listing the programs of a playground or node."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast.errors import FastError

_MESSAGE_BYTES = 1 << 17
_POLL_SECONDS = 0.02
_CREDENTIALS = struct.Struct("3i")


class InitGone(FastError):
    """The init of a playground or node does not answer: it was never started, or has ended."""


class ProgramFailed(FastError):
    """A program could not be started, or did not end in time."""


@dataclass(frozen=True, slots=True)
class ProgramState:
    """The state of a program.

    Attributes:
        pid: In the init's own pid namespace; None if it is not running.
        exit_status: Of its last run, negative for a signal; None if it has not ended yet.
        starts: How often it was started.
        restarts: Whether init starts it again when it ends.
    """

    pid: int | None
    exit_status: int | None
    starts: int
    restarts: bool


class Control:
    """Talks to one init. Blocking; each request is answered within milliseconds.

    Args:
        path: Its socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until the init has made its mounts and serves.

        Raises:
            InitGone: It did not in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                self.status()
            except InitGone:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return

    def init_pid(self) -> int:
        """Return the init's pid in the caller's pid namespace. /proc/PID/ns leads to the init's namespaces."""
        with self._connect() as connection:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return int(_CREDENTIALS.unpack(raw)[0])

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        restarts: bool = True,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start a program; one of the same name must have ended.

        Args:
            name: What it is called from now on.
            argv: Its command; ``{fd1}``, ``{fd2}`` … become the numbers of the passed descriptors.
            log: File that its output is appended to. It is opened here, not in the program's namespaces.
            environment: Added to the init's own.
            restarts: Whether init starts it again when it ends.
            descriptors: Passed along.

        Raises:
            ProgramFailed: It could not be executed.
            InitGone: The init does not answer.
        """
        request = {
            "name": name,
            "argv": list(argv),
            "environment": dict(environment or {}),
            "restarts": restarts,
        }
        with log.open("ab") as stream:
            answer = self._ask({"op": "start"} | request, [stream.fileno(), *descriptors])
        if "error" in answer:
            raise ProgramFailed(f"cannot start {name}: {answer['error']}")

    def start_again(self, name: str) -> None:
        """Start a program that was stopped, with the command and the descriptors that it had.

        Raises:
            ProgramFailed: It runs, or could not be executed.
        """
        answer = self._ask({"op": "again", "name": name})
        if "error" in answer:
            raise ProgramFailed(f"cannot start {name}: {answer['error']}")

    def status(self) -> dict[str, ProgramState]:
        """Return the state of every program, by name; InitGone if the init does not answer."""
        programs = self._ask({"op": "status"})["programs"]
        return {name: ProgramState(**state) for name, state in programs.items()}

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a program that init starts again afterwards, as a crash."""
        self._signal(name, number, restarts=True)

    def stop(self, name: str, number: int = signal.SIGTERM, *, timeout_seconds: float = 10) -> int:
        """End a program and wait for it; it stays stopped until started again.

        Returns:
            Its exit status, negative for a signal.

        Raises:
            ProgramFailed: It did not end in time, or was never started.
        """
        self._signal(name, number, restarts=False)
        deadline = time.monotonic() + timeout_seconds
        while (state := self.status()[name]).pid is not None:
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{name} (pid {state.pid}) did not end within {timeout_seconds} s")
            time.sleep(_POLL_SECONDS)
        return state.exit_status if state.exit_status is not None else 0

    def _signal(self, name: str, number: int, *, restarts: bool) -> None:
        answer = self._ask({"op": "signal", "name": name, "number": int(number), "restarts": restarts})
        if "error" in answer:
            raise ProgramFailed(f"cannot signal {name}: {answer['error']}")

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(10)
            connection.connect(str(self.path))
        except OSError as error:
            connection.close()
            raise InitGone(f"nothing answers at {self.path}: {error.strerror or error}") from error
        return connection

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._connect() as connection:
            try:
                socket.send_fds(connection, [json.dumps(request).encode()], list(descriptors))
                answer = connection.recv(_MESSAGE_BYTES)
            except OSError as error:
                raise InitGone(f"{self.path}: {error}") from error
        if not answer:
            raise InitGone(f"{self.path}: the init ended")
        decoded: dict[str, Any] = json.loads(answer)
        return decoded
