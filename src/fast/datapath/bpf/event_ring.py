"""Reading ``fast_events``, the ring buffer in which the programs tell of drops, new flows and samples. No rendering.

One reader at a time: what it has read is gone. When nobody reads, the ring fills up and newer events are lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fast.datapath.bpf.layout import Event
from fast.datapath.bpf.libbpf import Descriptor, check, error_of, ffi, lib
from fast.datapath.bpf.maps import open_map
from fast.datapath.bpf.spec import DATAPATH

_RECORDS = 4096


class EventReader:
    """Reads events in the order in which they were written. Not for several threads at a time."""

    def __init__(self, fd: int) -> None:
        """Own ``fd``, the ring buffer map.

        Raises:
            BPFError: It cannot be mapped into memory.
        """
        self._map = Descriptor(fd)
        self._ring: Any = lib.fast_ring_open(fd, Event.FORMAT.size, _RECORDS)
        if self._ring == ffi.NULL:
            number = ffi.errno
            self._map.close()
            raise error_of(number, "opening ring buffer fast_events")
        self._buffer = ffi.new("char[]", Event.FORMAT.size * _RECORDS)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the ring buffer pinned in ``directory`` (``PinDirectory.maps``); raises as ``maps.open_map``."""
        spec = DATAPATH.map("fast_events")
        return cls(open_map(directory / spec.name, spec))

    @classmethod
    def adopt(cls, descriptor: Descriptor) -> Self:
        """Read from the ring buffer of a loaded object, whose own descriptor stays open."""
        return cls(os.dup(descriptor.fd))

    def read(self, timeout_seconds: float = 0) -> list[Event]:
        """Give the events that are there, at most 4096; wait for the first where there are none.

        Args:
            timeout_seconds: How long to wait; 0: not at all.

        Raises:
            BPFError: The ring buffer could not be waited on.
        """
        count = check(
            lib.fast_ring_poll(self._ring, int(timeout_seconds * 1000), self._buffer), "reading fast_events"
        )
        raw = bytes(ffi.buffer(self._buffer, count * Event.FORMAT.size))
        return [Event.unpack(raw[i : i + Event.FORMAT.size]) for i in range(0, len(raw), Event.FORMAT.size)]

    def close(self) -> None:
        """Stop reading. Idempotent."""
        ring, self._ring = self._ring, ffi.NULL
        if ring != ffi.NULL:
            lib.fast_ring_close(ring)
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
