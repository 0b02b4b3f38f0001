"""Annotations of Fast that somebody misspelt: they are silently ignored otherwise, and the default pool serves."""

from __future__ import annotations

import difflib

from fast.api.core import Pod
from fast.api.ips import ANNOTATION_ADDRESS, ANNOTATION_POOLS, ANNOTATION_STICKY

KNOWN = (ANNOTATION_POOLS, ANNOTATION_ADDRESS, ANNOTATION_STICKY)
_PREFIX = "fast.io/"
#: How alike a key without the prefix must be to one of Fast's, from 0 to 1: ``fastio/ips``, not ``ips``.
_ALIKE = 0.85


def misspelt(pod: Pod) -> list[tuple[str, str]]:
    """Give the pod's annotations that look like Fast's and are none, each with the one that was probably meant."""
    found = []
    for key in sorted(pod.metadata.annotations):
        if key in KNOWN:
            continue
        cutoff = 0.0 if key.lower().startswith(_PREFIX) else _ALIKE
        meant = difflib.get_close_matches(key.lower(), KNOWN, n=1, cutoff=cutoff)
        if meant:
            found.append((key, meant[0]))
    return found
