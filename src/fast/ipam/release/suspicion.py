"""What an agent's garbage collection remembers between sweeps: records seen without their sandbox.

In memory only: after a restart, an agent looks twice again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from fast.api.ipendpoint import IpEndpoint
from fast.ipam.rules import agent_gc_rules
from fast.ipam.rules.agent_gc_rules import Sighting
from fast.ipam.rules.claim_request import AttachmentKey, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import holder_of


class Suspicions:
    """Sightings by record name.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sightings: dict[str, Sighting] = {}

    def forget(self, records: Iterable[IpEndpoint]) -> None:
        """Forget the suspicions about these records."""
        for record in records:
            self._sightings.pop(record.metadata.name, None)

    def judge(
        self,
        records: Iterable[IpEndpoint],
        alive: Collection[AttachmentKey],
        added: Collection[AttachmentKey],
        node: NodeIdentity,
    ) -> list[tuple[IpEndpoint, Decision]]:
        """Decide about every record, remember what is suspected, and give those that are to be freed.

        Args:
            records: This node's, read before ``alive``.
            alive: Attachments whose sandbox exists.
            added: Attachments of which an ADD was in flight at any time since the records were read.
            node: This node.
        """
        now = self._clock()
        kept: dict[str, Sighting] = {}
        to_free = []
        for record in records:
            name, key = record.metadata.name, holder_of(record)
            sighting = self._sightings.get(name)
            decision = agent_gc_rules.on_agent_sweep(
                record,
                node,
                has_sandbox=key in alive,
                adding=key in added,
                sighting=sighting,
                now=now,
            )
            if decision.action is Action.SUSPECT:
                kept[name] = Sighting(record.metadata, now)
            elif decision.rule == "seen-once" and sighting is not None:
                kept[name] = sighting
            elif decision.frees:
                to_free.append((record, decision))
                if sighting is not None:
                    kept[name] = sighting  # until the record is gone, as the write may fail
        self._sightings = kept
        return to_free
