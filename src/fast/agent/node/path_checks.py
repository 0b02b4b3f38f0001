"""Checks between this node and others: the underlay's path to them, and this node's clock. They change nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from ipaddress import IPv4Address

from fast.agent.node.node_checks import Check, Found, NodeFacts, Severity
from fast.datapath.datapath_config import TUNNEL_OVERHEAD_BYTES
from fast.datapath.netlink import Netlink
from fast.datapath.node.tunnel import TUNNEL_DEVICE, find_underlay

_PEERS_A_LOOK = 3
_SMALL_BYTES = 64
_TRIES = 2
_ANSWER_SECONDS = 1.0
_MOST_CLOCK_SECONDS = 30.0

_HEADERS_BYTES = 28  # IPv4 and ICMP
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3  # linux/in.h: set DF, and ignore the path MTU that is cached


def _underlay_path(facts: NodeFacts) -> Found:
    """Send packets as large as the tunnel's to some nodes; a node that answers no small one is left out."""
    if facts.node_ip is None:
        return
    peers = list(facts.peers())
    size = _tunnel_packet_bytes(facts, facts.node_ip)
    for name, address in random.sample(peers, min(_PEERS_A_LOOK, len(peers))):
        if _reaches(address, _SMALL_BYTES) and not _reaches(address, size):
            yield (
                Severity.ERROR,
                f"the underlay to node {name} ({address}) loses packets of {size} bytes: small packets of pods arrive, "
                "large ones do not",
                f"let the network between the nodes carry {size} bytes, or give the agents a smaller --pod-mtu",
            )


def _tunnel_packet_bytes(facts: NodeFacts, node_ip: IPv4Address) -> int:
    """Return the size of the largest packet that pods cause on the underlay."""
    with Netlink() as netlink:
        tunnel = netlink.find_link(TUNNEL_DEVICE)
        carried = find_underlay(netlink, node_ip).mtu
    if tunnel is None:
        return min(carried, facts.pod_mtu or carried)
    return min(carried, min(tunnel.mtu, facts.pod_mtu or tunnel.mtu) + TUNNEL_OVERHEAD_BYTES)


def _reaches(address: IPv4Address, ip_bytes: int) -> bool:
    """Return whether an unfragmented ping of that size is answered."""
    return any(_ping(address, ip_bytes) for _ in range(_TRIES))


def _ping(address: IPv4Address, ip_bytes: int) -> bool:
    identifier, sequence = random.getrandbits(16), random.getrandbits(16)
    payload = os.urandom(ip_bytes - _HEADERS_BYTES)
    head = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, sequence)
    head = struct.pack("!BBHHH", _ECHO_REQUEST, 0, _checksum(head + payload), identifier, sequence)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as channel:
        channel.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        try:
            channel.sendto(head + payload, (str(address), 0))
        except OSError:
            return False  # EMSGSIZE, no route
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            channel.settimeout(left)
            try:
                packet = channel.recv(1 << 16)
            except TimeoutError:
                break
            answer = packet[(packet[0] & 0xF) * 4 :]
            if answer[0] == _ECHO_REPLY and answer[4:] == head[4:] + payload:
                return True
    return False


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _clock(facts: NodeFacts) -> Found:
    ahead = facts.clock_ahead_seconds()
    if ahead is not None and abs(ahead) > _MOST_CLOCK_SECONDS:
        yield (
            Severity.WARNING,
            f"this node's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the API server's: "
            "tokens and certificates may be refused, and times in Events mislead",
            "synchronise it (NTP, chrony)",
        )


#: What only a running agent can check, as it knows the other nodes and hears from the API server.
PATH_CHECKS: dict[str, Check] = {"underlay-path": _underlay_path, "clock": _clock}
