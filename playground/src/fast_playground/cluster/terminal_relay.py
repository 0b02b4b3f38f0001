"""Runs a command on its own terminal and connects this process's terminal to it, as ssh does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import termios
import tty
from collections.abc import Callable, Mapping
from select import select

_CHUNK_BYTES = 32 * 1024


def run_on_terminal(argv: list[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end; return its exit status (128 plus the number for a signal).

    The caller's terminal is in raw mode meanwhile, so every key goes to the command.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvpe(argv[0], argv, environment)  # noqa: S606 -- no shell is wanted
        finally:
            os._exit(127)
    resize = _resizer(terminal)
    resize()
    before = signal.signal(signal.SIGWINCH, lambda *_: resize())
    mode = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # keep what was typed before
    try:
        _carry(terminal)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, mode)
        signal.signal(signal.SIGWINCH, before)
        os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _resizer(terminal: int) -> Callable[[], object]:
    def resize() -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    return resize


def _carry(terminal: int) -> None:
    """Copy keys and output until the command closes its terminal."""
    sources = [terminal, 0]
    with contextlib.suppress(OSError):  # EIO: no process has the terminal open any more
        while True:
            ready, _, _ = select(sources, [], [])
            if terminal in ready:
                output = os.read(terminal, _CHUNK_BYTES)
                if not output:
                    return
                _write(1, output)
            if 0 in ready:
                keys = os.read(0, _CHUNK_BYTES)
                _write(terminal, keys or b"\x04")
                sources = sources if keys else [terminal]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
