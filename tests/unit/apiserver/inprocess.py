"""The server in the test's own process, still over HTTPS, for tests that shorten its patience. No tests in here."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fast_playground.apiserver.kinds import CONFIG_MAPS
from fast_playground.apiserver.runtime import ApiServer

_SECONDS = 30


class Connection:
    """A connection that reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._rest = b""

    async def until(self, text: bytes) -> bytes:
        """Read until a text has come; gives all up to and with it."""
        taken = self._rest
        async with asyncio.timeout(_SECONDS):
            while text not in taken:
                more = await self._reader.read(1 << 16)
                assert more, f"the end came before {text!r}"
                taken += more
        found, _, self._rest = taken.partition(text)
        return found + text

    async def buffered(self) -> bytes:
        """Read what has come so far: until nothing more does for a moment."""
        taken = [self._rest]
        with suppress(TimeoutError, ConnectionError, ssl.SSLError):
            while more := await asyncio.wait_for(self._reader.read(1 << 16), 0.5):
                taken.append(more)
        return b"".join(taken)


class Inside:
    """A server in this process.

    Attributes:
        token: Its administrator's.
    """

    def __init__(self, server: ApiServer, port: int) -> None:
        self.server = server
        self._port = port
        self.token = server.tokens.ensure_identity("fast-admin", ["system:masters"])
        self._tls = ssl.create_default_context(cadata=server.authority.ca_pem.decode())
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self) -> Connection:
        """Open a connection with little room for what is not read."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        made = await asyncio.open_connection(
            sock=sock, ssl=self._tls, server_hostname="127.0.0.1", limit=1 << 16
        )
        self._open.append(made[1])
        return Connection(*made)

    async def open(self, head: str) -> Connection:
        """Send a request's head, with credentials; wait for the answer's."""
        connection = await self.connect()
        connection.writer.write(f"{head}Authorization: Bearer {self.token}\r\n\r\n".encode())
        await connection.until(b"\r\n\r\n")
        return connection

    async def raw(self, text: str, until: bytes) -> bytes:
        """Send a text as it is; gives what comes until another text does."""
        connection = await self.connect()
        connection.writer.write(text.encode())
        return await connection.until(until)

    @property
    def connections(self) -> int:
        """How many connections the server holds."""
        assert self.server._server is not None
        return len(self.server._server.connections)

    async def put_config_map(self, name: str, content: str, **labels: str) -> str:
        """Create a ConfigMap; gives its version."""
        meta = {"name": name, "labels": labels}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"content": content}}
        made = await self.server.verbs.create(CONFIG_MAPS, body, "default")
        return str(made["metadata"]["resourceVersion"])

    def close(self) -> None:
        """Hang up everywhere."""
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def serving(place: Path) -> AsyncIterator[Inside]:
    """A server that runs; stopped at the end."""
    server = ApiServer(place / "data", scheduler=False)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    inside = Inside(server, listening.getsockname()[1])
    await server.start([listening])
    try:
        yield inside
    finally:
        inside.close()
        await server.stop()
