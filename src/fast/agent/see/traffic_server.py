"""Serves what the agent knows of the traffic on a unix socket: ``GET /events`` and ``GET /drops``, as JSON.

Only root may connect, as people's addresses are in it. ``curl --unix-socket /run/fast/traffic.sock http://fast/drops``
works as well as ``fast-ctl``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from fast.agent.see.event_log import EventLog, Listener
from fast.errors import DatapathError

log = structlog.get_logger()

SOCKET_NAME = "traffic.sock"
_PING_SECONDS = 10.0
_encode = msgspec.json.Encoder().encode


class Lost(msgspec.Struct, tag_field="kind", tag="lost"):
    """A line of the stream that tells how many events came too fast for the listener."""

    events: int


class TrafficServer:
    """Serves the socket until stopped, and makes it again if somebody removes it (:meth:`ensure_socket`).

    Args:
        path: Of the socket.
        events: The last drops, and what comes.
        drops: Gives the answer to ``/drops`` as JSON; it may block, and runs in a thread.
    """

    def __init__(self, path: Path, events: EventLog, drops: Callable[[], bytes]) -> None:
        self._path = path
        self._events = events
        self._drops = drops
        self._runner: web.AppRunner | None = None
        self._site: web.UnixSite | None = None

    @property
    def is_started(self) -> bool:
        """Whether it was started and not stopped."""
        return self._site is not None

    async def start(self) -> None:
        """Listen; OSError if the socket cannot be made."""
        if self._runner is not None:
            await self._runner.cleanup()
        app = web.Application()
        app.add_routes([web.get("/events", self._serve_events), web.get("/drops", self._serve_drops)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await self._listen()

    async def ensure_socket(self) -> bool:
        """Make the socket again if it is gone; gives whether it was."""
        if self._runner is None or self._path.is_socket():
            return False
        await self._listen()
        log.warning("the traffic socket was gone and has been made again", socket=str(self._path))
        return True

    async def stop(self) -> None:
        """Stop listening, and end the streams. Idempotent."""
        if self._runner is not None:
            runner, self._runner, self._site = self._runner, None, None
            await runner.cleanup()
            self._path.unlink(missing_ok=True)

    async def _listen(self) -> None:
        assert self._runner is not None
        if self._site is not None:
            with contextlib.suppress(OSError):
                await self._site.stop()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        site = web.UnixSite(self._runner, self._path)
        await site.start()
        self._path.chmod(0o600)
        self._site = site

    async def _serve_drops(self, request: web.Request) -> web.Response:
        try:
            answer = await asyncio.to_thread(self._drops)
        except DatapathError as error:
            raise web.HTTPServiceUnavailable(reason=str(error).replace("\n", " ")) from error
        return web.Response(body=answer, content_type="application/json")

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        """Write one event a line: first the drops that are kept, then what comes, if ``follow`` asks for it.

        ``kinds`` says which events: ``drop`` (the default), ``flow``, ``sample``, with commas between.
        """
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        follow = request.query.get("follow") in {"1", "true"}
        kinds = frozenset(request.query.get("kinds", "drop").split(","))
        with self._events.listen(kinds) if follow else contextlib.nullcontext() as listener:
            for event in self._events.drops() if "drop" in kinds else ():
                await response.write(_encode(event) + b"\n")
            while listener is not None:
                await self._write_next(response, listener)
        await response.write_eof()
        return response

    async def _write_next(self, response: web.StreamResponse, listener: Listener) -> None:
        """Write the next event, and before it how many were lost; an empty line now and then finds closed streams."""
        try:
            async with asyncio.timeout(_PING_SECONDS):
                event = await listener.next()
        except TimeoutError:
            await response.write(b"\n")
            return
        if lost := listener.take_lost():
            await response.write(_encode(Lost(lost)) + b"\n")
        await response.write(_encode(event) + b"\n")
