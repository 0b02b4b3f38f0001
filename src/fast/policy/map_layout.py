"""The maps' entries as typed values, and as the bytes the kernel holds (design §5). No decisions.

Bit sets are Python integers: bit 0 is the first rule group.
"""

from __future__ import annotations

import struct
from enum import Enum, IntFlag

import msgspec

from fast.policy.peers import Prefix
from fast.policy.ports import PortPrefix

_WORDS = 4
_WORD_BITS = 64
_WORD = (1 << _WORD_BITS) - 1
_RULES_BITS = 32
_PROTOCOL_BITS = 8

_POD = struct.Struct("<7IQ")
_RULE_SET_TAIL = struct.Struct("<HHHHII")
_PEER_KEY = struct.Struct("<II")
_PORT_KEY = struct.Struct("<II")
_BITS = struct.Struct("<4Q")
_NUMBER = struct.Struct("<I")


class PodFlag(IntFlag):
    """Policy's bits in ``fast_local_pod.flags``; the others belong to the datapath and are left alone."""

    INGRESS_ISOLATED = 1 << 1
    EGRESS_ISOLATED = 1 << 2
    POLICY_PENDING = 1 << 3
    AUDIT = 1 << 4


class RuleSetFlag(IntFlag):
    """``fast_ruleset.flags``."""

    NP_ISOLATED = 1
    HAS_BLOCKS = 2
    HAS_TIERS = 4


class PodPolicy(msgspec.Struct, frozen=True):
    """The last 36 bytes of a ``fast_local_pod``, from ``flags`` on; one write, so both directions change together.

    ``flags`` holds policy's bits only. A rule set's number 0: nothing restricts that direction. The audit rule sets are
    asked as well where they are not 0; their verdict is told and has no effect.
    """

    flags: PodFlag = PodFlag(0)
    peer_class: int = 0
    ingress_rules: int = 0
    egress_rules: int = 0
    epoch: int = 0
    audit_ingress_rules: int = 0
    audit_egress_rules: int = 0
    isolated_since_ns: int = 0

    def pack(self) -> bytes:
        """``flags, peer_class``, ingress, egress, audit ingress and egress, ``epoch``, ``isolated_since_ns``."""
        return _POD.pack(
            self.flags,
            self.peer_class,
            self.ingress_rules,
            self.egress_rules,
            self.audit_ingress_rules,
            self.audit_egress_rules,
            self.epoch,
            self.isolated_since_ns,
        )

    @classmethod
    def unpack(cls, data: bytes) -> PodPolicy:
        """Read :meth:`pack`'s bytes back; bits of others in the flags are dropped."""
        flags, peer_class, ingress, egress, audit_in, audit_out, epoch, since = _POD.unpack(data)
        mine = PodFlag(flags & sum(PodFlag))
        return cls(mine, peer_class, ingress, egress, epoch, audit_in, audit_out, since)


class RuleSetValue(msgspec.Struct, frozen=True):
    """A page of a rule set: ``fast_ruleset``, 144 bytes. ``next`` is the number of the next page, or 0."""

    any: int
    any_pod: int
    accept: int
    deny: int
    np_first: int
    baseline_first: int
    flags: RuleSetFlag
    next: int

    def pack(self) -> bytes:
        """``any, any_pod, accept, deny`` (32 bytes each), ``np_first, baseline_first, flags, pad``, ``next, pad``."""
        bits = b"".join(map(pack_bits, (self.any, self.any_pod, self.accept, self.deny)))
        return bits + _RULE_SET_TAIL.pack(self.np_first, self.baseline_first, self.flags, 0, self.next, 0)

    @classmethod
    def unpack(cls, data: bytes) -> RuleSetValue:
        """Read :meth:`pack`'s bytes back."""
        everybody, every_pod, accept, deny = (
            unpack_bits(data[start : start + _BITS.size]) for start in range(0, 4 * _BITS.size, _BITS.size)
        )
        np_first, baseline_first, flags, _, following, _ = _RULE_SET_TAIL.unpack(data[4 * _BITS.size :])
        return cls(
            everybody, every_pod, accept, deny, np_first, baseline_first, RuleSetFlag(flags), following
        )


class Map(Enum):
    """The maps that policy alone writes, by name."""

    RULE_SETS = "fast_rulesets"
    DIGESTS = "fast_ruleset_ids"
    PEERS = "fast_peers"
    PORTS = "fast_ports"
    BLOCKS = "fast_blocks"


class Capacity(msgspec.Struct, frozen=True):
    """How many entries each map has room for."""

    rule_sets: int = 8_192
    peers: int = 262_144
    ports: int = 65_536
    blocks: int = 65_536


#: Keys: a number; (rule set, class); (rule set, prefix); a prefix. Values: a page; a digest; bits; bits; a class.
Key = int | tuple[int, int] | tuple[int, PortPrefix] | Prefix
Value = RuleSetValue | bytes | int


def pack_bits(bits: int) -> bytes:
    """``struct fast_bits``: four 64-bit words, the first groups in the first."""
    return _BITS.pack(*(bits >> _WORD_BITS * word & _WORD for word in range(_WORDS)))


def unpack_bits(data: bytes) -> int:
    """Read :func:`pack_bits`'s bytes back."""
    return sum(word << _WORD_BITS * index for index, word in enumerate(_BITS.unpack(data)))


def pack_key(key: Key) -> bytes:
    """Give a key's bytes: ``u32``; ``fast_peer_key``; ``fast_port_key`` (12 bytes); ``fast_block_key`` (20 bytes)."""
    if isinstance(key, int):
        return _NUMBER.pack(key)
    if isinstance(key, Prefix):
        return _NUMBER.pack(key.bits) + key.key
    rules, second = key
    if isinstance(second, int):
        return _PEER_KEY.pack(rules, second)
    bits = _RULES_BITS if second.protocol is None else _RULES_BITS + _PROTOCOL_BITS + second.bits
    data = bytes([second.protocol or 0]) + second.port.to_bytes(2, "big") + b"\0"
    return _PORT_KEY.pack(bits, rules) + data


def pack_value(target: Map, value: Value) -> bytes:
    """Give a value's bytes in a map."""
    if isinstance(value, RuleSetValue):
        return value.pack()
    if isinstance(value, bytes):
        return value
    return _NUMBER.pack(value) if target is Map.BLOCKS else pack_bits(value)
