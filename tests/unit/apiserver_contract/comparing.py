"""Holding an answer against a recorded one: what is equal, what is volatile, and where they differ. No requests.

Volatile values (uids, resourceVersions, generated names, times, continue tokens) cannot be equal; what must hold
instead: the same recorded value is always the same value here, two recorded values are two here, and an object's
versions rise where the recorded ones do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
_TIME_FIELDS = ("Time", "Timestamp", "time")
_HASH = "pod-template-hash"
_GENERATED_VOLUME = "kube-api-access-"
_AGE = re.compile(r"(\d+[smhd])+")
#: What identifies an element of a list whose order means nothing.
_IDENTITIES = ("name", "resource", "subresource", "version")


@dataclass(frozen=True)
class Difference:
    """One place in which an answer is not as recorded."""

    path: str
    recorded: Any
    given: Any

    def __str__(self) -> str:
        return f"{self.path}: recorded {_short(self.recorded)}, given {_short(self.given)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 160 else f"{text[:157]}..."


@dataclass
class Missing:
    """Stands for a value that is not there."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = Missing()


@dataclass
class Volatile:
    """Which recorded values stand for which values here.

    Attributes:
        known: Recorded value → value here, for uids, names and tokens.
        versions: The same for objects' resourceVersions;
        lists: and for lists'.
    """

    known: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    _newest: dict[str, tuple[int, int]] = field(default_factory=dict)

    def copy(self) -> "Volatile":
        """What is known now; what is added to one is not in the other."""
        return Volatile(dict(self.known), dict(self.versions), dict(self.lists), dict(self._newest))

    def translate(self, text: str) -> str:
        """Put the values of here into a recorded text (a path or message)."""
        for recorded in sorted(self.known, key=len, reverse=True):
            text = text.replace(recorded, self.known[recorded])
        return re.sub(
            r"(?<=resourceVersion=)\d+|(?<=record \()\d+(?=\))",
            lambda m: self.versions.get(m[0]) or self.lists.get(m[0]) or m[0],
            text,
        )

    def body(self, value: Any) -> Any:
        """Put the values of here into a recorded body."""
        if isinstance(value, dict):
            made = {name: self.body(inner) for name, inner in value.items()}
            if (version := value.get("resourceVersion")) in self.versions:
                made["resourceVersion"] = self.versions[version]
            return made
        if isinstance(value, list):
            return [self.body(inner) for inner in value]
        return self.known.get(value, value) if isinstance(value, str) else value

    def same(self, recorded: str, given: Any) -> bool:
        """Whether a value may stand for a recorded one; remembered if so."""
        return _bind(self.known, recorded, given)

    def same_version(self, uid: str, recorded: str, given: Any) -> bool:
        """The same for an object's resourceVersion, which must rise as the recorded ones do."""
        if not isinstance(given, str) or not given.isdecimal() or not _bind(self.versions, recorded, given):
            return False
        before = self._newest.get(uid, (0, 0))
        now = (int(recorded), int(given))
        self._newest[uid] = max(before, now)
        return (before <= now) == (before[1] <= now[1])

    def same_list_version(self, recorded: str, given: Any) -> bool:
        """The same for a list's, which also moves with writes that no transcript knows of."""
        if not isinstance(given, str) or not given.isdecimal():
            return False
        self.lists.setdefault(recorded, given)
        return True


def _bind(known: dict[str, str], recorded: str, given: Any) -> bool:
    if not isinstance(given, str):
        return False
    if recorded not in known and given in known.values():
        return False
    return known.setdefault(recorded, given) == given


class Comparison:
    """Compares bodies.

    Args:
        volatile: What is known of volatile values; added to.
        unordered: Whether the order of named things means nothing (discovery).
    """

    def __init__(self, volatile: Volatile, *, unordered: bool = False) -> None:
        self._volatile = volatile
        self._unordered = unordered

    def differences(self, recorded: Any, given: Any, path: str = "") -> Iterator[Difference]:
        """Where ``given`` is not as ``recorded``, by paths like ``metadata.labels.app`` and ``items[0].spec``."""
        if isinstance(recorded, dict) and isinstance(given, dict):
            yield from self._objects(recorded, given, path)
        elif isinstance(recorded, list) and isinstance(given, list):
            yield from self._lists(recorded, given, path)
        elif isinstance(recorded, str) and isinstance(given, str):
            aged = ".cells[" in path and _AGE.fullmatch(recorded) and _AGE.fullmatch(given)
            if self._volatile.translate(recorded) != given and not aged:
                yield Difference(path, recorded, given)
        elif recorded != given or type(recorded) is not type(given):
            yield Difference(path, recorded, given)

    def _objects(self, recorded: dict[str, Any], given: dict[str, Any], path: str) -> Iterator[Difference]:
        if self._generated(recorded) and "name" in given:
            self._volatile.same(recorded["name"], given["name"])  # compared below, with all that contain it
        for name in sorted({*recorded, *given}):
            inner = f"{path}.{name}".lstrip(".")
            one, other = recorded.get(name, NOTHING), given.get(name, NOTHING)
            if one is NOTHING or other is NOTHING:
                yield Difference(inner, one, other)
            elif (same := self._volatile_same(name, recorded, one, other)) is not None:
                if not same:
                    yield Difference(inner, one, other)
            else:
                yield from self.differences(one, other, inner)

    @staticmethod
    def _generated(recorded: dict[str, Any]) -> bool:
        return "generateName" in recorded or _HASH in (recorded.get("labels") or {})

    def _volatile_same(self, name: str, recorded: dict[str, Any], one: Any, other: Any) -> bool | None:
        """Whether volatile values agree; None: the value is none."""
        if not isinstance(one, str) or not one:
            return None
        if name == "uid" and len(one) > len("u-1"):  # "u-1" is the test's own, in a spec
            return self._volatile.same(one, other)
        if name in ("continue", _HASH) or (name == "name" and one.startswith(_GENERATED_VOLUME)):
            return self._volatile.same(one, other)
        if name == "resourceVersion":
            if "uid" in recorded:
                return self._volatile.same_version(recorded["uid"], one, other)
            return self._volatile.same_list_version(one, other)
        if name.endswith(_TIME_FIELDS) and _TIME.fullmatch(one):
            return isinstance(other, str) and bool(_TIME.fullmatch(other)) and len(one) == len(other)
        return None

    def _lists(self, recorded: list[Any], given: list[Any], path: str) -> Iterator[Difference]:
        if self._unordered:
            named, others = _by_name(recorded), _by_name(given)
            if named is not None and others is not None:
                for name in sorted({*named, *others}):
                    yield from self._either(
                        named.get(name, NOTHING), others.get(name, NOTHING), f"{path}[{name}]"
                    )
                return
        for index in range(max(len(recorded), len(given))):
            one = recorded[index] if index < len(recorded) else NOTHING
            other = given[index] if index < len(given) else NOTHING
            yield from self._either(one, other, f"{path}[{index}]")

    def _either(self, one: Any, other: Any, path: str) -> Iterator[Difference]:
        if one is NOTHING or other is NOTHING:
            yield Difference(path, one, other)
        else:
            yield from self.differences(one, other, path)


def _by_name(elements: list[Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for element in elements:
        if isinstance(element, str):
            found[element] = element
            continue
        if not isinstance(element, dict):
            return None
        held = {**element, **(element.get("metadata") or {})}
        name = next((held[key] for key in _IDENTITIES if isinstance(held.get(key), str)), None)
        if name is None or name in found:
            return None
        found[name] = element
    return found
