"""The real API server as a process that tests start, kill, start again, and ask over HTTPS. No tests in here."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fast_playground.apiserver.access import TokenStore
from fast_playground.apiserver.fast_apiserver import main

_SERVER = "from fast_playground.apiserver.fast_apiserver import main; main()"


def serve(flags: list[str]) -> None:
    """Be the server: what a forked process runs."""
    main(args=flags)


class Server:
    """A server on a fixed port of the loopback.

    Args:
        place: A directory of its own.
        flags: Further flags.
    """

    def __init__(self, place: Path, *flags: str) -> None:
        self.place = place
        self.data = place / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.kubeconfig = place / "kubeconfig"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self.tokens = TokenStore(self.data / "tokens.json")
        self.admin = self.tokens.ensure_identity("fast-admin", ["system:masters"])

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts this server only. Call once it runs."""
        return ssl.create_default_context(cafile=str(self.data / "pki" / "ca.crt"))

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it serves."""
        where = ["--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        command = [
            sys.executable,
            "-c",
            _SERVER,
            *where,
            "--kubeconfig-out",
            str(self.kubeconfig),
            *self._flags,
        ]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert b"ready" in line, f"the API server did not start: {line!r}"

    def stop(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and wait until it is gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def client(self, token: str | None = None) -> "Client":
        """A client with the administrator's token, or another one (empty: none)."""
        return Client(self, self.admin if token is None else token)


class Answer:
    """One answer: its status, headers and body."""

    def __init__(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        self.status = status
        self.headers = headers
        self.raw = raw

    @property
    def body(self) -> Any:
        """The body as JSON."""
        return json.loads(self.raw)

    @property
    def reason(self) -> str:
        """A Status' reason."""
        return str(self.body.get("reason", ""))


class Client:
    """A connection to the server; sends exactly what it is told to, no more headers than that."""

    def __init__(self, server: Server, token: str) -> None:
        self._token = token
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=60, context=server.tls
        )

    def send(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", accept: str = ""
    ) -> http.client.HTTPResponse:
        """Send a request; the answer's body is not yet read."""
        headers = {"Accept": accept or "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        raw = None
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = kind
        self._connection.request(method, path, raw, headers)
        return self._connection.getresponse()

    def ask(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", accept: str = ""
    ) -> Answer:
        """Send a request and read the whole answer."""
        got = self.send(method, path, body, kind=kind, accept=accept)
        return Answer(got.status, dict(got.headers), got.read())

    def get(self, path: str, *, accept: str = "") -> Answer:
        """GET."""
        return self.ask("GET", path, accept=accept)

    def post(self, path: str, body: Any) -> Answer:
        """POST."""
        return self.ask("POST", path, body)

    def put(self, path: str, body: Any) -> Answer:
        """PUT."""
        return self.ask("PUT", path, body)

    def patch(self, path: str, body: Any, kind: str = "merge-patch+json") -> Answer:
        """PATCH with ``application/KIND``."""
        return self.ask("PATCH", path, body, kind=f"application/{kind}")

    def delete(self, path: str, body: Any = None) -> Answer:
        """DELETE."""
        return self.ask("DELETE", path, body)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@contextmanager
def running(place: Path, *flags: str) -> Iterator[Server]:
    """A server that runs; killed at the end, whatever happens."""
    server = Server(place, *flags)
    try:
        server.start()
        yield server
    finally:
        server.stop()
