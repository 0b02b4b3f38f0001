"""Notices at once when others change the node's datapath. Tells that it must be verified, not what changed.

Changes that it does not notice (a route, a kernel parameter) are found by the periodic verification.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from fast.datapath.netlink import Link, Netlink, records, wire
from fast.datapath.node.firewall import TABLE
from fast.datapath.node.tunnel import TUNNEL_DEVICE
from fast.datapath.pod.identity import DEVICE_PREFIX

# linux/netlink.h
_NETLINK_NETFILTER = 12  # which the socket module does not have
# linux/rtnetlink.h, linux/xfrm.h, linux/netfilter/nfnetlink.h
_RTNLGRP_LINK, _XFRMNLGRP_POLICY, _NFNLGRP_NFTABLES = 1, 4, 7
_NFT_TABLE_DELETED = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_NFGENMSG_BYTES, _NFTA_TABLE_NAME = 4, 1
_GROUPS = (
    (socket.NETLINK_ROUTE, _RTNLGRP_LINK),
    (_NETLINK_NETFILTER, _NFNLGRP_NFTABLES),
    (socket.NETLINK_XFRM, _XFRMNLGRP_POLICY),
)
_RECEIVE_BYTES = 1 << 16


class KernelWatch:
    """Listens in the calling thread's network namespace, from its making on."""

    def __init__(self) -> None:
        """Open the sockets; families that the kernel lacks (IPsec, nftables) are left out."""
        self._sockets = [sock for family, group in _GROUPS for sock in _subscribed(family, group)]
        with Netlink() as netlink:
            self._mtus = {link.index: link.mtu for link in netlink.links()}

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable."""
        return [sock.fileno() for sock in self._sockets]

    def heard(self) -> bool:
        """Read the messages; return whether the datapath must be verified.

        It must if the tunnel device or Fast's nftables table was changed or deleted, if the MTU of a
        device that is no pod's changed, if an IPsec policy was added, changed or deleted, or if messages were lost.
        """
        found = [
            self._concerns_fast(sock) for sock in self._sockets
        ]  # all are read, whatever the first one had
        return any(found)

    def _concerns_fast(self, sock: socket.socket) -> bool:
        found = False
        while True:
            try:
                raw = sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: the kernel had to leave something out
                found = True
                continue
            for kind, _flags, _sequence, body in wire.parse_messages(raw):
                found = self._is_of_fast(sock.proto, kind, body) or found

    def _is_of_fast(self, family: int, kind: int, body: bytes) -> bool:
        if family == socket.NETLINK_ROUTE:
            return self._is_about_way_out(kind, records.parse_link(body))
        if family == _NETLINK_NETFILTER:
            return _is_about_table(kind, body)
        return True

    def _is_about_way_out(self, kind: int, link: Link) -> bool:
        """Return whether the tunnel device is meant, or the MTU of a device that is no pod's changed.

        Programs that redirect know no MTU but the one in the map: in native routing, packets that are too big are lost
        from the moment that the underlay carries less.
        """
        if link.name == TUNNEL_DEVICE:
            return True
        if link.name.startswith(DEVICE_PREFIX):
            return False
        if kind == wire.RTM_DELLINK:
            self._mtus.pop(link.index, None)
            return False
        before, self._mtus[link.index] = self._mtus.get(link.index, link.mtu), link.mtu
        return before != link.mtu

    def close(self) -> None:
        """Stop listening."""
        for sock in self._sockets:
            sock.close()


def _subscribed(family: int, group: int) -> Iterator[socket.socket]:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    except OSError:
        return
    sock.setblocking(False)
    sock.bind((0, 1 << (group - 1)))
    yield sock


def _is_about_table(kind: int, body: bytes) -> bool:
    attributes = wire.parse_attributes(body, _NFGENMSG_BYTES) if kind == _NFT_TABLE_DELETED else {}
    return wire.parse_text(attributes.get(_NFTA_TABLE_NAME)) == TABLE
