"""Reads the kernel's conntrack: the flows whose addresses or ports were translated. Changes nothing."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fast.datapath.netlink import wire
from fast.errors import NetlinkError

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h
_NETLINK_NETFILTER = 12
_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NFGENMSG = struct.Struct("=BBH")
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS = 1, 2, 3
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_SOURCE, _CTA_IP_DESTINATION = {4: 1, 16: 3}, {4: 2, 16: 4}
_CTA_PROTO_NUM, _CTA_PROTO_SOURCE, _CTA_PROTO_DESTINATION = 1, 2, 3
_CTA_PROTO_ICMP_ID, _CTA_PROTO_ICMPV6_ID = 4, 7
# linux/netfilter/nf_conntrack_common.h
_SEEN_REPLY, _SOURCE_NAT, _DESTINATION_NAT = 1 << 1, 1 << 4, 1 << 5
_RECEIVE_BYTES = 1 << 18
_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Translated:
    """A translated flow as it is on the wire behind the translation. Addresses are packed, 4 or 16 bytes.

    Attributes:
        client: Who opened it, after source translation.
        backend: Who answers.
        client_port: Of an ICMP echo: its identifier, in both.
        protocol: IP protocol number.
        answered: Whether a reply was seen.
    """

    client: bytes
    backend: bytes
    client_port: int
    backend_port: int
    protocol: int
    answered: bool


def translated_flows() -> Iterator[Translated]:
    """Give every translated flow of the calling thread's network namespace. Blocking; some 5 µs a flow of any kind.

    Raises:
        NetlinkError: The kernel has no conntrack, or refused.
    """
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        ) as sock:
            sock.settimeout(_SECONDS)
            for family in (socket.AF_INET, socket.AF_INET6):
                for body in _dump(sock, family):
                    found = parse_conntrack(body)
                    if found is not None:
                        yield found
    except OSError as error:
        raise NetlinkError(f"read conntrack: {error.strerror or error}", error.errno or 0) from error


def _dump(sock: socket.socket, family: int) -> Iterator[bytes]:
    body = _NFGENMSG.pack(family, 0, 0)
    flags = wire.NLM_F_REQUEST | wire.NLM_F_DUMP
    sock.send(wire.HEADER.pack(wire.HEADER.size + len(body), _GET, flags, family, 0) + body)
    while True:
        for kind, _flags, sequence, answer in wire.parse_messages(sock.recv(_RECEIVE_BYTES)):
            if sequence != family:
                continue
            if kind == wire.NLMSG_ERROR:
                number = -struct.unpack_from("=i", answer)[0]
                raise OSError(number, "the kernel refused to list conntrack")
            if kind == wire.NLMSG_DONE:
                return
            yield answer


def parse_conntrack(body: bytes) -> Translated | None:
    """Read one entry; None if it is not translated, or not readable."""
    attributes = wire.parse_attributes(body, _NFGENMSG.size)
    status = int.from_bytes(attributes.get(_CTA_STATUS, b""))
    if not status & (_SOURCE_NAT | _DESTINATION_NAT):
        return None
    reply = wire.parse_attributes(attributes.get(_CTA_TUPLE_REPLY, b""))
    addresses = wire.parse_attributes(reply.get(_CTA_TUPLE_IP, b""))
    protocol = wire.parse_attributes(reply.get(_CTA_TUPLE_PROTO, b""))
    for size in (4, 16):
        backend = addresses.get(_CTA_IP_SOURCE[size], b"")
        client = addresses.get(_CTA_IP_DESTINATION[size], b"")
        if len(backend) == len(client) == size and _CTA_PROTO_NUM in protocol:
            break
    else:
        return None
    echo = protocol.get(_CTA_PROTO_ICMP_ID) or protocol.get(_CTA_PROTO_ICMPV6_ID)
    return Translated(
        client=client,
        backend=backend,
        client_port=int.from_bytes(echo or protocol.get(_CTA_PROTO_DESTINATION, b"")),
        backend_port=int.from_bytes(echo or protocol.get(_CTA_PROTO_SOURCE, b"")),
        protocol=protocol[_CTA_PROTO_NUM][0],
        answered=bool(status & _SEEN_REPLY),
    )
