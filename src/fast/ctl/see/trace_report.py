"""What a trace found: its steps, the first cause, and what to do about it. How they are found is in ``trace_steps``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

OK, BAD, UNKNOWN, SKIPPED = "OK", "BAD", "?", "-"
#: The name of steps about a node as a whole.
NODE = "node"
_COLOURS = {OK: "green", BAD: "red", UNKNOWN: "yellow"}
_SOUND, _CAUSE_NAMED, _CANNOT_TELL = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Step:
    """One look at one thing.

    Attributes:
        name: One word, such as ``record``.
        state: ``OK``, ``BAD``, ``?`` (could not be told) or ``-`` (not looked at).
        text: What was seen.
        remedy: What to do, if it is bad.
    """

    name: str
    state: str
    text: str
    remedy: str = ""


@dataclass(slots=True)
class Report:
    """All steps.

    Attributes:
        source: The one end, for people.
        destination: The other.
        steps: In the order in which they were taken.
        delivered: Whether the probe was answered; None if none was sent.
        stopped: Whether it makes no sense to go on: nothing can be traced.
    """

    source: str
    destination: str
    steps: list[Step] = field(default_factory=list)
    delivered: bool | None = None
    stopped: bool = False

    def add(self, name: str, state: str, text: str, remedy: str = "") -> None:
        """Add a step."""
        self.steps.append(Step(name, state, text, remedy))

    def stop(self, name: str, text: str, remedy: str) -> None:
        """Add a bad step behind which nothing can be traced."""
        self.add(name, BAD, text, remedy)
        self.stopped = True

    @property
    def cause(self) -> Step | None:
        """The first bad step; None if there is none.

        A node's own problems come last, and do not count if packets are answered: most keep new pods from starting, and
        running ones have their network.
        """
        bad = [step for step in self.steps if step.state == BAD]
        of_path = next((step for step in bad if step.name != NODE), None)
        return of_path or (bad[0] if bad and not self.delivered else None)

    @property
    def exit_status(self) -> int:
        """0: packets are answered, or nothing is wrong as far as was looked. 1: the cause is named. 3: unknown."""
        if self.cause is not None:
            return _CAUSE_NAMED
        if self.delivered:
            return _SOUND
        unknown = self.delivered is False or any(step.state == UNKNOWN for step in self.steps)
        return _CANNOT_TELL if unknown else _SOUND

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        cause = self.cause
        return {
            "source": self.source,
            "destination": self.destination,
            "delivered": self.delivered,
            "steps": [
                {"step": step.name, "state": step.state, "text": step.text, "remedy": step.remedy}
                for step in self.steps
            ],
            "cause": cause.text if cause else "",
            "do": cause.remedy if cause else "",
        }

    def as_text(self) -> str:
        """Write it for people; the last lines are the cause and what to do."""
        lines = [f"{self.source}  →  {self.destination}"]
        lines += [
            f" {click.style(f'{step.state:4}', fg=_COLOURS.get(step.state))} {step.name:9} {step.text}"
            for step in self.steps
        ]
        cause = self.cause
        if self.delivered:
            lines.append(
                "Packets get there and are answered" + (", but something is wrong:" if cause else ".")
            )
        if cause is not None:
            lines += [f"cause: {cause.text}", f"do:    {cause.remedy}"]
        elif self.exit_status == _CANNOT_TELL:
            lines.append(
                "cause: not found. Nothing that was looked at is wrong, or a part could not be asked"
            )
            lines.append("do:    capture on both nodes: fast-ctl flows -f, tcpdump; look at fast-ctl doctor")
        return "\n".join(lines)
