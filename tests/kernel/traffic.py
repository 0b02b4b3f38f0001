"""Real traffic between places (machines, sandboxes, pods): servers that say whom they saw, probes that check it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from fast.net import IPAddress
from kernel.lab import eventually

T = TypeVar("T")

SECONDS = 10.0
LARGE_BYTES = 3_000_000
_UDP_SEGMENT, _SO_RCVBUFFORCE = 103, 33
#: Datagrams of one packet come all at once: what the kernel counts for 30 that were in a tunnel fills the default.
_BURST_BYTES = 1 << 22
FRAGMENTED_BYTES = 4000
_HEADER = struct.Struct("!I")
# linux/in.h, linux/in6.h; Python's socket module does not have them.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT, _PMTUDISC_WANT = 10, 23, 0, 1


class Place(Protocol):
    """Somewhere sockets can be opened."""

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run the function there."""
        ...

    def run(self, command: str, **options: Any) -> str:
        """Run a shell script there."""
        ...


def _family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _listen(kind: int, port: int) -> socket.socket:
    """Open a socket for both families."""
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Larger than the path: fragment, whatever the path is thought to carry.
    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_WANT)
    sock.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    else:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BURST_BYTES)
    return sock


def _receive(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("closed early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _serve_connection(connection: socket.socket, peer: str) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(SECONDS)
        (size,) = _HEADER.unpack(_receive(connection, _HEADER.size))
        payload = _receive(connection, size)
        seen = peer.encode()
        connection.sendall(_HEADER.pack(len(seen)) + seen + payload[::-1])


def _serve_tcp(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, peer = listener.accept()
            threading.Thread(target=_serve_connection, args=(connection, peer[0]), daemon=True).start()


def _serve_udp(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            payload, peer = sock.recvfrom(1 << 16)
            if not peer:  # shut down
                return
            seen = peer[0].encode()
            with contextlib.suppress(OSError):
                sock.sendto(_HEADER.pack(len(seen)) + seen + payload[::-1], peer)


@contextlib.contextmanager
def server(place: Place, port: int = 8080) -> Iterator[None]:
    """Serve TCP and UDP on the port, for both families: answers whom it saw, then the payload backwards."""
    tcp, udp = place.call(lambda: (_listen(socket.SOCK_STREAM, port), _listen(socket.SOCK_DGRAM, port)))
    threads = [
        threading.Thread(target=_serve_tcp, args=(tcp,), daemon=True),
        threading.Thread(target=_serve_udp, args=(udp,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for sock in (tcp, udp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(SECONDS)
        tcp.close()
        udp.close()


def _seen(raw: str) -> str:
    return raw.removeprefix("::ffff:")


def _payload(size: int) -> bytes:
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def tcp(
    place: Place, address: IPAddress, port: int = 8080, size: int = 100, may_be_fragmented: bool = False
) -> str:
    """Send ``size`` bytes over TCP and have them back; give the client's address as the server saw it.

    What ``may_be_fragmented`` (IPv4 only) goes without the bit that forbids it, and nothing is learnt of the path.
    """
    payload = _payload(size)
    with place.call(socket.socket, _family(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        if may_be_fragmented:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        sock.connect((str(address), port))
        sock.sendall(_HEADER.pack(size) + payload)
        (length,) = _HEADER.unpack(_receive(sock, _HEADER.size))
        seen = _receive(sock, length).decode()
        assert _receive(sock, size) == payload[::-1], "the payload came back changed"
    return _seen(seen)


def udp(
    place: Place,
    address: IPAddress,
    port: int = 8080,
    size: int = 100,
    attempts: int = 1,
    seconds: float = SECONDS,
) -> str:
    """Send a datagram and have it back; give the client's address as the server saw it.

    Larger ones than the path's MTU go as fragments. More than one of the ``attempts``, which share the ``seconds``, is
    for the first datagrams on a path: what is lost is what teaches the sender, and then the server, its MTU.
    """
    payload = _payload(size)
    with place.call(socket.socket, _family(address), socket.SOCK_DGRAM) as sock:
        option = (
            (socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_WANT)
            if address.version == 4
            else (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_WANT)
        )
        sock.setsockopt(*option)
        sock.connect((str(address), port))
        for attempt in range(attempts):
            # Each waits four times as long as the one before.
            sock.settimeout(seconds * 3 * 4**attempt / (4**attempts - 1))
            try:
                sock.send(payload)
                answer = sock.recv(1 << 16)
                break
            except OSError as error:
                if attempt == attempts - 1 or error.errno not in (errno.EMSGSIZE, errno.ETIMEDOUT, None):
                    raise
    (length,) = _HEADER.unpack_from(answer)
    assert answer[_HEADER.size + length :] == payload[::-1], "the payload came back changed"
    return _seen(answer[_HEADER.size : _HEADER.size + length].decode())


def udp_segments(
    place: Place, address: IPAddress, port: int = 8080, size: int = 1200, count: int = 30
) -> None:
    """Send datagrams as one packet that the kernel cuts where it must (UDP_SEGMENT), and have each of them back."""
    missing = {bytes([number]) * size for number in range(count)}
    with place.call(socket.socket, _family(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BURST_BYTES)
        sock.connect((str(address), port))
        sock.send(b"".join(missing))
        with contextlib.suppress(TimeoutError):
            while missing:
                missing.discard(sock.recv(1 << 16)[-size:])
    assert not missing, f"{len(missing)} of {count} datagrams did not come back"


def ping(place: Place, address: IPAddress, size: int = 56, count: int = 2, options: str = "") -> None:
    """Ping; AssertionError if not every echo is answered."""
    place.run(f"ping -n -q -c {count} -i 0.05 -W 3 -s {size} {options} {address}")


def learn_path_mtu(place: Place, address: IPAddress) -> None:
    """Ping with large packets until one comes back: natively routed, pods do not know that IPv6 takes the tunnel."""
    eventually(lambda: reaches(ping, place, address, FRAGMENTED_BYTES, 1, "-W 0.2"))


def every_way(
    source: Place, address: IPAddress, seen: IPAddress, port: int = 8080, icmp: bool = True
) -> None:
    """TCP and UDP, small, bulk (in segments) and in fragments; and pings, small and in fragments, where ICMP goes so.

    Args:
        source: The client's place.
        address: What it connects to.
        seen: The client's address as the server should see it.
        port: What it connects to.
        icmp: Whether the address answers pings.
    """
    assert tcp(source, address, port) == str(seen)
    assert tcp(source, address, port, LARGE_BYTES) == str(seen)
    assert udp(source, address, port) == str(seen)
    if address.version == 6:
        # Cut by the sender alone: client and server may each lose one until they are told how narrow the path is.
        udp(source, address, port, FRAGMENTED_BYTES, attempts=3, seconds=3)
    assert udp(source, address, port, FRAGMENTED_BYTES) == str(seen)
    udp_segments(source, address, port)
    if icmp:
        ping(source, address)
        ping(source, address, FRAGMENTED_BYTES)


def reaches(probe: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether the probe gets through; for traffic that must not, give it few attempts."""
    try:
        probe(*args, **kwargs)
    except (OSError, AssertionError):
        return False
    return True
