"""The maps' contents as dictionaries: read back after a restart, and written by tests in the kernel's place.

Look-ups are those that the programs make, longest prefix included; nothing else is known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from fast.policy.map_layout import Key, Map, PodPolicy, RuleSetValue
from fast.policy.peers import Prefix
from fast.policy.plan import Delete, Put, SetClass, SetPod, Write
from fast.policy.ports import PORT_BITS, PortPrefix, covering

_KEY_BITS = 128


class MapReader(Protocol):
    """The look-ups a verdict needs; the agent implements them over the kernel's maps."""

    def find_pod(self, address: bytes) -> PodPolicy | None:
        """Policy's part of a ``fast_local_pods`` entry."""

    def find_cluster_class(self, address: bytes) -> int | None:
        """The class in a ``fast_cluster_pods`` entry."""

    def is_node(self, address: bytes) -> bool:
        """Whether that entry is a node's."""

    def find_rule_set(self, number: int) -> RuleSetValue | None:
        """A page of a rule set."""

    def peers(self, rules: int, peer_class: int) -> int:
        """The bits of a ``fast_peers`` entry; 0 if there is none."""

    def ports(self, rules: int, protocol: int, port: int) -> int:
        """The bits of the longest ``fast_ports`` prefix; 0 if there is none."""

    def block_class(self, address: bytes) -> int:
        """The class of the longest ``fast_blocks`` prefix; 0 if there is none."""


@dataclass(slots=True)
class Maps:
    """Every map that policy writes, or writes a part of. ``nodes``: the addresses whose entry is a node's."""

    rule_sets: dict[int, RuleSetValue] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    peer_bits: dict[tuple[int, int], int] = field(default_factory=dict)
    port_bits: dict[tuple[int, PortPrefix], int] = field(default_factory=dict)
    blocks: dict[Prefix, int] = field(default_factory=dict)
    classes: dict[bytes, int] = field(default_factory=dict)
    nodes: set[bytes] = field(default_factory=set)
    pods: dict[bytes, PodPolicy] = field(default_factory=dict)

    def of(self, which: Map) -> dict[Any, Any]:
        """The contents of one map, by its own keys."""
        match which:
            case Map.RULE_SETS:
                return self.rule_sets
            case Map.DIGESTS:
                return self.digests
            case Map.PEERS:
                return self.peer_bits
            case Map.PORTS:
                return self.port_bits
            case Map.BLOCKS:
                return self.blocks

    def apply(self, write: Write) -> None:
        """Carry out one write of a plan."""
        match write:
            case Put(which, key, value):
                self.of(which)[key] = value
            case Delete(which, key):
                self.of(which).pop(key, None)
            case SetClass(peer_class, addresses):
                self.classes.update(dict.fromkeys(addresses, peer_class))
            case SetPod(address, policy):
                self.pods[address] = policy

    def keys(self, which: Map) -> list[Key]:
        """The keys of one map."""
        return list(self.of(which))

    # ── look-ups ────────────────────────────────────────────────────────────────────────────────

    def find_pod(self, address: bytes) -> PodPolicy | None:
        """See :class:`MapReader`."""
        return self.pods.get(address)

    def find_cluster_class(self, address: bytes) -> int | None:
        """See :class:`MapReader`."""
        return self.classes.get(address)

    def is_node(self, address: bytes) -> bool:
        """See :class:`MapReader`."""
        return address in self.nodes

    def find_rule_set(self, number: int) -> RuleSetValue | None:
        """See :class:`MapReader`."""
        return self.rule_sets.get(number)

    def peers(self, rules: int, peer_class: int) -> int:
        """See :class:`MapReader`."""
        return self.peer_bits.get((rules, peer_class), 0)

    def ports(self, rules: int, protocol: int, port: int) -> int:
        """See :class:`MapReader`."""
        for prefix in covering(PortPrefix(protocol, port, PORT_BITS)):
            bits = self.port_bits.get((rules, prefix))
            if bits is not None:
                return bits
        return 0

    def block_class(self, address: bytes) -> int:
        """See :class:`MapReader`."""
        number = int.from_bytes(address, "big")
        for bits in range(_KEY_BITS, -1, -1):
            masked = number >> _KEY_BITS - bits << _KEY_BITS - bits
            found = self.blocks.get(Prefix(masked.to_bytes(16, "big"), bits))
            if found is not None:
                return found
        return 0
