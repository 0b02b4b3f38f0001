"""What a rule answers: what to do with a record, by which rule, and on which evidence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What to do with a record."""

    KEEP = "keep"
    RELEASE = "release"
    RETAIN = "retain"
    SUSPECT = "suspect"
    SAME = "same"
    TAKE_OVER = "take over"
    REBIND = "rebind"
    WAIT = "wait"
    UNRELATED = "unrelated"
    RESTORE = "restore"
    CONTESTED = "contested"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer.

    Attributes:
        action: What to do.
        rule: The rule's name: that of the race it guards against, or of what it found.
        evidence: One sentence for people.
    """

    action: Action
    rule: str
    evidence: str

    @property
    def frees(self) -> bool:
        """Whether it releases or retains the record."""
        return self.action in {Action.RELEASE, Action.RETAIN}
