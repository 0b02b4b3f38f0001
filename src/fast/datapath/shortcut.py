"""Whether programs may put what pods send into the tunnel by themselves, past the tunnel device. Looks only.

What they send that way goes by the kernel's routes, as seen by bpf_fib_lookup, but meets neither IPsec (xfrm) policies
nor the MTU that a route has of its own: where there are any, the device has to do it, which honours both.
"""

from __future__ import annotations

import socket
import struct

from fast.datapath.bpf.layout import DevFlag
from fast.datapath.config import TUNNEL_OVERHEAD_BYTES, DatapathConfig
from fast.datapath.netlink import Netlink, requests
from fast.datapath.tunnel import Mtus
from fast.errors import NetlinkError

_NETLINK_XFRM = 6
# linux/xfrm.h; the answer is the flags of the question, then one attribute with struct xfrmu_spdinfo.
_XFRM_MSG_NEWSPDINFO, _XFRM_MSG_GETSPDINFO = 0x24, 0x25
_NLM_F_REQUEST = 1
_QUESTION = struct.Struct("=IHHIII")
_ANSWER = struct.Struct("=IHHIIIHHII")
_SECONDS = 5.0


def tunnel_flags(netlink: Netlink, config: DatapathConfig, mtus: Mtus) -> DevFlag:
    """Give what programs may do about the tunnel device on this node, as it is now.

    Raises:
        NetlinkError: The kernel refused to say.
    """
    if config.skip_tunnel_device and not _has_narrow_route(netlink, mtus) and not _has_outbound_policies():
        return DevFlag.MAY_BE_SKIPPED
    return DevFlag.NONE


def _has_narrow_route(netlink: Netlink, mtus: Mtus) -> bool:
    """Whether a route that is none of Fast's carries less than a full packet of the tunnel."""
    needed = mtus.tunnel + TUNNEL_OVERHEAD_BYTES
    return any(
        route.mtu is not None and route.mtu < needed
        for route in netlink.routes()
        if route.protocol != requests.ROUTE_PROTOCOL and route.destination.version == 4  # noqa: PLR2004 -- IP version
    )


def _has_outbound_policies() -> bool:
    """Tell whether an IPsec policy for outgoing packets is in place in the calling thread's network namespace.

    Raises:
        NetlinkError: The kernel refused to say.
    """
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_XFRM)
    except OSError:  # a kernel without IPsec
        return False
    with sock:
        try:
            sock.settimeout(_SECONDS)
            sock.send(_QUESTION.pack(_QUESTION.size, _XFRM_MSG_GETSPDINFO, _NLM_F_REQUEST, 1, 0, 0))
            raw = sock.recv(4096)
        except OSError as error:
            raise NetlinkError(f"count IPsec policies: {error.strerror}", error.errno or 0) from error
    if len(raw) < _ANSWER.size or _ANSWER.unpack_from(raw)[1] != _XFRM_MSG_NEWSPDINFO:
        raise NetlinkError("count IPsec policies: the kernel gave no count", 0)
    *_, outbound = _ANSWER.unpack_from(raw)
    return bool(outbound)
