"""Times as the Kubernetes API spells them: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text() -> str:
    """Now, to the second, as ``metav1.Time``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro_text() -> str:
    """Now, to the microsecond, as ``metav1.MicroTime``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
