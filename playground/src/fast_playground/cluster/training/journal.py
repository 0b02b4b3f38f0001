"""What was broken in a playground and how each is undone, in a file of its directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fast.files import write_atomically


class ScriptUndo(msgspec.Struct, frozen=True, tag="script"):
    """A shell script for a place; ``netns`` is a pod's network namespace there, or empty."""

    place: str
    netns: str
    script: str


class ProgramUndo(msgspec.Struct, frozen=True, tag="program"):
    """A program that goes on or starts again."""

    target: str


class ObjectUndo(msgspec.Struct, frozen=True, tag="object"):
    """An object that is deleted."""

    kind: str
    namespace: str
    name: str


Undo = ScriptUndo | ProgramUndo | ObjectUndo


class Broken(msgspec.Struct, frozen=True):
    """One fault: the case, where, and what undoes it, in order."""

    case: str
    where: str
    undo: list[Undo]


class Journal:
    """The faults that were not undone yet.

    Args:
        directory: The playground's.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "broken.json"

    def read(self) -> list[Broken]:
        """Return the faults, the oldest first."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Broken])
        except FileNotFoundError:
            return []

    def write(self, faults: list[Broken]) -> None:
        """Replace the faults."""
        write_atomically(self._path, msgspec.json.encode(faults), 0o600)
