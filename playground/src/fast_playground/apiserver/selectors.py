"""Label and field selectors: their grammar, and whether an object fits. Knows no resource."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from fast.api.meta import LabelSelector, LabelSelectorRequirement
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.status import bad_request

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*(?P<key>{_KEY})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*")
_COMPARE = re.compile(rf"\s*(?P<key>{_KEY})\s*(?P<op>==|=|!=)\s*(?P<values>{_VALUE})\s*")
_EXISTS = re.compile(rf"\s*(?P<op>!?)\s*(?P<key>{_KEY})\s*")
_FIELD = re.compile(r"\s*(?P<path>[^=!,\s]+)\s*(?P<op>==|=|!=)\s*(?P<value>(\\.|[^\\,=])*)\s*")


_OPERATORS = {"=": "In", "==": "In", "!=": "NotIn", "in": "In", "notin": "NotIn"}


def parse_labels(text: str) -> LabelSelector:
    """Read a label selector as ``a=b,c in (d,e),!f``. Raises ApiError: 400 if it is not one."""
    requirements, rest = [], text
    while rest.strip():
        values: tuple[str, ...] = ()
        if match := _SET.match(rest) or _COMPARE.match(rest):
            values, operator = tuple(map(str.strip, match["values"].split(","))), _OPERATORS[match["op"]]
        elif match := _EXISTS.match(rest):
            operator = "DoesNotExist" if match["op"] else "Exists"
        else:
            raise bad_request(f"unable to parse requirement: {text!r} is no label selector")
        requirements.append(LabelSelectorRequirement(match["key"], operator, values))
        rest = rest[match.end() :]
        if rest and not rest.startswith(","):
            raise bad_request(
                f"unable to parse requirement: found {rest[0]!r}, expected: ',' or end of string"
            )
        rest = rest[1:]
    return LabelSelector({}, tuple(requirements))


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """Read a LabelSelector object (``matchLabels``, ``matchExpressions``); None selects everything."""
    return msgspec.convert(selector or {}, LabelSelector)


def parse_fields(text: str) -> list[tuple[str, str, str]]:
    """Read a field selector as ``spec.nodeName=n1,metadata.name!=x`` into (path, ``=`` or ``!=``, value).

    Raises:
        ApiError: 400 if it is not a selector.
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
    """Follow a path as ``spec.nodeName``; None if there is nothing."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def field_text(obj: Object, path: str) -> str:
    """What a field selector compares: the field as text; empty if it is missing."""
    value = read_field(obj, path)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


class Selector(NamedTuple):
    """Labels and fields together. False if it selects everything."""

    labels: LabelSelector
    fields: list[tuple[str, str, str]]

    def __bool__(self) -> bool:
        return bool(self.labels.match_expressions or self.fields)

    def matches(self, obj: Object) -> bool:
        """Whether the object matches."""
        labels = obj["metadata"].get("labels") or {}
        return self.labels.matches(labels) and all(
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
