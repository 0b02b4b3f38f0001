"""The agent's unix socket: one connection a CNI call, one frame in, one frame out. The verbs are fast.cni's."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from prometheus_client import Counter, Histogram

from fast.cni import CniCall, CniReply, error_reply
from fast.cni.frames import encode_reply, read_call
from fast.cni.network_config import NEWEST_VERSION
from fast.errors import InvalidConfig

log = structlog.get_logger()

_BACKLOG = 1024  # a node that boots starts all of its pods at once
_READ_SECONDS = 10.0
_COMMANDS = frozenset({"ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"})

_REQUESTS = Counter(
    "fast_cni_requests", "CNI calls that were answered, by verb and exit status.", ["command", "status"]
)
_SECONDS = Histogram(
    "fast_cni_request_duration_seconds",
    "Time from a CNI call's arrival to its reply, by verb.",
    ["command"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)

Dispatch = Callable[[CniCall], Awaitable[CniReply]]


class CniServer:
    """Listens on the unix socket, mode 0600.

    The socket is made beside its path and moved there, so that a restart leaves no moment without one. A lock beside
    it keeps a second agent off the node.
    """

    def __init__(self, path: Path, dispatch: Dispatch) -> None:
        self._path = path
        self._dispatch = dispatch
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._lock_fd = -1
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self, *, wait_seconds: float = 15.0) -> None:
        """Take the lock, then listen.

        Args:
            wait_seconds: How long to wait for a predecessor that is still stopping.

        Raises:
            InvalidConfig: Another agent has the lock, or the path cannot be used.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._take_lock(wait_seconds)
            listener = self._listen()
        except OSError as error:
            raise InvalidConfig(
                f"the agent's socket {self._path} cannot be made: {error.strerror}"
            ) from error
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, backlog=_BACKLOG)
        log.info("serving CNI calls", socket=str(self._path))

    async def stop(self, *, drain_seconds: float = 10.0) -> None:
        """Take no more calls, let those that run finish, then remove the socket. Idempotent."""
        if self._server is None:
            return
        self._unlink()
        self._server.close()
        self._server = None
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=drain_seconds)
            for task in late:
                task.cancel()  # the verbs roll back, what a thread still does included
            if late:
                log.warning("CNI calls cut off", calls=len(late))
                await asyncio.wait(late)
        os.close(self._lock_fd)

    async def _take_lock(self, wait_seconds: float) -> None:
        self._lock_fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise InvalidConfig(f"another fast-agent serves {self._path}") from error
                await asyncio.sleep(0.1)
            else:
                return

    def _listen(self) -> socket.socket:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.bind(str(fresh))
            fresh.chmod(0o600)
            listener.listen(_BACKLOG)
            self._inode = fresh.stat().st_ino
            fresh.rename(self._path)
        except OSError:
            listener.close()
            fresh.unlink(missing_ok=True)
            raise
        return listener

    def _unlink(self) -> None:
        """Remove the socket, unless it is a successor's by now."""
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            return

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                call = await read_call(reader)
            writer.write(encode_reply(await self._answer(call)))
            await writer.drain()
        except InvalidConfig as error:
            writer.write(encode_reply(error_reply(error, NEWEST_VERSION)))
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            log.debug("a CNI call went away before it was read, or before its reply was")
        finally:
            writer.close()

    async def _answer(self, call: CniCall) -> CniReply:
        began = time.monotonic()
        reply = await self._dispatch(call)
        command = call.env.get("CNI_COMMAND", "")
        command = command if command in _COMMANDS else "unknown"
        _REQUESTS.labels(command, str(reply.exit_code)).inc()
        _SECONDS.labels(command).observe(time.monotonic() - began)
        return reply
