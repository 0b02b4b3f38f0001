"""Reading Kubernetes' protobuf bodies, which kubectl's typed clients send (``create namespace``, ``auth can-i`` …).

Only what kubectl sends: the fields that are not in the table here must be empty, else the body is refused, and the
client has to send JSON. Answers are always JSON. Source of the numbers: ``generated.proto`` in kubernetes/api.
"""

from __future__ import annotations

import base64
import datetime
import functools
import importlib.resources
from collections.abc import Iterator
from typing import Any

import msgspec

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.status import ApiError, bad_request

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
#: What every such body begins with.
MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32


@functools.cache
def _tables() -> dict[str, dict[int, tuple[str, str]]]:
    """The messages that kubectl sends: name, and type, of each field by its number."""
    text = importlib.resources.files("fast_playground.apiserver").joinpath("protobuf.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, dict[int, tuple[str, str]]])


def decode(body: bytes) -> Object:
    """Read an object.

    Args:
        body: Kubernetes' envelope: ``k8s``, a zero byte, and a ``runtime.Unknown``.

    Returns:
        The object as JSON would have it.

    Raises:
        ApiError: 400 for what is no such body, 415 for kinds and fields that are not known here.
    """
    if not body.startswith(MAGIC):
        raise bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        envelope = _message("Unknown", memoryview(body)[len(MAGIC) :], 0)
        head = envelope.get("typeMeta", {})
        if head.get("kind") not in _tables():
            raise _unsupported(str(head.get("kind")))
        raw = base64.b64decode(envelope.get("raw", ""))
        made: Object = head | _message(head["kind"], memoryview(raw), 0)
    except (IndexError, ValueError, OverflowError) as error:
        raise bad_request(f"the body is no protobuf message: {error}") from error
    return made


def _message(name: str, data: memoryview, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    found: Object = {}
    for number, value in _wire_fields(data):
        field, kind = _tables()[name].get(number, ("", ""))
        if not kind:
            if value:
                raise _unsupported(f"field {number} of {name}")
            continue
        if kind == "skip":
            continue
        if kind.startswith("*"):
            found.setdefault(field, []).append(_value(kind[1:], value, depth))
        elif kind.endswith("map"):
            found.setdefault(field, {}).update([_entry(kind, value)])
        elif kind.endswith("?") or (made := _value(kind, value, depth)):
            found[field] = _value(kind[:-1], value, depth) if kind.endswith("?") else made
    return found


def _value(kind: str, value: int | memoryview, depth: int) -> Any:
    """Turn a field's value on the wire into its JSON value."""
    if isinstance(value, int):
        if kind not in ("int", "bool"):
            raise ValueError(f"a number where a {kind} should be")
        return bool(value) if kind == "bool" else value - (1 << 64) * (value >> 63)
    if kind == "str":
        return str(value, "utf-8")
    if kind == "bytes":
        return base64.b64encode(value).decode("ascii")
    if kind == "Time":
        seconds = next((number for field, number in _wire_fields(value) if field == 1), 0)
        if not isinstance(seconds, int):
            raise ValueError("a time without seconds")
        return (
            datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            if seconds
            else None
        )
    if kind == "IntOrString":
        parts = dict(_wire_fields(value))
        return str(parts.get(3, b""), "utf-8") if parts.get(1) else parts.get(2)  # type: ignore[arg-type]
    if kind not in _tables():
        raise ValueError(f"bytes where a {kind} should be")
    return _message(kind, value, depth + 1)


def _entry(kind: str, value: int | memoryview) -> tuple[str, str]:
    """Read one entry of a map."""
    nothing = memoryview(b"")
    parts = {} if isinstance(value, int) else dict(_wire_fields(value))
    content = "bytes" if kind == "bytesmap" else "str"
    return _value("str", parts.get(1, nothing), 0), _value(content, parts.get(2, nothing), 0)


def _wire_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Iterate over a message's fields: their numbers, with raw values (numbers or bytes)."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == _VARINT:
            number, position = _varint(data, position)
            yield tag >> 3, number
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            length, position = _varint(data, position)
        if length is None or position + length > len(data):
            raise ValueError("cut off, or of an unknown wire type")
        yield tag >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that more follows
            return value & (1 << 64) - 1, position
        if shift >= 70:  # noqa: PLR2004 -- ten bytes of seven bits
            raise ValueError("a number that does not end")


def _unsupported(what: str) -> ApiError:
    message = f"{what} is not supported as protobuf by this server: send JSON (kubectl create -f or apply -f)"
    return ApiError(415, "UnsupportedMediaType", message)
