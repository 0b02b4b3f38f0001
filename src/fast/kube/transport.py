"""One HTTP request to the API server: connections, credentials, time limits, bounded retry. Nothing about resources."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import aiohttp
import structlog
import yarl

import fast
from fast.errors import Throttled, Unauthorized
from fast.kube.api_config import ClusterConfig
from fast.kube.status_errors import error_of_answer, error_of_transport

log = structlog.get_logger()

_CONNECT_SECONDS = 5.0
#: Dead peers are noticed in 15 + 3 × 5 s even by a watch that only reads.
_KEEPALIVE_IDLE_SECONDS, _KEEPALIVE_INTERVAL_SECONDS, _KEEPALIVE_PROBES = 15, 5, 3
_USER_TIMEOUT_MS = 30_000
#: An idle connection is kept this long, so a claim does not pay for a TLS handshake. kube-apiserver keeps them for
#: longer.
_IDLE_CONNECTION_SECONDS = 90.0
_READ_BUFFER_BYTES = 2**18
_THROTTLED_TRIES = 4
_DEFAULT_RETRY_AFTER_SECONDS = 1.0

_TRANSPORT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a TCP socket that detects a silently dead peer."""
    family, kind, protocol = address[:3]
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        what: The request in words, for error messages.
        method: The HTTP method.
        path: The URL path, percent-encoded.
        query: The query's parameters, not encoded.
        body: The body's bytes; None for none.
        content_type: Of the body.
    """

    what: str
    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = "application/json"


class Transport:
    """Sends requests with our credentials; every failure is a :class:`fast.errors.KubeError`.

    The connection pool is made at the first request, in the running event loop.
    """

    def __init__(
        self, config: ClusterConfig, *, user_agent: str, timeout_seconds: float, retry_seconds: float
    ) -> None:
        """Make an idle transport.

        Args:
            config: The server and our identity.
            user_agent: The product name in ``User-Agent``; the API server's audit log shows it.
            timeout_seconds: The limit of one request with its answer, unless the call names another.
            retry_seconds: The longest total wait of one call if the server answers 429.
        """
        self._config = config
        self._limits = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS)
        self._retry_seconds = retry_seconds
        # No Accept-Encoding beyond identity: gzip costs the server more CPU than it saves a LAN
        # (kubernetes/kubernetes#112296).
        self._headers = {
            "User-Agent": f"{user_agent}/{fast.__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        if config.impersonate:
            self._headers["Impersonate-User"] = config.impersonate
        self._pool: aiohttp.ClientSession | None = None
        self._dated: tuple[str, float] | None = None

    def clock_ahead_seconds(self) -> float | None:
        """Return how far this machine's clock was ahead of the server's at the last answer; None if none had a date.

        The header ``Date`` has whole seconds, so the result is off by up to one.
        """
        if self._dated is None:
            return None
        header, now = self._dated
        try:
            return now - parsedate_to_datetime(header).timestamp()
        except ValueError:
            return None

    async def close(self) -> None:
        """Close every connection; running requests fail. Idempotent."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def send(self, request: Request, *, timeout_seconds: float | None = None) -> bytes:
        """Send a request and read its whole answer.

        A 401 refreshes the credentials and tries once more; so does a failed TLS handshake, where the certificates'
        files have changed. A 429 is waited out as the server asks, for any method: by
        it the server says that it did nothing. Nothing else is retried here, except that a GET, PUT or DELETE which
        finds its kept connection closed is sent again on a fresh one.

        Args:
            request: The request.
            timeout_seconds: Instead of the transport's own limit.

        Raises:
            KubeError: Its subclass by :func:`fast.kube.status_errors.error_type`.
        """
        limits = self._limits
        if timeout_seconds is not None:
            limits = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS)
        budget = self._retry_seconds
        for attempt in range(1, _THROTTLED_TRIES + 1):
            try:
                async with self._answer(request, limits) as response:
                    return await response.read()
            except Throttled as error:
                seconds = error.retry_after_seconds
                delay = (_DEFAULT_RETRY_AFTER_SECONDS if seconds is None else seconds) * random.uniform(
                    1, 1.2
                )
                if attempt == _THROTTLED_TRIES or delay > budget:
                    raise
                budget -= delay
                await asyncio.sleep(delay)
        raise AssertionError("the loop above returns or raises")

    @asynccontextmanager
    async def stream(
        self, request: Request, *, silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an endless answer and yield its bytes as they arrive, in chunks of any size.

        Args:
            request: The request.
            silence_seconds: After this long without a byte the stream counts as dead.

        Raises:
            KubeError: On opening, and from the iteration if the stream breaks; a clean end just ends the
                iteration.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence_seconds)
        async with self._answer(request, limits) as response:
            yield response.content.iter_any()

    @asynccontextmanager
    async def websocket(
        self, request: Request, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket.

        Args:
            request: The request; its own ``query`` is not used.
            query: The query's parameters, which may repeat.
            protocols: Subprotocols, the best first.

        Raises:
            KubeError: The server refused, or went away.
        """
        grant = await self._config.credentials.grant()
        tls = grant.tls or self._config.tls
        try:
            async with self._session().ws_connect(
                yarl.URL(self._config.server + request.path, encoded=True).with_query(list(query)),
                headers={"Authorization": grant.authorization} if grant.authorization else {},
                protocols=protocols,
                ssl=tls.context() if tls is not None else True,
                server_hostname=self._config.server_name or None,
                proxy=self._config.proxy or None,
                max_msg_size=0,
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            raise error_of_answer(request.what, error.status, error.message.encode()) from error
        except _TRANSPORT_ERRORS as error:
            raise error_of_transport(request.what, error) from error

    @asynccontextmanager
    async def _answer(
        self, request: Request, limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the answer of a successful request; retries with fresh credentials if the first were refused."""
        try:
            try:
                response = await self._open(request, limits)
            except Unauthorized:
                self._config.credentials.refuse()
                if self._config.tls is not None:
                    self._config.tls.look()
                response = await self._open(request, limits)
            async with response:
                yield response
        except _TRANSPORT_ERRORS as error:
            raise error_of_transport(request.what, error) from error

    async def _open(self, request: Request, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send the request; gives the answer with its body unread, or raises its error."""
        grant = await self._config.credentials.grant()
        tls = grant.tls or self._config.tls
        context = tls.context() if tls is not None else True
        try:
            response = await self._send(request, limits, grant.authorization, context)
        except aiohttp.ClientSSLError:  # nothing was sent
            if tls is None or not tls.has_other_than(context):
                raise
            response = await self._send(request, limits, grant.authorization, tls.context())
        if "Date" in response.headers:
            self._dated = (response.headers["Date"], time.time())
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            return response
        async with response:
            body, retry_after = await response.read(), response.headers.get("Retry-After")
        raise error_of_answer(request.what, response.status, body, retry_after)

    async def _send(
        self,
        request: Request,
        limits: aiohttp.ClientTimeout,
        authorization: str,
        context: ssl.SSLContext | bool,
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": request.content_type} if request.body is not None else {}
        if authorization:
            headers["Authorization"] = authorization
        url = yarl.URL(self._config.server + request.path, encoded=True)
        return await self._session().request(
            request.method,
            url.with_query(request.query) if request.query else url,
            data=request.body,
            headers=headers,
            timeout=limits,
            ssl=context,
            server_hostname=self._config.server_name or None,
            proxy=self._config.proxy or None,
            allow_redirects=False,
            read_bufsize=_READ_BUFFER_BYTES,
        )

    def _session(self) -> aiohttp.ClientSession:
        if self._pool is None:
            self._pool = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=_IDLE_CONNECTION_SECONDS,
                    ttl_dns_cache=60,
                    socket_factory=_socket,
                ),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        return self._pool
