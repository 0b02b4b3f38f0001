"""Bytes of rtnetlink: headers, attributes and the numbers of linux/rtnetlink.h and its like. No sockets, no meaning."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# nlmsghdr types (linux/netlink.h, linux/rtnetlink.h)
NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

# nlmsghdr flags
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1

IFF_UP = 0x1
IFF_NOARP = 0x80

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 3, 4, 5
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_GROUP, IFLA_NET_NS_FD = 18, 20, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA = 7, 15, 25

IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RTA_METRICS, RTAX_LOCK, RTAX_MTU = 8, 1, 2
RT_TABLE_UNSPEC, RT_TABLE_MAIN = 0, 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTNH_F_ONLINK = 4
RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 6, 7, 8
RTM_F_CLONED = 0x200

FRA_SRC, FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL = 2, 6, 15, 21
FR_ACT_TO_TBL = 1

NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
NTF_USE = 0x01

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_U32 = struct.Struct("=I")


def padded(raw: bytes) -> bytes:
    """Fill up to the four-byte boundary that follows every message and attribute."""
    return raw + bytes(-len(raw) % 4)


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded."""
    return padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute that holds others."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    """Encode an attribute of 32 bits in host order."""
    return attribute(kind, _U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """Encode a NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def parse_messages(raw: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Read the messages of a datagram: type, flags, sequence and body of each. Stops at a malformed one."""
    offset = 0
    while offset + HEADER.size <= len(raw):
        length, kind, flags, sequence, _port = HEADER.unpack_from(raw, offset)
        if length < HEADER.size:
            return
        yield kind, flags, sequence, raw[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def parse_attributes(raw: bytes, offset: int = 0) -> dict[int, bytes]:
    """Read the attributes from ``offset`` to the end; of several with one type, the last. Stops at a malformed one."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(raw):
        length, kind = _ATTRIBUTE.unpack_from(raw, offset)
        if length < _ATTRIBUTE.size or offset + length > len(raw):
            break
        found[kind & NLA_TYPE_MASK] = raw[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def parse_u32(raw: bytes | None) -> int:
    """Read a 32-bit value in host order; 0 for an absent attribute."""
    return int(_U32.unpack_from(raw)[0]) if raw else 0


def parse_text(raw: bytes | None) -> str:
    """Read a NUL-terminated string; empty for an absent attribute."""
    return raw.rstrip(b"\0").decode(errors="replace") if raw else ""
