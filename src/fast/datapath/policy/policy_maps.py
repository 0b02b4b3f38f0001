"""The maps that only policy writes: read back after a restart, written in the order of a plan, in batches."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from fast.datapath.bpf.layout import ClusterPod, Config, Kind
from fast.datapath.bpf.maps import RAW, Map
from fast.datapath.bpf.objects import Object, Program
from fast.datapath.bpf.pins import PinDirectory
from fast.datapath.bpf.spec import AFTER_NAT
from fast.datapath.policy.after_nat import PolicyLinks, load_policy
from fast.policy import Delete, Maps, PodPolicy, Put, RuleSetValue, SetClass, SetPod, Write
from fast.policy.map_layout import Key, Value, pack_key, pack_value, unpack_bits
from fast.policy.map_layout import Map as PolicyMap
from fast.policy.peers import Prefix
from fast.policy.ports import EVERYTHING, PortPrefix

_RULES_BITS, _PROTOCOL_END_BITS = 32, 40
_POD_PART_BYTES = 36  # fast.policy.map_layout.PodPolicy: the end of a fast_local_pod


def policy_map_sizes(*, wanted: bool) -> dict[str, int]:
    """Return the sizes of the maps that only policy writes, by name, where they differ from the object's."""
    return {} if wanted else {which.value: 1 for which in PolicyMap}


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring writes of one plan to one map: entries to put, or keys to delete."""

    map: PolicyMap
    entries: Mapping[bytes, bytes]
    deletes: tuple[bytes, ...] = ()


def in_batches(writes: Iterable[Write]) -> Iterator[Batch | SetClass | SetPod]:
    """Give the writes in their order, those together that go to one map one after the other."""
    entries: dict[bytes, bytes] = {}
    deletes: list[bytes] = []
    current: tuple[type, PolicyMap] | None = None
    for write in writes:
        kind = (type(write), write.map) if isinstance(write, Put | Delete) else None
        if current is not None and kind != current:
            yield Batch(current[1], dict(entries), tuple(deletes))
            entries.clear()
            deletes.clear()
        current = kind
        match write:
            case Put(which, key, value):
                entries[pack_key(key)] = pack_value(which, value)
            case Delete(_, key):
                deletes.append(pack_key(key))
            case _:
                yield write
    if current is not None:
        yield Batch(current[1], entries, tuple(deletes))


class PolicyDatapath:
    """The program on the stack path, attached, and its maps. Writing is for one caller at a time."""

    def __init__(self, loaded: Object, links: PolicyLinks) -> None:
        self._loaded = loaded
        self._links = links
        self._maps = {
            which: Map(os.dup(loaded.maps[which.value].fd), which.value, RAW, RAW) for which in PolicyMap
        }

    @classmethod
    def start(cls, pins: PinDirectory, config: Config) -> Self:
        """Load and attach the program; the maps are the pinned ones.

        Raises:
            FeatureUnsupported: The kernel has no netfilter programs.
            BPFError: The kernel refused.
        """
        made = cls(load_policy(pins, config), PolicyLinks(pins))
        made.ensure()
        return made

    @property
    def program(self) -> Program:
        """``fast_after_nat``."""
        return self._loaded.programs[AFTER_NAT]

    def ensure(self) -> list[str]:
        """Attach the program where it is not; return the hooks."""
        missing = self._links.missing(self.program)
        if missing:
            self._links.attach(self.program)
        return missing

    def write(self, batch: Batch) -> None:
        """Carry out a batch.

        Raises:
            MapFull: The map has no room.
            BPFError: The kernel refused.
        """
        target = self._maps[batch.map]
        if batch.deletes:
            target.delete_many_raw(batch.deletes)
        if batch.entries:
            target.put_many_raw(batch.entries)

    def read(self, loaded: Object) -> Maps:
        """Read every map that policy writes, or writes a part of.

        Args:
            loaded: The object that has the maps of pods.
        """
        maps = Maps()
        for which, target in self._maps.items():
            contents = maps.of(which)
            for key, value in target.snapshot_raw().items():
                contents[_KEYS[which](key)] = _VALUES[which](value)
        with loaded.cluster_pods as cluster:
            for key, raw in cluster.snapshot_raw().items():
                entry = ClusterPod.unpack(raw)
                maps.classes[key] = entry.peer_class
                if entry.kind is Kind.NODE:
                    maps.nodes.add(key)
        with loaded.local_pods as local:
            for key, raw in local.snapshot_raw().items():
                maps.pods[key] = PodPolicy.unpack(raw[-_POD_PART_BYTES:])
        return maps


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _peer_key(raw: bytes) -> Key:
    rules, peer_class = struct.unpack("<II", raw)
    return rules, peer_class


def _port_key(raw: bytes) -> Key:
    bits, rules = struct.unpack_from("<II", raw)
    if bits == _RULES_BITS:
        return rules, EVERYTHING
    return rules, PortPrefix(raw[8], int.from_bytes(raw[9:11], "big"), bits - _PROTOCOL_END_BITS)


def _block_key(raw: bytes) -> Key:
    return Prefix(raw[4:], _number(raw[:4]))


_KEYS: dict[PolicyMap, Callable[[bytes], Key]] = {
    PolicyMap.RULE_SETS: _number,
    PolicyMap.DIGESTS: _number,
    PolicyMap.PEERS: _peer_key,
    PolicyMap.PORTS: _port_key,
    PolicyMap.BLOCKS: _block_key,
}
_VALUES: dict[PolicyMap, Callable[[bytes], Value]] = {
    PolicyMap.RULE_SETS: RuleSetValue.unpack,
    PolicyMap.DIGESTS: bytes,
    PolicyMap.PEERS: unpack_bits,
    PolicyMap.PORTS: unpack_bits,
    PolicyMap.BLOCKS: _number,
}
