"""The demo's output."""

from __future__ import annotations

import os
import sys


class Screen:
    """What the reader sees: step titles, commands and their output; in colours on a terminal."""

    def __init__(self) -> None:
        colours = sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))
        self._codes = {"title": "1;36", "command": "1", "good": "32", "bad": "1;31"} if colours else {}
        self._step = 0

    def _print(self, style: str, text: str) -> None:
        code = self._codes.get(style)
        print(f"\x1b[{code}m{text}\x1b[0m" if code else text, flush=True)

    def step(self, title: str) -> None:
        """Begin a step: its number and title."""
        self._step += 1
        self._print("title", f"\n{self._step}. {title}")

    def command(self, text: str) -> None:
        """Show a command, as a user types it."""
        self._print("command", f"$ {text}")

    def output(self, text: str) -> None:
        """Show what a command wrote."""
        if text.strip():
            print(text.rstrip("\n"), flush=True)

    def good(self, text: str) -> None:
        """Show a check that passed."""
        self._print("good", f"✓ {text}")

    def bad(self, text: str) -> None:
        """Show a check that failed."""
        self._print("bad", f"✗ {text}")
