"""Traffic that goes on while something is done to a node: a ping every 2 ms, TCP streams, and what was lost of them."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from fast.net import IPAddress
from kernel.traffic import Place

PING_INTERVAL_SECONDS = 0.002
_CHUNK = bytes(range(256)) * 64
_SECONDS = 20.0
_UNDER_WAY = 10
_NUMBERS = itertools.count(1)


class Stream:
    """A TCP connection that sends without a pause; the other end checks every byte."""

    def __init__(self, client: Place, server: Place, address: IPAddress, port: int, server_port: int) -> None:
        self.sent = self.received = 0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._listener = server.call(socket.socket, family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("::" if family == socket.AF_INET6 else "", server_port))
        self._listener.listen(1)
        self._sink = threading.Thread(target=self._guard, args=(self._drain,), daemon=True)
        self._sink.start()
        self._client = client.call(socket.socket, family, socket.SOCK_STREAM)
        self._client.settimeout(_SECONDS)
        self._client.connect((str(address), port))
        self._source = threading.Thread(target=self._guard, args=(self._send,), daemon=True)
        self._source.start()

    def _guard(self, function):
        try:
            function()
        except BaseException as error:
            self.failure = error

    def _send(self) -> None:
        with self._client:
            while not self._stop.is_set():
                self._client.sendall(_CHUNK)
                self.sent += len(_CHUNK)
                self._stop.wait(0.001)  # leaves some of the two cores to what is tested

    def _drain(self) -> None:
        self._listener.settimeout(_SECONDS)
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(_SECONDS)
            expected = 0
            while part := connection.recv(1 << 18):
                start = expected % 256
                assert part == (_CHUNK * (len(part) // len(_CHUNK) + 2))[start : start + len(part)], (
                    "changed bytes"
                )
                expected += len(part)
            self.received = expected

    def finish(self) -> None:
        """Stop sending and wait until the other end has everything."""
        self._stop.set()
        self._source.join()
        self._sink.join()
        self._listener.close()


class Pings:
    """A ping every 2 ms."""

    def __init__(self, place: Place, address: IPAddress) -> None:
        self._place = place
        self._log = f"/run/pings-{next(_NUMBERS)}"
        self.answered_at: list[float] = []
        command = f"exec ping -D -n -i {PING_INTERVAL_SECONDS} {address} > {self._log}"
        self._process = place.start("sh", "-c", command)

    def finish(self) -> tuple[int, list[int]]:
        """End it; give how many were sent and which were lost.

        The last ones are still under way when ping is told to end, a few where the machine is busy.
        """
        self._process.send_signal(signal.SIGINT)
        self._process.wait(_SECONDS)
        log = self._place.run(f"cat {self._log}; rm {self._log}")
        sent = int(re.search(r"(\d+) packets transmitted", log).group(1))
        answers = re.findall(r"^\[([\d.]+)\] .*icmp_seq=(\d+) ttl", log, re.MULTILINE)
        self.answered_at = [float(when) for when, _ in answers]
        answered = {int(number) for _, number in answers}
        last = max(answered, default=0)
        awaited = range(1, (sent if sent - last > _UNDER_WAY else last) + 1)
        return sent, [number for number in awaited if number not in answered]


@dataclass
class Load:
    """What ran, and how it went; filled when it has ended."""

    lost: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    missing: dict[str, list[int]] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)
    #: When each ping's answers came, in seconds since the epoch.
    answered_at: dict[str, list[float]] = field(default_factory=dict)

    def assert_unharmed(self) -> None:
        """Nothing was lost, nothing reset, no byte changed, and there was something to lose."""
        assert not self.failures, self.failures
        assert not any(self.lost.values()), (self.lost, self.missing, self.sent)
        assert all(self.sent.values()), self.sent


@contextlib.contextmanager
def load(
    pings: dict[str, tuple[Place, IPAddress]], streams: dict[str, tuple[Place, Place, IPAddress, int, int]]
) -> Iterator[Load]:
    """Run traffic for as long as the block takes.

    Args:
        pings: From, to.
        streams: Client, server, address and port the client connects to, port the server listens on.
    """
    found = Load()
    running = {name: Pings(place, address) for name, (place, address) in pings.items()}
    flowing = {name: Stream(*arguments) for name, arguments in streams.items()}
    try:
        yield found
    finally:
        for name, stream in flowing.items():
            stream.finish()
            found.sent[name], found.lost[name] = stream.sent, stream.sent - stream.received
            if stream.failure is not None:
                found.failures[name] = stream.failure
        for name, sequence in running.items():
            found.sent[name], missing = sequence.finish()
            found.lost[name], found.missing[name] = len(missing), missing
            found.answered_at[name] = sequence.answered_at
