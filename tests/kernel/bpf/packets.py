"""Packets by hand, for programs that are run on them without a device. No checksums: no program looks at them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from fast.net import IPAddress, Mac

TCP, UDP, ICMP, ICMPV6, SCTP, GRE = 6, 17, 1, 58, 132, 47
ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60


def ethernet(source: Mac, destination: Mac, ethertype: int, payload: bytes) -> bytes:
    return destination + source + struct.pack("!H", ethertype) + payload


def tcp(source_port: int, destination_port: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 1, 5 << 4, 0x10, 1024, 0, 0) + payload


def udp(source_port: int, destination_port: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def arp(operation: int, sender_mac: Mac, sender: IPAddress, target: IPAddress, **more: int) -> bytes:
    """``more``: ``hardware``, ``protocol``, ``lengths`` in place of Ethernet's and IPv4's."""
    head = struct.pack(
        "!HHHH",
        more.get("hardware", 1),
        more.get("protocol", ETH_IPV4),
        more.get("lengths", 6 << 8 | 4),
        operation,
    )
    return head + sender_mac + sender.packed + bytes(6) + target.packed


def discovery(kind: int, target: IPAddress, *options: tuple[int, bytes]) -> bytes:
    """A neighbour solicitation (135) or advertisement (136), with options of (type, MAC or any 8 n - 2 bytes)."""
    listed = b"".join(struct.pack("!BB", option, (len(body) + 2) // 8) + body for option, body in options)
    return icmp(kind, payload=target.packed + listed)


def link_local_of(mac: Mac) -> IPAddress:
    """The address of RFC 4291 appendix A."""
    return ip_address(bytes([0xFE, 0x80, *bytes(6), mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]]))


def icmp(kind: int, code: int = 0, rest: bytes = b"\0\0\0\0", payload: bytes = b"") -> bytes:
    return struct.pack("!BBH", kind, code, 0) + rest + payload


def echo(kind: int, identifier: int) -> bytes:
    return icmp(kind, rest=struct.pack("!HH", identifier, 1), payload=bytes(16))


@dataclass(frozen=True)
class Ip:
    """An IP packet of either family; ``fragment`` is its offset in bytes and whether more follow."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    payload: bytes
    fragment: tuple[int, bool] | None = None
    options: bytes = b""
    extensions: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, source: str, destination: str, protocol: int, payload: bytes, **more) -> Ip:
        return cls(ip_address(source), ip_address(destination), protocol, payload, **more)

    def with_(self, **changes) -> Ip:
        return replace(self, **changes)

    @property
    def ethertype(self) -> int:
        return ETH_IPV4 if self.source.version == 4 else ETH_IPV6

    def __bytes__(self) -> bytes:
        return self._ipv4() if self.source.version == 4 else self._ipv6()

    def _ipv4(self) -> bytes:
        offset, more = self.fragment or (0, False)
        words = 5 + len(self.options) // 4
        head = struct.pack(
            "!BBHHHBBH4s4s",
            4 << 4 | words,
            0,
            words * 4 + len(self.payload),
            7,
            more << 13 | offset // 8,
            64,
            self.protocol,
            0,
            self.source.packed,
            self.destination.packed,
        )
        return head + self.options + self.payload

    def _ipv6(self) -> bytes:
        kinds = list(self.extensions) + ([FRAGMENT] if self.fragment else [])
        following = [*kinds[1:], self.protocol]
        body = b""
        for kind, after in zip(kinds, following, strict=False):
            if kind == FRAGMENT and self.fragment:
                offset, more = self.fragment
                body += struct.pack("!BBHI", after, 0, offset | more, 7)
            elif kind == AUTHENTICATION:
                body += struct.pack("!BB14x", after, 2)
            else:
                body += struct.pack("!BB6x", after, 0)
        body += self.payload
        first = kinds[0] if kinds else self.protocol
        return (
            struct.pack("!IHBB", 6 << 28, len(body), first, 64)
            + self.source.packed
            + self.destination.packed
            + body
        )
