"""Times as the Kubernetes API spells them: RFC 3339 in UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def now_text() -> str:
    """Now, to the second, as ``metav1.Time``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro_text() -> str:
    """Now, to the microsecond, as ``metav1.MicroTime``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_since(text: str) -> float:
    """Give the seconds since that time by the wall clock; infinite if the text is no RFC 3339 time.

    For what one look must answer, and for waits of hours. Whoever can watch measures by a clock that never jumps.
    """
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
    except (TypeError, ValueError):
        return math.inf
