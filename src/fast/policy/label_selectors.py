"""Label selectors in one canonical form, so that equal ones are one value; and an index from labels to selectors.

The API's LabelSelector is read once; what cannot be read is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

from fast.api.meta import LabelSelector

_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})

#: Under what the index keeps a selector: (key, value), (key,) or () for those that any labels may match.
Anchor = tuple[str, ...]


class Requirement(msgspec.Struct, frozen=True, order=True):
    """One requirement; ``values`` are sorted and only there for In and NotIn."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet it; NotIn is met where the key is absent."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None

    def __str__(self) -> str:
        match self.operator:
            case "In" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "In":
                return f"{self.key} in ({', '.join(self.values)})"
            case "NotIn":
                return f"{self.key} not in ({', '.join(self.values)})"
            case "Exists":
                return self.key
            case _:
                return f"no {self.key}"


class Selector(msgspec.Struct, frozen=True):
    """All requirements must be met; without any, everything is selected."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        for requirement in self.requirements:  # noqa: SIM110 - a generator costs twice as much, and this is the hot path
            if not requirement.matches(labels):
                return False
        return True

    @property
    def keys(self) -> frozenset[str]:
        """The label keys it looks at."""
        return frozenset(requirement.key for requirement in self.requirements)

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """The fewest index places of which whatever it selects has at least one."""
        pairs = [item for item in self.requirements if item.operator == "In"]
        if pairs:
            best = min(pairs, key=lambda item: len(item.values))
            return tuple((best.key, value) for value in best.values)
        for item in self.requirements:
            if item.operator == "Exists":
                return ((item.key,),)
        return ((),)

    def __str__(self) -> str:
        return ", ".join(map(str, self.requirements))


#: Selects everything.
EVERYTHING = Selector()


def find_selector(selector: LabelSelector) -> Selector | None:
    """Read a selector; None if it has an operator that is not known, or values where none belong or none are.

    What the API server refuses is refused here, too: a selector that is only half understood must not be half applied.
    """
    requirements = {Requirement(key, "In", (value,)) for key, value in selector.match_labels.items()}
    for item in selector.match_expressions:
        if item.operator not in _OPERATORS or bool(item.values) != (item.operator in {"In", "NotIn"}):
            return None
        requirements.add(Requirement(item.key, item.operator, tuple(sorted(set(item.values)))))
    return Selector(tuple(sorted(requirements)))


T = TypeVar("T")


class SelectorIndex(Generic[T]):
    """Things by the labels their selector needs: a look-up asks those that may match, not all there are.

    ``scope`` splits the index, as by namespace; () is one for all.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[object, Anchor], dict[T, None]] = {}

    def add(self, scope: object, selector: Selector, item: T) -> None:
        """Put an item in; it is found through any labels that its selector may match."""
        for anchor in selector.anchors:
            self._places.setdefault((scope, anchor), {})[item] = None

    def remove(self, scope: object, selector: Selector, item: T) -> None:
        """Take an item out that was put in with the same scope and selector."""
        for anchor in selector.anchors:
            place = self._places.get((scope, anchor))
            if place is not None:
                place.pop(item, None)
                if not place:
                    del self._places[(scope, anchor)]

    def candidates(self, scope: object, labels: Mapping[str, str]) -> Iterator[T]:
        """Give every item whose selector may match; one that has several anchors may come more than once."""
        places = self._places
        for pair in labels.items():
            yield from places.get((scope, pair), ())
            yield from places.get((scope, pair[:1]), ())
        yield from places.get((scope, ()), ())
