"""A probe from inside a pod's network namespace: echo requests or TCP connects, and how many were answered."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fast.datapath.bpf.maps import LocalPods
from fast.datapath.netlink import Netlink
from fast.datapath.netns import Netns, run_in
from fast.errors import FastError, NetnsGone
from fast.net import IPAddress, Mac

NETNS_DIRECTORY = Path("/run/netns")
PACKETS = 3
_ANSWER_SECONDS = 0.7
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _DO = 10, 23, 2
_ECHO = {4: (8, 0), 6: (128, 129)}
_IPV4_HEADER, _ICMP_HEADER = 20, 8


@dataclass(slots=True)
class Probed:
    """What became of a probe: packets sent and answered; why nothing could be sent; whether TCP was refused."""

    sent: int = 0
    answered: int = 0
    error: str = ""
    refused: bool = False

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def probe_from_pod(
    maps: Path, source: IPAddress, destination: IPAddress, port: int = 0, size_bytes: int = 84
) -> Probed:
    """Send a few packets from the pod that holds ``source``. Blocks for some seconds at most.

    Args:
        maps: Where the maps are pinned.
        source: A pod of this node.
        destination: Where to.
        port: TCP port to connect to; 0: echo requests instead.
        size_bytes: Length of an echo's IP packet, which is not fragmented.

    Raises:
        FastError: The pod or its network namespace is not on this node.
    """
    with LocalPods.open(maps) as pods:
        entry = pods.get(source)
    if entry is None:
        raise FastError(f"{source} is not in this node's map of local pods")
    send: Callable[[], Probed] = (
        (lambda: _connect(source, destination, port))
        if port
        else (lambda: _echo(source, destination, size_bytes))
    )
    with _find_netns(entry.pod_mac) as netns:
        return run_in(netns.fd, send)


def _find_netns(mac: Mac) -> Netns:
    for path in sorted(NETNS_DIRECTORY.iterdir()) if NETNS_DIRECTORY.is_dir() else ():
        try:
            netns = Netns.open(str(path))
        except NetnsGone:
            continue  # a file that is left of a namespace
        with Netlink(netns.fd) as inside:
            if any(link.mac == mac for link in inside.links("veth")):
                return netns
        netns.close()
    raise FastError(f"no network namespace below {NETNS_DIRECTORY} has an interface with MAC {mac}")


def _echo(source: IPAddress, destination: IPAddress, size_bytes: int) -> Probed:
    ipv4 = source.version == 4  # noqa: PLR2004 -- the version's own number
    family = socket.AF_INET if ipv4 else socket.AF_INET6
    found = Probed()
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if ipv4 else 58) as raw:
        level, option = (
            (socket.IPPROTO_IP, _IP_MTU_DISCOVER) if ipv4 else (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)
        )
        raw.setsockopt(level, option, _DO)
        ident = os.getpid() & 0xFFFF
        headers = (_IPV4_HEADER if ipv4 else 40) + _ICMP_HEADER
        payload = os.urandom(max(16, size_bytes - headers))
        try:
            raw.bind((str(source), 0))
            for number in range(PACKETS):
                raw.sendto(_echo_request(source.version, ident, number, payload), (str(destination), 0))
                found.sent += 1
                found.answered += _is_answered(raw, source.version, ident, number)
        except OSError as error:
            found.error = _say(error)
    return found


def _echo_request(version: int, ident: int, number: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHH", _ECHO[version][0], 0, 0, ident, number)
    if version == 6:  # noqa: PLR2004
        return head + payload  # the kernel sets the checksum
    data = head + payload + b"\0" * (len(payload) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", _ECHO[version][0], 0, checksum, ident, number) + payload


def _is_answered(raw: socket.socket, version: int, ident: int, number: int) -> bool:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([raw], [], [], left)[0]:
            return False
        answer = raw.recv(65_535)
        if version == 4:  # noqa: PLR2004
            answer = answer[(answer[0] & 15) * 4 :]
        kind, _, _, found, which = struct.unpack_from("!BBHHH", answer)
        if (kind, found, which) == (_ECHO[version][1], ident, number):
            return True
    return False


def _connect(source: IPAddress, destination: IPAddress, port: int) -> Probed:
    found = Probed()
    for _ in range(PACKETS):
        found.sent += 1
        try:
            with socket.create_connection((str(destination), port), _ANSWER_SECONDS, (str(source), 0)):
                found.answered += 1
        except ConnectionRefusedError:
            found.answered += 1
            found.refused = True
        except TimeoutError:
            continue
        except OSError as error:
            found.error = _say(error)
            break
    return found


def _say(error: OSError) -> str:
    if error.errno == errno.ENETUNREACH:
        return "the pod has no route to the destination"
    if error.errno == errno.EMSGSIZE:
        return "the pod's kernel says that the packet is larger than the path's MTU"
    return error.strerror or str(error)
