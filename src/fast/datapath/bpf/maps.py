"""Maps in the kernel: a typed mapping over any map, in batches where it matters, and Fast's own maps by name.

Keys and values are converted by the map's codecs; the ``*_raw`` methods leave them as bytes, for syncing 100,000
entries without making 100,000 objects. What the entries mean is the caller's business.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from fast.datapath.bpf.layout import (
    ClusterPod,
    Device,
    Flow,
    FlowKey,
    FlowLimit,
    Interface,
    LocalDev,
    LocalPod,
    Metric,
)
from fast.datapath.bpf.libbpf import Descriptor, check, error_of, ffi, lib
from fast.datapath.bpf.map_spec import MapSpec, MapType
from fast.datapath.bpf.pins import kind_of, open_pin
from fast.datapath.bpf.reasons import PacketDirection, Reason, metric_index
from fast.datapath.bpf.spec import DATAPATH
from fast.errors import LayoutMismatch, MapFull
from fast.net import IPAddress, from_map_key, map_key

K = TypeVar("K")
V = TypeVar("V")

_BATCH = 16_384
_ANY, _NOEXIST = 0, 1


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map. ``btf_id`` and the type ids are 0 where the map has no BTF."""

    id: int
    type: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


@dataclass(frozen=True)
class Codec(Generic[K]):
    """How one side of a map's entries is turned into bytes and back."""

    encode: Callable[[K], bytes]
    decode: Callable[[bytes], K]


ADDRESS: Codec[IPAddress] = Codec(map_key, from_map_key)
INDEX: Codec[int] = Codec(
    lambda index: index.to_bytes(4, sys.byteorder), lambda raw: int.from_bytes(raw, sys.byteorder)
)
RAW: Codec[bytes] = Codec(bytes, bytes)


def map_info(fd: int) -> MapInfo:
    """Ask the kernel about the map; BPFError where ``fd`` is none."""
    info = ffi.new("struct fast_map_info *")
    check(lib.fast_map_info(fd, info), "reading a map's description")
    return MapInfo(
        info.id,
        info.type,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.flags,
        info.btf_id,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


class Map(Descriptor, Generic[K, V]):
    """One map. Thread-safe as the kernel is: each call is atomic an entry, not as a whole.

    Not for per-CPU maps (:class:`Metrics`) and ring buffers (``events.EventReader``).
    """

    def __init__(self, fd: int, name: str, key: Codec[K], value: Codec[V]) -> None:
        """Own ``fd``, which is a map of that name."""
        super().__init__(fd)
        self.name = name
        self.info = map_info(fd)
        self._key = key
        self._value = value

    # One entry.

    def get(self, key: K) -> V | None:
        """Look up; None where there is no such entry."""
        raw = self.get_raw(self._key.encode(key))
        return None if raw is None else self._value.decode(raw)

    def put(self, key: K, value: V) -> None:
        """Set the entry, new or not.

        Raises:
            MapFull: There is no room.
        """
        self._update_one(self._key.encode(key), self._value.encode(value))

    def delete(self, key: K) -> bool:
        """Delete the entry; tell whether there was one."""
        result = lib.bpf_map_delete_elem(self.fd, self._key.encode(key))
        if result == -errno.ENOENT:
            return False
        check(result, f"deleting from map {self.name}")
        return True

    # Many.

    def items(self) -> Iterator[tuple[K, V]]:
        """Give the entries. While others write, one may come twice or be missed (the kernel's batch look-up)."""
        for key, value in self.snapshot_raw().items():
            yield self._key.decode(key), self._value.decode(value)

    def __len__(self) -> int:
        return len(self.snapshot_raw())

    def put_many(self, entries: Mapping[K, V]) -> None:
        """Set the entries, in batches. Not atomic: what was set before a failure stays.

        Raises:
            MapFull: Not all of them fit.
        """
        self.put_many_raw(
            {self._key.encode(key): self._value.encode(value) for key, value in entries.items()}
        )

    def delete_many(self, keys: Iterable[K]) -> int:
        """Delete the entries, in batches, skipping those that are not there; give how many were."""
        return self.delete_many_raw([self._key.encode(key) for key in keys])

    # Bytes.

    def get_raw(self, key: bytes) -> bytes | None:
        """Look up by the key's bytes."""
        value = ffi.new("char[]", self.info.value_bytes)
        result = lib.bpf_map_lookup_elem(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        check(result, f"looking up in map {self.name}")
        return bytes(ffi.buffer(value))

    def put_many_raw(self, entries: Mapping[bytes, bytes], *, only_new: bool = False) -> int:
        """Set entries by their bytes; give how many were set.

        Args:
            entries: Keys to values.
            only_new: Leave entries that are there already as they are; one call an entry.

        Raises:
            MapFull: Not all of them fit.
        """
        keys = list(entries)
        if only_new or self.info.type == MapType.ARRAY or not keys:
            return sum(self._update_one(key, entries[key], only_new=only_new) for key in keys)
        for start in range(0, len(keys), _BATCH):
            chunk = keys[start : start + _BATCH]
            self._update_batch(chunk, [entries[key] for key in chunk], set_before=start)
        return len(keys)

    def delete_many_raw(self, keys: Sequence[bytes]) -> int:
        """Delete entries by their keys' bytes; give how many there were."""
        deleted, start = 0, 0
        count = ffi.new("uint32_t *")
        while start < len(keys):
            chunk = keys[start : start + _BATCH]
            count[0] = len(chunk)
            result = lib.bpf_map_delete_batch(self.fd, b"".join(chunk), count, ffi.NULL)
            deleted += count[0]
            start += count[0]
            if result == -errno.ENOENT:
                start += 1  # the kernel stops at a key that is not there
            else:
                check(result, f"deleting {len(keys)} entries from map {self.name}")
        return deleted

    def snapshot_raw(self) -> dict[bytes, bytes]:
        """Give all entries as bytes."""
        entries: dict[bytes, bytes] = {}
        for keys, values in self._batches():
            key_bytes, value_bytes = self.info.key_bytes, self.info.value_bytes
            entries.update(
                zip(
                    (keys[i : i + key_bytes] for i in range(0, len(keys), key_bytes)),
                    (values[i : i + value_bytes] for i in range(0, len(values), value_bytes)),
                    strict=True,
                )
            )
        return entries

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        """Give the packed keys and values, batch by batch."""
        size = min(_BATCH, self.info.max_entries)
        token = ffi.new("char[]", max(4, self.info.key_bytes))
        count, first = ffi.new("uint32_t *"), True
        while True:
            keys = ffi.new("char[]", size * self.info.key_bytes)
            values = ffi.new("char[]", size * self.info.value_bytes)
            count[0] = size
            result = lib.bpf_map_lookup_batch(
                self.fd, ffi.NULL if first else token, token, keys, values, count, ffi.NULL
            )
            if result == -errno.ENOSPC:  # a hash bucket holds more than fits
                size *= 2
                continue
            if result not in (0, -errno.ENOENT):
                raise error_of(-result, f"reading map {self.name}")
            yield (
                bytes(ffi.buffer(keys, count[0] * self.info.key_bytes)),
                bytes(ffi.buffer(values, count[0] * self.info.value_bytes)),
            )
            if result == -errno.ENOENT:
                return
            first = False

    def _update_one(self, key: bytes, value: bytes, *, only_new: bool = False) -> bool:
        """Set one entry; False where it was there and only a new one was wanted."""
        result = lib.bpf_map_update_elem(self.fd, key, value, _NOEXIST if only_new else _ANY)
        if result == -errno.E2BIG and self.info.type != MapType.ARRAY:
            raise self._full()
        if only_new and result == -errno.EEXIST:
            return False
        check(result, f"writing map {self.name}")
        return True

    def _update_batch(self, keys: Sequence[bytes], values: Sequence[bytes], set_before: int) -> None:
        """Set entries with one system call."""
        count = ffi.new("uint32_t *", len(keys))
        result = lib.bpf_map_update_batch(self.fd, b"".join(keys), b"".join(values), count, ffi.NULL)
        if result == -errno.E2BIG:
            raise self._full(f" after {set_before + count[0]} entries of this update")
        check(result, f"writing {len(keys)} entries to map {self.name}")

    def _full(self, after: str = "") -> MapFull:
        """Make the exception that names the map and its size."""
        return MapFull(
            f"map {self.name} is full{after}: it holds {self.info.max_entries} entries", errno.E2BIG
        )


def open_map(path: Path, spec: MapSpec) -> int:
    """Open a pinned map and prove that its layout is the one this version of Fast knows.

    Args:
        path: The pin.
        spec: What the map has to be. Its size may differ.

    Returns:
        A file descriptor, the caller's.

    Raises:
        BPFError: No such pin (errno ENOENT).
        LayoutMismatch: Another type, other key or value size, or differing fields.
    """
    fd = open_pin(path)
    try:
        kind = kind_of(fd)
        if kind != "map":
            raise LayoutMismatch(f"{path} is no map but a {kind}")
        info = map_info(fd)
        found = (info.type, info.key_bytes, info.value_bytes)
        if found != (spec.type, spec.key_bytes, spec.value_bytes):
            raise LayoutMismatch(
                f"map {path}: type, key and value size are {found}, this version of Fast has "
                f"{(int(spec.type), spec.key_bytes, spec.value_bytes)}"
            )
    except BaseException:
        Descriptor(fd).close()
        raise
    return fd


class _AddressMap(Map[IPAddress, V]):
    """A map from addresses, opened by its pin."""

    _SPEC: MapSpec
    _VALUE: Codec[V]

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory`` (``PinDirectory.maps``); raises as :func:`open_map`."""
        return cls.adopt(open_map(directory / cls._SPEC.name, cls._SPEC))

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Own ``fd``, a map of this kind."""
        return cls(fd, cls._SPEC.name, ADDRESS, cls._VALUE)


class LocalPods(_AddressMap[LocalPod]):
    """``fast_local_pods``: the pods of this node."""

    _SPEC = DATAPATH.map("fast_local_pods")
    _VALUE = Codec(LocalPod.pack, LocalPod.unpack)


class ClusterPods(_AddressMap[ClusterPod]):
    """``fast_cluster_pods``: every pod and node of the cluster, and the node it is on."""

    _SPEC = DATAPATH.map("fast_cluster_pods")
    _VALUE = Codec(ClusterPod.pack, ClusterPod.unpack)


class LocalDevices(Map[int, LocalDev]):
    """``fast_local_dev``: this node's devices by role (:class:`~fast.datapath.bpf.layout.Device`)."""

    _SPEC = DATAPATH.map("fast_local_dev")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls.adopt(open_map(directory / cls._SPEC.name, cls._SPEC))

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Own ``fd``, a map of this kind."""
        return cls(fd, cls._SPEC.name, INDEX, Codec(LocalDev.pack, LocalDev.unpack))

    def by_role(self) -> dict[Device, LocalDev]:
        """Give the devices that are set."""
        found = {role: self.get(role) for role in Device}
        return {role: device for role, device in found.items() if device and device.ifindex}


class _InterfaceMap(Map[int, V]):
    """A map from the index of a veth's host side, opened by its pin."""

    _SPEC: MapSpec
    _VALUE: Codec[V]

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls.adopt(open_map(directory / cls._SPEC.name, cls._SPEC))

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Own ``fd``, a map of this kind."""
        return cls(fd, cls._SPEC.name, INDEX, cls._VALUE)


class Interfaces(_InterfaceMap[Interface]):
    """``fast_interfaces``: the interfaces of this node's pods. Programs count in it: add entries, never change them."""

    _SPEC = DATAPATH.map("fast_interfaces")
    _VALUE = Codec(Interface.pack, Interface.unpack)

    def add(self, ifindex: int, interface: Interface) -> bool:
        """Add the interface unless it is there; return whether it was added.

        Raises:
            MapFull: There is no room.
        """
        return self._update_one(self._key.encode(ifindex), self._value.encode(interface), only_new=True)


class FlowLimits(_InterfaceMap[FlowLimit]):
    """``fast_flow_limits``: up to where the counters in ``fast_interfaces`` may grow. Only userspace writes it."""

    _SPEC = DATAPATH.map("fast_flow_limits")
    _VALUE = Codec(FlowLimit.pack, FlowLimit.unpack)


class Flows(Map[FlowKey, Flow]):
    """``fast_flow_table``: the flows that came through the stack and stay on it, and those that policy judged."""

    _SPEC = DATAPATH.map("fast_flow_table")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls.adopt(open_map(directory / cls._SPEC.name, cls._SPEC))

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Own ``fd``, a map of this kind."""
        return cls(fd, cls._SPEC.name, Codec(FlowKey.pack, FlowKey.unpack), Codec(Flow.pack, Flow.unpack))


class Metrics(Descriptor):
    """``fast_metrics``: packets and bytes by reason and direction, added up over the CPUs. Counters only grow."""

    _SPEC = DATAPATH.map("fast_metrics")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the map pinned in ``directory``; raises as :func:`open_map`."""
        return cls(open_map(directory / cls._SPEC.name, cls._SPEC))

    def get(self, reason: Reason, direction: PacketDirection) -> Metric:
        """Give one counter."""
        cpus = check(lib.libbpf_num_possible_cpus(), "counting CPUs")
        values = ffi.new("char[]", cpus * Metric.FORMAT.size)
        key = metric_index(reason, direction).to_bytes(4, sys.byteorder)
        check(lib.bpf_map_lookup_elem(self.fd, key, values), f"reading map {self._SPEC.name}")
        return _added_up(bytes(ffi.buffer(values)))

    def read(self) -> dict[tuple[Reason, PacketDirection], Metric]:
        """Give the counters that are not zero."""
        found = {(reason, way): self.get(reason, way) for reason in Reason for way in PacketDirection}
        return {key: metric for key, metric in found.items() if metric.packets}


def _added_up(per_cpu: bytes) -> Metric:
    """Add up one counter's values of all CPUs."""
    values = list(Metric.FORMAT.iter_unpack(per_cpu))
    return Metric(sum(packets for packets, _ in values), sum(count for _, count in values))
