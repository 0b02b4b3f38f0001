"""Label and field selectors: their grammar, and whether an object fits. Knows no resource."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.status import bad_request

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*(?P<key>{_KEY})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*")
_COMPARE = re.compile(rf"\s*(?P<key>{_KEY})\s*(?P<op>==|=|!=|>|<)\s*(?P<values>{_VALUE})\s*")
_EXISTS = re.compile(rf"\s*(?P<op>!?)\s*(?P<key>{_KEY})\s*")
_FIELD = re.compile(r"\s*(?P<path>[^=!,\s]+)\s*(?P<op>==|=|!=)\s*(?P<value>(\\.|[^\\,=])*)\s*")


class Requirement(NamedTuple):
    """One condition on one label."""

    key: str
    op: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels fulfil it."""
        value = labels.get(self.key)
        if self.op == "exists":
            return value is not None
        if self.op == "!":
            return value is None
        if self.op in ("in", "notin"):
            return (value in self.values) == (self.op == "in")
        try:
            number, bound = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.op == ">" else number < bound


_OPERATORS = {"=": "in", "==": "in", "!=": "notin", "in": "in", "notin": "notin", ">": ">", "<": "<"}


def parse_labels(text: str) -> list[Requirement]:
    """Read a label selector as ``a=b,c in (d,e),!f``.

    Raises:
        ApiError: 400 for what is no selector.
    """
    requirements, rest = [], text
    while rest.strip():
        if match := _SET.match(rest) or _COMPARE.match(rest):
            values = frozenset(part.strip() for part in match["values"].split(","))
            requirements.append(Requirement(match["key"], _OPERATORS[match["op"]], values))
        elif match := _EXISTS.match(rest):
            requirements.append(Requirement(match["key"], "!" if match["op"] else "exists", frozenset()))
        else:
            raise bad_request(f"unable to parse requirement: {text!r} is no label selector")
        rest = rest[match.end() :]
        if rest and not rest.startswith(","):
            raise bad_request(
                f"unable to parse requirement: found {rest[0]!r}, expected: ',' or end of string"
            )
        rest = rest[1:]
    return requirements


def from_label_selector(selector: Mapping[str, Any] | None) -> list[Requirement]:
    """Read a LabelSelector object (``matchLabels``, ``matchExpressions``)."""
    selector = selector or {}
    made = [Requirement(k, "in", frozenset([v])) for k, v in (selector.get("matchLabels") or {}).items()]
    names = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    for expression in selector.get("matchExpressions") or []:
        values = frozenset(expression.get("values") or ())
        made.append(Requirement(expression["key"], names[expression["operator"]], values))
    return made


def parse_fields(text: str) -> list[tuple[str, str, str]]:
    """Read a field selector as ``spec.nodeName=n1,metadata.name!=x`` into (path, ``=`` or ``!=``, value).

    Raises:
        ApiError: 400 for what is no selector.
    """
    made, rest = [], text
    while rest.strip():
        match = _FIELD.match(rest)
        if not match or (match.end() < len(rest) and rest[match.end()] != ","):
            raise bad_request(f"invalid field selector: {text!r}: can't understand it")
        value = re.sub(r"\\(.)", r"\1", match["value"])
        made.append((match["path"], "!=" if match["op"] == "!=" else "=", value))
        rest = rest[match.end() + 1 :]
    return made


def read_field(obj: Object, path: str) -> Any:
    """Follow a path as ``spec.nodeName``; None where there is nothing."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def field_text(obj: Object, path: str) -> str:
    """What a field selector compares: the field as text; empty where it is missing."""
    value = read_field(obj, path)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


class Selector(NamedTuple):
    """Labels and fields together. False where it selects everything."""

    labels: list[Requirement]
    fields: list[tuple[str, str, str]]

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, obj: Object) -> bool:
        """Whether the object fits."""
        labels = obj["metadata"].get("labels") or {}
        return all(r.matches(labels) for r in self.labels) and all(
            (field_text(obj, path) == value) == (op == "=") for path, op, value in self.fields
        )


def parse_selector(label_selector: str, field_selector: str, supported: Callable[[str], bool]) -> Selector:
    """Read both selectors of a request.

    Args:
        label_selector: As in the query; may be empty.
        field_selector: Likewise.
        supported: Tells whether the resource can be selected by that field.

    Raises:
        ApiError: 400 for bad grammar or an unsupported field.
    """
    fields = parse_fields(field_selector)
    for path, _, _ in fields:
        if not supported(path):
            raise bad_request(f"field label not supported: {path}")
    return Selector(parse_labels(label_selector), fields)
