"""What an eBPF map is, as data. Nothing here touches the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class MapType(IntEnum):
    """``enum bpf_map_type``, as far as Fast uses it."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


@dataclass(frozen=True)
class MapSpec:
    """A map of an object.

    Args:
        name: As in the object; pins are named so too.
        type: The kernel's map type.
        key: C struct of the key; empty if it is a plain u32 or there is none.
        value: C struct of the value, likewise.
        key_bytes: Size of a key; 0 for ring buffers.
        value_bytes: Size of a value.
        max_entries: How many fit; bytes for ring buffers.
        migrated: Whether entries move along to a successor of another size or layout.
        replaces: The map of an earlier version whose entries move here; empty: none.
    """

    name: str
    type: MapType
    key: str
    value: str
    key_bytes: int
    value_bytes: int
    max_entries: int
    migrated: bool = True
    replaces: str = ""
