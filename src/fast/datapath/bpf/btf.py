"""Reads BTF, the kernel's type information: how structs are laid out, where variables lie. Pure; bytes in, types out.

Format: https://docs.kernel.org/bpf/btf.html. Only what comparing layouts needs is kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from fast.errors import BPFError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_KIND_FLAG = 1 << 31


class BtfKind(IntEnum):
    """``BTF_KIND_*``."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: Bytes that follow a type, per element of its ``vlen`` and fixed.
_PER_ELEMENT = {
    BtfKind.STRUCT: 12,
    BtfKind.UNION: 12,
    BtfKind.ENUM: 8,
    BtfKind.FUNC_PROTO: 8,
    BtfKind.DATASEC: 12,
    BtfKind.ENUM64: 12,
}
_FIXED = {BtfKind.INT: 4, BtfKind.ARRAY: 12, BtfKind.VAR: 4, BtfKind.DECL_TAG: 4}
_TRANSPARENT = (
    BtfKind.TYPEDEF,
    BtfKind.VOLATILE,
    BtfKind.CONST,
    BtfKind.RESTRICT,
    BtfKind.VAR,
    BtfKind.TYPE_TAG,
)


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a struct, or a variable of a section. Sizes and offsets in bytes; ``type_id`` is resolved.

    ``declared`` is the name of the type as the source spells it, as ``__be16``; empty if it has none.
    """

    name: str
    offset_bytes: int
    size_bytes: int
    type_id: int
    declared: str = ""


@dataclass(frozen=True, slots=True)
class _Type:
    """One entry of the type table, its trailing bytes unread."""

    name: str
    kind: BtfKind
    kind_flag: bool
    size_or_type: int
    elements: tuple[tuple[int, ...], ...]


class Btf:
    """A parsed type table."""

    def __init__(self, raw: bytes) -> None:
        """Parse what ``btf__raw_data`` gives.

        Raises:
            BPFError: It is no BTF of this machine's byte order.
        """
        magic, _, _, header_bytes, type_start, type_bytes, string_start, string_bytes = _HEADER.unpack_from(
            raw
        )
        if magic != _MAGIC:
            raise BPFError(f"no BTF: it begins with {magic:#06x}")
        start = header_bytes + string_start
        self._strings = raw[start : start + string_bytes]
        self._types = [_Type("", BtfKind.VOID, False, 0, ())]
        start = header_bytes + type_start
        self._parse(raw[start : start + type_bytes])

    def _parse(self, raw: bytes) -> None:
        """Read the type section."""
        position = 0
        while position < len(raw):
            name, info, size_or_type = _TYPE.unpack_from(raw, position)
            kind = BtfKind(info >> 24 & 0x1F)
            size = _FIXED.get(kind, 0) + _PER_ELEMENT.get(kind, 0) * (info & 0xFFFF)
            position += _TYPE.size
            words = struct.unpack_from(f"={size // 4}I", raw, position)
            position += size
            width = _PER_ELEMENT.get(kind, _FIXED.get(kind, 4)) // 4
            elements = tuple(words[i : i + width] for i in range(0, len(words), width))
            self._types.append(
                _Type(self._string(name), kind, bool(info & _KIND_FLAG), size_or_type, elements)
            )

    def _string(self, offset: int) -> str:
        """Give the string at that offset of the string section."""
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def find(self, name: str, *kinds: BtfKind) -> int | None:
        """Give the id of the type of that name and one of the kinds; None where there is none."""
        return next(
            (i for i, found in enumerate(self._types) if found.name == name and found.kind in kinds),
            None,
        )

    def struct(self, name: str) -> tuple[int, tuple[Field, ...]]:
        """Give a struct's size in bytes and its members.

        Raises:
            BPFError: There is no such struct.
        """
        type_id = self.find(name, BtfKind.STRUCT)
        if type_id is None:
            raise BPFError(f"BTF has no struct {name}")
        return self._types[type_id].size_or_type, self.members(type_id)

    def enum(self, name: str) -> dict[str, int]:
        """Give an enum's enumerators.

        Raises:
            BPFError: There is no such enum.
        """
        type_id = self.find(name, BtfKind.ENUM)
        if type_id is None:
            raise BPFError(f"BTF has no enum {name}")
        return {self._string(element[0]): element[1] for element in self._types[type_id].elements}

    def variable(self, section: str, name: str) -> Field:
        """Give the variable of that name in that section, as ``.rodata``.

        Raises:
            BPFError: There is none.
        """
        type_id = self.find(section, BtfKind.DATASEC)
        for variable, offset, size in self._types[type_id].elements if type_id else ():
            if self._types[variable].name == name:
                return Field(name, offset, size, self.resolve(variable))
        raise BPFError(f"BTF has no variable {name} in section {section}")

    def variables(self, section: str) -> tuple[Field, ...]:
        """Give the variables of a section; none if there is no such section."""
        type_id = self.find(section, BtfKind.DATASEC)
        return tuple(
            Field(self._types[variable].name, offset, size, self.resolve(variable))
            for variable, offset, size in (self._types[type_id].elements if type_id else ())
        )

    def pointed_at(self, type_id: int) -> int:
        """Give the type that a pointer points at."""
        return self._types[self.resolve(type_id)].size_or_type

    def name(self, type_id: int) -> str:
        """Give a type's own name; empty if it has none."""
        return self._types[type_id].name

    def array_length(self, type_id: int) -> int:
        """Give the number of elements of an array type."""
        return self._types[self.resolve(type_id)].elements[0][2]

    def has_function(self, name: str) -> bool:
        """Tell whether there is a function of that name."""
        return self.find(name, BtfKind.FUNC) is not None

    def resolve(self, type_id: int) -> int:
        """Look through typedefs, qualifiers and variables."""
        while self._types[type_id].kind in _TRANSPARENT:
            type_id = self._types[type_id].size_or_type
        return type_id

    def members(self, type_id: int) -> tuple[Field, ...]:
        """Give the members of a struct or union; none for other types. Bit-fields are not supported (Fast has none)."""
        found = self._types[self.resolve(type_id)]
        if found.kind not in (BtfKind.STRUCT, BtfKind.UNION):
            return ()
        return tuple(
            Field(
                self._string(name),
                (bits & 0xFFFFFF) // 8,
                self.size(member),
                self.resolve(member),
                self._types[member].name,
            )
            for name, member, bits in found.elements
        )

    def size(self, type_id: int) -> int:
        """Give a type's size in bytes."""
        found = self._types[self.resolve(type_id)]
        if found.kind == BtfKind.ARRAY:
            element, _, count = found.elements[0]
            return self.size(element) * count
        if found.kind == BtfKind.PTR:
            return 8
        return found.size_or_type

    def layout(self, type_id: int) -> str:
        """Describe a type so that two types with equal descriptions are laid out equally, names of members included."""
        if type_id == 0:
            return "void"
        members = self.members(type_id)
        if not members:
            return f"{self.size(type_id)} bytes"
        inner = ", ".join(
            f"{field.name}@{field.offset_bytes}: {self.layout(field.type_id)}" for field in members
        )
        return f"{self.size(type_id)} bytes {{{inner}}}"
