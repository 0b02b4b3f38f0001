"""Moves a map's entries to its successor, which may have another size or layout. Knows no programs or pins.

Entries are converted by the names of their fields, from both maps' BTF: what both have moves, what only the new one has
is zero. So a version of Fast needs no knowledge of earlier layouts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from fast.datapath.bpf.btf import Btf
from fast.datapath.bpf.layout import Flow, FlowFlag
from fast.datapath.bpf.libbpf import check, ffi, lib
from fast.datapath.bpf.map_spec import MapType
from fast.datapath.bpf.maps import RAW, Map, MapInfo
from fast.datapath.bpf.objects import kernel_btf
from fast.errors import LayoutMismatch, MapFull

Convert = Callable[[bytes], bytes]
RawMap = Map[bytes, bytes]

#: Maps that programs write: what a successor has of its own is newer than what the earlier map has.
WRITTEN_BY_PROGRAMS = frozenset({"fast_flow_table", "fast_interfaces"})


def _stays_on_stack(raw: bytes) -> bytes:
    """Mark a flow of a version that had flows of the stack only, without saying so."""
    flow = Flow.unpack(raw)
    return replace(flow, flags=flow.flags | FlowFlag.STACK).pack()


#: By the name of a map that replaces one of another name: what its values need beside a new layout.
TAKEN_OVER: dict[str, Convert] = {"fast_flow_table": _stays_on_stack}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A scalar somewhere inside a struct."""

    offset_bytes: int
    size_bytes: int


def raw_map(fd: int, name: str) -> RawMap:
    """Own ``fd``, a map whose entries are to be handled as bytes."""
    return Map(fd, name, RAW, RAW)


def move_entries(old: RawMap, new: RawMap) -> int:
    """Bring the entries of ``old`` into ``new``.

    A map that programs write keeps what it has of its own: that is newer. Every other hash map is made to hold what
    ``old`` does: it may be left over from an attempt that failed, with entries that were deleted since.

    Returns:
        How many entries were written.

    Raises:
        MapFull: They do not all fit.
        LayoutMismatch: The new layout has a key, or a field of other size, that cannot be made from the old one.
    """
    if new.info.type == MapType.PERCPU_ARRAY:
        return _move_per_cpu(old, new)
    if new.name in WRITTEN_BY_PROGRAMS:
        return add_entries(old, new, bytes)
    convert_key, convert_value = _converters(old, new)
    entries = {convert_key(key): convert_value(value) for key, value in old.snapshot_raw().items()}
    if new.info.type == MapType.ARRAY:
        return new.put_many_raw({key: entries[key] for key in entries if _index(key) < new.info.max_entries})
    present = new.snapshot_raw()
    new.delete_many_raw([key for key in present if key not in entries])
    return new.put_many_raw({key: entries[key] for key in entries if entries[key] != present.get(key)})


def add_entries(old: RawMap, new: RawMap, finish: Convert) -> int:
    """Bring into ``new`` what it does not have yet, each value passed through ``finish``; return how many entries.

    Entries for which there is no room are left out: the map is being written meanwhile.

    Raises:
        LayoutMismatch: As :func:`move_entries`.
    """
    convert_key, convert_value = _converters(old, new)
    present = new.snapshot_raw()
    entries = {convert_key(key): value for key, value in old.snapshot_raw().items()}
    fresh = {key: finish(convert_value(value)) for key, value in entries.items() if key not in present}
    with contextlib.suppress(MapFull):
        return new.put_many_raw(fresh, only_new=True)
    return len(fresh)


def _converters(old: RawMap, new: RawMap) -> tuple[Convert, Convert]:
    """Make what turns the old map's keys and values into the new one's."""
    old_btf, new_btf = kernel_btf(old.info.btf_id), kernel_btf(new.info.btf_id)
    if old_btf is None or new_btf is None:
        if (old.info.key_bytes, old.info.value_bytes) != (new.info.key_bytes, new.info.value_bytes):
            raise LayoutMismatch(f"map {old.name} has no type information to convert its entries by")
        return bytes, bytes
    key = converter(
        (old_btf, old.info.btf_key_type_id),
        (new_btf, new.info.btf_key_type_id),
        f"key of {new.name}",
        whole=True,
    )
    value = converter(
        (old_btf, old.info.btf_value_type_id), (new_btf, new.info.btf_value_type_id), f"value of {new.name}"
    )
    return key, value


def converter(old: tuple[Btf, int], new: tuple[Btf, int], what: str, *, whole: bool = False) -> Convert:
    """Make a function from the bytes of one type to those of another, field by field of the same name.

    Args:
        old: Type information, and the id of the type in it.
        new: Likewise.
        what: For the message.
        whole: Whether each field of the new type has to be in the old one, as of a key.

    Raises:
        LayoutMismatch: A field's size differs, or ``whole`` is not met.
    """
    if old[0].layout(old[1]) == new[0].layout(new[1]):
        return bytes
    old_leaves, new_leaves = dict(_leaves(*old)), dict(_leaves(*new))
    moves = []
    for path, leaf in new_leaves.items():
        source = old_leaves.get(path)
        if source is None:
            if whole and "pad" not in path:
                raise LayoutMismatch(
                    f"the {what} has a field {path or 'of its own'} that the one in the kernel lacks"
                )
            continue
        if source.size_bytes != leaf.size_bytes:
            raise LayoutMismatch(
                f"the {what} has field {path!r} of {leaf.size_bytes} bytes, the one in the kernel {source.size_bytes}"
            )
        moves.append((source, leaf))
    size = new[0].size(new[1])

    def convert(raw: bytes) -> bytes:
        out = bytearray(size)
        for source, leaf in moves:
            out[leaf.offset_bytes : leaf.offset_bytes + leaf.size_bytes] = raw[
                source.offset_bytes : source.offset_bytes + source.size_bytes
            ]
        return bytes(out)

    return convert


def _leaves(btf: Btf, type_id: int, path: str = "", base: int = 0) -> list[tuple[str, _Leaf]]:
    """List the scalars of a type with their paths, as ``address.words``."""
    members = btf.members(type_id)
    if not members:
        return [(path, _Leaf(base, btf.size(type_id)))]
    found = []
    for member in members:
        inner = f"{path}.{member.name}" if path else member.name
        found += _leaves(btf, member.type_id, inner, base + member.offset_bytes)
    return found


def _index(key: bytes) -> int:
    """Read an array's key."""
    return int(ffi.cast("uint32_t *", ffi.from_buffer(key))[0])


def _move_per_cpu(old: RawMap, new: RawMap) -> int:
    """Copy counters, CPU by CPU, as far as both arrays go. What is counted meanwhile on the old ones is lost."""
    if _shape(old.info) != _shape(new.info):
        raise LayoutMismatch(f"the counters of map {old.name} have another layout")
    values = ffi.new("char[]", check(lib.libbpf_num_possible_cpus(), "counting CPUs") * old.info.value_bytes)
    key, moved = ffi.new("uint32_t *"), 0
    for key[0] in range(min(old.info.max_entries, new.info.max_entries)):
        check(lib.bpf_map_lookup_elem(old.fd, key, values), f"reading map {old.name}")
        if any(ffi.buffer(values)[:]):
            check(lib.bpf_map_update_elem(new.fd, key, values, 0), f"writing map {new.name}")
            moved += 1
    return moved


def _shape(info: MapInfo) -> tuple[int, int]:
    """Give what has to be equal for per-CPU values to be copied."""
    return info.key_bytes, info.value_bytes
