"""The ADDs that a process is serving, and the order in which they began. In memory only; no decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count

from fast.ipam.rules.claim_request import AttachmentKey


class AddsInFlight:
    """ADDs by attachment.

    The order of ADDs that ended is kept while an older one is still being served, as that one may meet what they made.
    """

    def __init__(self) -> None:
        self._serving: Counter[AttachmentKey] = Counter()
        self._began: dict[AttachmentKey, int] = {}
        self._numbers = count()
        self._watches: list[set[AttachmentKey]] = []

    def __contains__(self, key: AttachmentKey) -> bool:
        return key in self._serving

    @contextmanager
    def serving(self, key: AttachmentKey) -> Iterator[None]:
        """Mark an ADD as being served. May be nested; the outermost counts."""
        if not self._serving[key]:
            self._began[key] = next(self._numbers)
        for added in self._watches:
            added.add(key)
        self._serving[key] += 1
        try:
            yield
        finally:
            self._serving[key] -= 1
            if not self._serving[key]:
                del self._serving[key]
                self._forget()

    @contextmanager
    def watched(self) -> Iterator[Collection[AttachmentKey]]:
        """Give the attachments that have an ADD in flight at any time during the block; grows meanwhile."""
        added = set(self._serving)
        self._watches.append(added)
        try:
            yield added
        finally:
            self._watches = [other for other in self._watches if other is not added]

    def is_overtaken(self, key: AttachmentKey, by: AttachmentKey) -> bool:
        """Whether the ADD of ``by`` began after that of ``key``, which is still being served."""
        return key in self and by in self._began and self._began[by] > self._began[key]

    def _forget(self) -> None:
        """Forget ended ADDs that are older than every ADD in flight."""
        oldest = min((self._began[key] for key in self._serving), default=None)
        for key in [key for key in self._began if key not in self._serving]:
            if oldest is None or self._began[key] < oldest:
                del self._began[key]
