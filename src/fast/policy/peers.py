"""Peers: who a rule is about, as values that are equal where they mean the same. Interning is ``classes``'s.

A rule group's peers are any of these. Whether an address is one is asked in two ways: pods and nodes by their labels
(:mod:`fast.policy.addresses`), blocks by the address alone (:mod:`fast.policy.blocks`).
"""

from __future__ import annotations

import msgspec

from fast.errors import InvalidRange
from fast.net.address import V4_MAPPED_PREFIX, IPNetwork, map_key
from fast.net.ranges import parse_subnet
from fast.policy.label_selectors import Selector

_V4_BITS = 96
_IPV4 = 4


class Prefix(msgspec.Struct, frozen=True, order=True):
    """The addresses that share the first ``bits`` bits of a 16-byte map key."""

    key: bytes
    bits: int

    @property
    def first(self) -> int:
        """The first address as a number."""
        return int.from_bytes(self.key, "big")

    @property
    def last(self) -> int:
        """The last address as a number."""
        return self.first | (1 << 128 - self.bits) - 1

    def covers(self, other: Prefix) -> bool:
        """Whether every address of the other is in this one."""
        return self.bits <= other.bits and self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        from ipaddress import ip_network

        from fast.net.address import from_map_key

        bits = self.bits - _V4_BITS if self.key.startswith(V4_MAPPED_PREFIX) else self.bits
        return str(ip_network((from_map_key(self.key), bits)))


#: Where IPv4 addresses are among the keys: no IPv6 block reaches in there.
V4_MAPPED = Prefix(V4_MAPPED_PREFIX + bytes(4), _V4_BITS)


class AnyPeer(msgspec.Struct, frozen=True, tag="any"):
    """Everybody, in the cluster and outside."""

    def __str__(self) -> str:
        return "anybody"


class PodPeer(msgspec.Struct, frozen=True, tag="pods"):
    """Pods by their labels, in one namespace by name or in those with such labels (exactly one of both is set)."""

    namespace: str | None
    namespaces: Selector | None
    pods: Selector

    @property
    def is_every_pod(self) -> bool:
        """Whether it is every pod of the cluster, whatever its labels."""
        return self.namespaces is not None and not self.namespaces.requirements and not self.pods.requirements

    def __str__(self) -> str:
        pods = f"pods {self.pods}" if self.pods.requirements else "all pods"
        if self.namespaces is None:
            return f"{pods} in namespace {self.namespace}"
        where = str(self.namespaces)
        return f"{pods} in namespaces {where}" if where else f"{pods} in all namespaces"


class NodePeer(msgspec.Struct, frozen=True, tag="nodes"):
    """Nodes by their labels."""

    nodes: Selector

    def __str__(self) -> str:
        return f"nodes {self.nodes}" if self.nodes.requirements else "all nodes"


class BlockPeer(msgspec.Struct, frozen=True, tag="block"):
    """Addresses by prefix, without those in the holes; pods and nodes are in a block like everybody else."""

    prefix: Prefix
    holes: tuple[Prefix, ...] = ()

    def __str__(self) -> str:
        holes = [hole for hole in self.holes if hole != V4_MAPPED]
        return f"{self.prefix} except {', '.join(map(str, holes))}" if holes else str(self.prefix)


BasePeer = AnyPeer | PodPeer | NodePeer | BlockPeer


class NamedPeer(msgspec.Struct, frozen=True, tag="named"):
    """Those of ``base`` that have a port of this name under this number: a destination's named port, resolved."""

    base: BasePeer
    name: str
    protocol: int
    port: int

    def __str__(self) -> str:
        return f"{self.base} whose port {self.name} is {self.port}"


Peer = BasePeer | NamedPeer
ANY = AnyPeer()


def find_block(cidr: str, holes: tuple[str, ...] = ()) -> BlockPeer | None:
    """Read a block; None if it or a hole is no CIDR, or is IPv6's spelling of IPv4 addresses.

    Holes outside the block, or of the other family, mean nothing. A block inside its own hole is empty.
    """
    try:
        network = parse_subnet(cidr)
        prefix = _prefix(network)
        read = [parse_subnet(hole) for hole in holes]
    except InvalidRange:
        return None
    if any(item.version != _IPV4 and V4_MAPPED.covers(_prefix(item)) for item in (network, *read)):
        return None
    out = [_prefix(hole) for hole in read if hole.version == network.version]
    if any(hole.covers(prefix) for hole in out):
        return BlockPeer(prefix, (prefix,))
    if prefix.covers(V4_MAPPED) and prefix != V4_MAPPED:
        out.append(V4_MAPPED)
    return BlockPeer(prefix, tuple(sorted({hole for hole in out if prefix.covers(hole)})))


def _prefix(network: IPNetwork) -> Prefix:
    bits = network.prefixlen + (_V4_BITS if network.version == _IPV4 else 0)
    return Prefix(map_key(network.network_address), bits)
