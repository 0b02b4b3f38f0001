"""How much a sweep of the controller may free at once (race: mass-disappearance)."""

from __future__ import annotations

#: The controller's sweep stops if it would free more than this share of the records …
BREAKER_SHARE = 0.10
#: … and more than this many.
BREAKER_COUNT = 20


def breaker(to_free: int, total: int, limit: int = BREAKER_COUNT) -> str:
    """Decide whether a sweep may free that many records: empty if so, else why not."""
    if to_free > limit and to_free > BREAKER_SHARE * total:
        return (
            f"the sweep would free {to_free} of {total} addresses at once, more than {BREAKER_SHARE:.0%} and more than "
            f"{limit}: nothing was freed"
        )
    return ""
