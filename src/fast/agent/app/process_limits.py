"""Limits of the agent's own process."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; return it.

    Container runtimes give 1,024: a few hundred connections and a node's pods starting at once would use them up.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
