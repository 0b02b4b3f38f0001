"""Decides whether programs may encapsulate what pods send, without the tunnel device. Changes nothing.

Such a packet follows the kernel's routes (bpf_fib_lookup), but no IPsec (xfrm) policy and no MTU of a single route
applies to it. If the node has either, the tunnel device encapsulates, which honours both.
"""

from __future__ import annotations

import socket
import struct

import structlog

from fast.datapath.bpf.layout import DevFlag
from fast.datapath.datapath_config import TUNNEL_OVERHEAD_BYTES, DatapathConfig
from fast.datapath.netlink import Netlink, wire
from fast.datapath.node.tunnel import Mtus
from fast.errors import NetlinkError

log = structlog.get_logger()

# linux/xfrm.h
_XFRM_MSG_NEWSPDINFO, _XFRM_MSG_GETSPDINFO, _XFRM_MSG_GETDEFAULT = 0x24, 0x25, 0x28
_XFRM_USERPOLICY_BLOCK = 1
# The question's flags, then attribute XFRMA_SPD_INFO: policies in, out, and more.
_SPDINFO = struct.Struct("=I4xII")
_DEFAULTS = struct.Struct("=BBB")  # in, forwarded, out
_SECONDS = 5.0


class FastPath:
    """The decision for one node, made again at every call. Not thread-safe."""

    def __init__(self, config: DatapathConfig) -> None:
        self._config = config
        self._ipsec_seen = False
        self._closed_because = ""

    def flags(self, netlink: Netlink, mtus: Mtus) -> DevFlag:
        """Return what programs may do without the tunnel device at the moment. Logs a change.

        Once an IPsec policy is seen, the device is used until the agent restarts: daemons delete policies in order to
        replace them, and nothing may leave unencrypted in between.
        """
        because = self._reason_to_close(netlink, mtus)
        if because != self._closed_because:
            log.info(
                "the way of pods' packets into the tunnel changed", past_device=not because, because=because
            )
            self._closed_because = because
        return DevFlag.NONE if because else DevFlag.MAY_BE_SKIPPED

    def _reason_to_close(self, netlink: Netlink, mtus: Mtus) -> str:
        if not self._config.skip_tunnel_device:
            return "--no-skip-tunnel-device is set"
        try:
            self._ipsec_seen = self._ipsec_seen or has_ipsec()
            if self._ipsec_seen:
                return "IPsec policies are, or were, in place"
            needed = mtus.tunnel + TUNNEL_OVERHEAD_BYTES
            narrow = any(mtu < needed for mtu in netlink.route_mtus())
        except NetlinkError as error:
            return f"the kernel does not tell: {error}"
        return "a route has an MTU of its own, which is too small" if narrow else ""


def has_ipsec() -> bool:
    """Return whether an IPsec policy may apply to outgoing packets of the calling thread's network namespace.

    Raises:
        NetlinkError: The kernel refused to say.
    """
    sock = _open_socket()
    if sock is None:
        return False
    with sock:
        try:
            policies = _ask(sock, _XFRM_MSG_GETSPDINFO, _XFRM_MSG_NEWSPDINFO, bytes(4))
            defaults = _ask(sock, _XFRM_MSG_GETDEFAULT, _XFRM_MSG_GETDEFAULT, bytes(4))
        except OSError as error:
            raise NetlinkError(f"ask for IPsec policies: {error.strerror}", error.errno or 0) from error
    if len(policies) < _SPDINFO.size:
        raise NetlinkError("ask for IPsec policies: no count", 0)
    _, _, outbound = _SPDINFO.unpack_from(policies)
    if outbound:
        return True
    if len(defaults) < _DEFAULTS.size:  # before Linux 5.15
        return False
    _, _, unmatched = _DEFAULTS.unpack_from(defaults)
    return bool(unmatched == _XFRM_USERPOLICY_BLOCK)


def _open_socket() -> socket.socket | None:
    """Open a socket for IPsec policies; None if the kernel has none."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_XFRM)
    except OSError:
        return None
    sock.settimeout(_SECONDS)
    return sock


def _ask(sock: socket.socket, kind: int, answer: int, payload: bytes) -> bytes:
    """Return the answer's payload; empty if the kernel answered something else."""
    sock.send(wire.HEADER.pack(wire.HEADER.size + len(payload), kind, wire.NLM_F_REQUEST, 1, 0) + payload)
    found, _flags, _sequence, body = next(wire.parse_messages(sock.recv(4096)))
    return body if found == answer else b""
