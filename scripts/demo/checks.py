"""The checks that the demo's claims must pass."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_SECONDS = 60.0


class DemoFailed(Exception):
    """Something is not as the quick start says."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise DemoFailed with the reason if a condition is false."""
    if not holds:
        raise DemoFailed(otherwise)


def wait_until(holds: Callable[[], bool], what: str, found: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition is true; DemoFailed if that takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        expect(time.monotonic() < deadline, f"waited {WAIT_SECONDS:.0f} s for {what}; {found()}".rstrip("; "))
        time.sleep(0.1)
