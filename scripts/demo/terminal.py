"""Runs a command on its own terminal, which ``kubectl exec -it`` needs."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Iterator


def run_on_terminal(argv: list[str]) -> tuple[int, str]:
    """Run a command on a new pseudo-terminal. Return its exit status and its output, without carriage returns."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)  # noqa: S606 -- no shell is wanted
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        written = b"".join(_read_all(terminal.fileno()))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), re.sub(r"\r+\n", "\n", written.decode(errors="replace"))


def _read_all(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # EIO: the other end was closed
            return
        if not chunk:
            return
        yield chunk
