"""Reads nftables over netlink: the generation of all rules, and base chains. Changes nothing; writing is nft's.

``nft list chains`` takes seconds where kube-proxy has some chains for each Service; this reads them in milliseconds.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fast.datapath.netlink import wire
from fast.errors import NetlinkError

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_GET_CHAIN, _GET_GENERATION = _SUBSYSTEM | 4, _SUBSYSTEM | 16
_NFGENMSG = struct.Struct("=BBH")
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER, _GENERATION_ID = 1, 1
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_FORWARD, _DROP = 2, 0  # NF_INET_FORWARD, NF_DROP
_RECEIVE_BYTES = 1 << 18
_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ForwardChain:
    """A base chain of the forward hook; ``drops`` tells its policy."""

    family: str
    table: str
    name: str
    drops: bool


def ruleset_generation() -> int:
    """Return a number that changes with every change of any rule; 0 if the kernel has no nftables.

    Raises:
        NetlinkError: The kernel did not answer.
    """
    for _, attributes in _ask(_GET_GENERATION, dump=False):
        return int.from_bytes(attributes.get(_GENERATION_ID, b""))
    return 0


def forward_chains() -> list[ForwardChain]:
    """List the base chains of the forward hook.

    Raises:
        NetlinkError: The kernel did not answer.
    """
    found = []
    for family, attributes in _ask(_GET_CHAIN, dump=True):
        hook = attributes.get(_CHAIN_HOOK)
        if hook is None or family not in _FAMILIES:
            continue
        number = int.from_bytes(wire.parse_attributes(hook).get(_HOOK_NUMBER, b""))
        if number == _FORWARD:
            policy = attributes.get(_CHAIN_POLICY)
            found.append(
                ForwardChain(
                    _FAMILIES[family],
                    wire.parse_text(attributes.get(_CHAIN_TABLE)),
                    wire.parse_text(attributes.get(_CHAIN_NAME)),
                    drops=policy is not None and int.from_bytes(policy) == _DROP,
                )
            )
    return found


def _ask(kind: int, *, dump: bool) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Send a request; give family and attributes of each answer."""
    body = _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)
    flags = wire.NLM_F_REQUEST | (wire.NLM_F_DUMP if dump else 0)
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        ) as sock:
            sock.settimeout(_SECONDS)
            sock.send(wire.HEADER.pack(wire.HEADER.size + len(body), kind, flags, 1, 0) + body)
            while True:
                for answer, _flags, _sequence, payload in wire.parse_messages(sock.recv(_RECEIVE_BYTES)):
                    if answer == wire.NLMSG_DONE:
                        return
                    if answer == wire.NLMSG_ERROR:
                        return  # EINVAL: a kernel without nftables
                    yield payload[0], wire.parse_attributes(payload, _NFGENMSG.size)
                    if not dump:
                        return
    except OSError as error:
        raise NetlinkError(f"read nftables: {error.strerror or error}", error.errno or 0) from error
