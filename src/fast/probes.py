"""Serves /healthz, /readyz and /metrics for probes and Prometheus. What they say is the caller's.

Whoever reaches the port may be hostile: requests have a time limit, connections and scrapes are bounded, and the node's
own probes have connections of their own. A small server of its own, since aiohttp's has no limit for a request's head.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, disable_created_metrics, generate_latest

from fast.errors import InvalidConfig

log = structlog.get_logger()

_MOST_HEAD_BYTES = 8192
_HEAD_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_WRITE_SECONDS = 10.0
#: From other machines and pods, and from this node (kubelet's probes), each.
MOST_CONNECTIONS = 64
#: Scrapes that come closer together than this get the same text: making it takes the interpreter's lock.
_REUSE_SECONDS = 1.0
#: Between two answers to scrapes, whoever asks: at most 20 a second.
_GAP_SECONDS = 0.05


class _BadRequest(Exception):
    """The head of a request makes no sense, or is too long."""


class ProbeServer:
    """Serves the endpoints until stopped.

    Args:
        address: ``HOST:PORT``; IPv6 hosts in brackets.
        not_ready: Returns why the process is not ready; empty if it is.
        before_scrape: Updates gauges.
        metrics_token_file: If given, /metrics asks for this file's content as a bearer token. Read at each scrape.
    """

    def __init__(
        self,
        address: str,
        not_ready: Callable[[], str],
        before_scrape: Callable[[], None] = lambda: None,
        *,
        metrics_token_file: Path | None = None,
    ) -> None:
        self._host, self._port = parse_listen_address(address)
        self._not_ready = not_ready
        self._before_scrape = before_scrape
        self._token_file = metrics_token_file
        self._server: asyncio.Server | None = None
        self._connections: Counter[bool] = Counter()
        self._writers: set[asyncio.StreamWriter] = set()
        self._scraping = asyncio.Lock()
        self._scraped = b""
        self._scraped_at = float("-inf")

    async def start(self) -> None:
        """Listen.

        Raises:
            InvalidConfig: The address cannot be listened on.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self._port, limit=_MOST_HEAD_BYTES
            )
        except OSError as error:
            raise InvalidConfig(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        log.info("serving metrics and probes", address=f"{self._host}:{self._port}")

    async def stop(self) -> None:
        """Stop listening, and close what is connected."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.close()
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local = _is_local(writer.get_extra_info("peername"))
        if self._connections[local] >= MOST_CONNECTIONS:
            writer.close()
            return
        self._connections[local] += 1
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            log.debug("a connection ended early, or took too long")
        finally:
            self._connections[local] -= 1
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        keep = True
        while keep:
            try:
                method, path, headers, keep = await _read_head(reader)
                status, content_type, body = await self._answer(method, path, headers)
            except _BadRequest as error:
                keep, status = False, HTTPStatus.BAD_REQUEST
                content_type, body = "text/plain", f"{error}\n".encode()
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            async with asyncio.timeout(_WRITE_SECONDS):
                await writer.drain()

    async def _answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[HTTPStatus, str, bytes]:
        text = "text/plain; charset=utf-8"
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, text, b"GET only\n"
        match path:
            case "/healthz":  # an answer at all is the health: the event loop turns
                return HTTPStatus.OK, text, b"ok\n"
            case "/readyz":
                reason = self._not_ready()
                status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
                return status, text, f"{reason or 'ok'}\n".encode("utf-8", "backslashreplace")
            case "/metrics":
                if not await self._may_scrape(headers.get("authorization", "")):
                    return HTTPStatus.UNAUTHORIZED, text, b"a bearer token is needed\n"
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, await self._scrape()
        return HTTPStatus.NOT_FOUND, text, b"/healthz, /readyz, /metrics\n"

    async def _may_scrape(self, authorization: str) -> bool:
        """Compare with the token. A file that cannot be read, or is empty, lets nobody in."""
        if self._token_file is None:
            return True
        try:
            token = (await asyncio.to_thread(self._token_file.read_bytes)).strip()
        except OSError as error:
            log.warning("the token for metrics cannot be read", path=str(self._token_file), error=str(error))
            return False
        given = authorization.removeprefix("Bearer ").strip().encode("latin-1", "replace")
        return bool(token) and authorization.startswith("Bearer ") and hmac.compare_digest(given, token)

    async def _scrape(self) -> bytes:
        async with self._scraping:
            if time.monotonic() - self._scraped_at >= _REUSE_SECONDS:
                self._before_scrape()
                self._scraped = await asyncio.to_thread(generate_latest, REGISTRY)
                self._scraped_at = time.monotonic()
            else:
                await asyncio.sleep(_GAP_SECONDS)
            return self._scraped


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bool]:
    """Read a request's head: method, path, headers by lower-case name, and whether the connection stays.

    Raises:
        _BadRequest: It makes no sense.
        TimeoutError: It did not come in time.
        asyncio.IncompleteReadError: The other end closed the connection.
    """
    async with asyncio.timeout(_IDLE_SECONDS):
        first = await reader.readexactly(1)
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _BadRequest("the request's head is too long") from error
    request, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = request.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, target, version
        raise _BadRequest("not a request of HTTP/1")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _BadRequest("a request here has no body")
    connection = headers.get("connection", "").lower()
    keep = connection != "close" and (words[2] != "HTTP/1.0" or connection == "keep-alive")
    return words[0], words[1].partition("?")[0], headers, keep


def _is_local(peer: tuple[str, int] | None) -> bool:
    return peer is not None and ip_address(peer[0].partition("%")[0]).is_loopback


def parse_listen_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``.

    Raises:
        InvalidConfig: It is not.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) >= 1 << 16:
        raise InvalidConfig(f"{text!r} is not HOST:PORT to listen on")
    return host.strip("[]"), int(port)
