"""The maps of ``bpf/lib/drops.h``: counts of drops, the budget of events, and which events are listened to."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from fast.datapath.bpf.layout import DropCount, DropKey, EventBudget, EventSwitch
from fast.datapath.bpf.libbpf import Descriptor, check, ffi, lib
from fast.datapath.bpf.maps import INDEX, Codec, Map, open_map
from fast.datapath.bpf.spec import DATAPATH


class DropCounts(Map[DropKey, DropCount]):
    """``fast_drops``: exact counts. If it is full, the groups that lost nothing for longest make room."""

    _SPEC = DATAPATH.map("fast_drops")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls.adopt(open_map(directory / cls._SPEC.name, cls._SPEC))

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Own ``fd``, a map of this kind."""
        codecs = Codec(DropKey.pack, DropKey.unpack), Codec(DropCount.pack, DropCount.unpack)
        return cls(fd, cls._SPEC.name, *codecs)


class ListenedEvents(Map[int, int]):
    """``fast_event_switch``: which events besides drops the programs tell of."""

    _SPEC = DATAPATH.map("fast_event_switch")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls.adopt(open_map(directory / cls._SPEC.name, cls._SPEC))

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Own ``fd``, a map of this kind."""
        return cls(fd, cls._SPEC.name, INDEX, INDEX)

    def set(self, kinds: EventSwitch) -> None:
        """Have these kinds told, and no other."""
        self.put(0, int(kinds))


class EventBudgets(Descriptor):
    """``fast_event_budgets``: how many events the CPUs may still tell, and did not tell."""

    _SPEC = DATAPATH.map("fast_event_budgets")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls(open_map(directory / cls._SPEC.name, cls._SPEC))

    def untold(self) -> int:
        """Return how many events were left out since the map was made: over budget, or the ring was full."""
        cpus = check(lib.libbpf_num_possible_cpus(), "counting CPUs")
        size = EventBudget.FORMAT.size
        values = ffi.new("char[]", cpus * size)
        check(lib.bpf_map_lookup_elem(self.fd, bytes(4), values), f"reading map {self._SPEC.name}")
        raw = bytes(ffi.buffer(values, cpus * size))
        return sum(EventBudget.unpack(raw[at : at + size]).untold for at in range(0, len(raw), size))
