"""When a disappearance is suspicious: too many nodes, StatefulSets or pools gone at once (race: mass-disappearance).

What counts are causes, not addresses: one dead node with 200 pods is one cause, and so is one deleted StatefulSet.
Positive evidence (a taint, a smaller replica count, a deletion timestamp) is no disappearance.
"""

from __future__ import annotations

from dataclasses import dataclass

from fast.api.ipendpoint import IpEndpoint
from fast.ipam.rules.decision import Decision
from fast.ipam.rules.sticky_keys import parse_sticky_key

NODE = "node"
STATEFUL_SET = "StatefulSet"
POOL = "pool"

#: A group is suspicious if more of its kind than this are gone …
MOST_CAUSES = 3
#: … and more than this share of them.
CAUSES_SHARE = 0.10
#: So many sweeps in a row must see a suspicious cause before it is believed.
SWEEPS_TO_AGREE = 5
#: What is believed then is freed slowly: at most so many records in a sweep, or this share of all.
RECORDS_A_SWEEP = 20
RECORDS_SHARE = 0.10


@dataclass(frozen=True, slots=True, order=True)
class Cause:
    """Something that is gone: its kind (``node``, ``StatefulSet`` or ``pool``) and name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def cause_of(record: IpEndpoint, decision: Decision) -> Cause | None:
    """Name what must be gone for the decision to be right; None if the decision rests on positive evidence."""
    match decision.rule:
        case "node-gone":
            return Cause(NODE, record.spec.node)
        case "stateful-set-gone":
            key = parse_sticky_key(record.spec.sticky_key)
            if key is None:
                return None
            return Cause(STATEFUL_SET, key.set_uid or f"{key.namespace}/{key.name}")
        case "pool-gone":
            return Cause(POOL, record.spec.pool)
        case _:
            return None


def is_suspicious(kind: str, gone: int, there: int) -> bool:
    """Whether so many of a kind gone at once look like a wrong answer of the API server.

    Args:
        kind: Of the causes.
        gone: How many are gone.
        there: How many the API server listed.
    """
    if kind == NODE and not there:
        return gone > 0
    return gone > MOST_CAUSES and gone > CAUSES_SHARE * (gone + there)
