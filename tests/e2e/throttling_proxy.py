"""A proxy between agents and the API server that answers 429 when told to: HTTP to the agents, HTTPS to the server."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from fast.kube import ClusterConfig

_TOO_MANY = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "TooManyRequests",
    "message": "the server has received too many requests and has asked us to try again later",
    "code": 429,
}
_HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}
#: What a request asks for, as ``GET /api/v1/pods``.
Chosen = Callable[[str], bool]


class ThrottlingProxy:
    """The proxy; make it with :func:`throttling_proxy`.

    Attributes:
        refused: The requests that were answered 429, as ``POST /apis/…``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: ClusterConfig) -> None:
        self.refused: list[str] = []
        self._loop = loop
        self._upstream = upstream
        self._throttled: tuple[Chosen, int] | None = None
        self._streams: set[asyncio.Task[object]] = set()

    @contextmanager
    def throttling(self, *, retry_after_seconds: int, only: str = "") -> Iterator[None]:
        """Answer 429 for the block to what matches the expression ``only``; every request under way is cut off."""
        chosen = re.compile(only)
        self._throttled = (lambda what: bool(chosen.search(what)), retry_after_seconds)
        self.cut()
        try:
            yield
        finally:
            self._throttled = None

    def cut(self) -> None:
        """Break every request under way off, watches too."""
        done = threading.Event()

        def cancel() -> None:
            for task in self._streams:
                task.cancel()
            done.set()

        self._loop.call_soon_threadsafe(cancel)
        done.wait()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        what = f"{request.method} {request.path}"
        if self._throttled and self._throttled[0](what):
            self.refused.append(what)
            seconds = str(self._throttled[1])
            return web.json_response(_TOO_MANY, status=429, headers={"Retry-After": seconds})
        task = asyncio.current_task()
        self._streams.add(task)
        try:
            return await self._pass_on(request)
        except aiohttp.ClientError:  # the server went away: so does the agent's connection
            request.transport.abort()
            raise asyncio.CancelledError from None
        finally:
            self._streams.discard(task)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.request(
                request.method,
                self._upstream.server + request.path_qs,
                headers=headers,
                data=await request.read(),
                ssl=self._upstream.tls.context(),
            ) as given,
        ):
            kept = {"Content-Type": given.headers["Content-Type"]}
            response = web.StreamResponse(status=given.status, headers=kept)
            await response.prepare(request)
            async for piece in given.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


@contextmanager
def throttling_proxy(listener: socket.socket, kubeconfig: Path) -> Iterator[ThrottlingProxy]:
    """Run a proxy on a listening socket (of any namespace), in a thread, to the server of a kubeconfig."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="throttling proxy")
    thread.start()
    proxy = ThrottlingProxy(loop, ClusterConfig.load(kubeconfig))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", proxy.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, listener).start()

    async def stop() -> None:
        for task in proxy._streams:
            task.cancel()
        await runner.cleanup()

    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
