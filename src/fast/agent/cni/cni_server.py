"""The agent's unix socket: one connection for each CNI call, one frame in, one out. ``fast.cni`` has the verbs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from prometheus_client import Counter, Histogram

from fast.agent.cni.call_channel import ConnectionLost, receive_call
from fast.cni import CniCall, CniReply, error_reply
from fast.cni.environment import COMMANDS
from fast.cni.frames import encode_reply
from fast.cni.network_config import NEWEST_VERSION
from fast.errors import InvalidConfig

log = structlog.get_logger()

CONDITION = "socket"

_BACKLOG = 1024  # a node that boots starts all of its pods at once
_IO_SECONDS = 10.0
_WATCH_SECONDS = 1.0
#: Without a free descriptor, accepting again at once would only fail again.
_PAUSE_SECONDS = 0.2

_REQUESTS = Counter(
    "fast_cni_requests", "CNI calls answered, by verb and exit status.", ["command", "status"]
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

    A restart leaves no moment without a socket: it is made beside its path and renamed. A lock file next to it keeps
    a second agent off the node. Both are made again if somebody removes them.
    """

    def __init__(self, path: Path, dispatch: Dispatch) -> None:
        self._path = path
        self._dispatch = dispatch
        self._listener: socket.socket | None = None
        self._inode = 0
        self._lock_fd = -1
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self, *, wait_seconds: float = 15.0) -> None:
        """Take the lock, then listen.

        Args:
            wait_seconds: How long to wait for an earlier agent that is still stopping.

        Raises:
            InvalidConfig: Another agent has the lock, or the path cannot be used.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._take_lock(wait_seconds)
            self._listen()
        except OSError as error:
            raise InvalidConfig(f"cannot create the agent's socket {self._path}: {error.strerror}") from error
        log.info("serving CNI calls", socket=str(self._path))

    async def keep(
        self,
        report: Callable[[str], None],
        restored: Callable[[], None],
        *,
        interval_seconds: float = _WATCH_SECONDS,
    ) -> None:
        """Look after the socket for ever.

        Args:
            report: Called after every look: "" if the socket is in place, else why it is not.
            restored: Called after the socket was made again.
            interval_seconds: Between two looks.
        """
        while True:
            try:
                if not self._in_place():
                    self._restore()
                    restored()
                report("")
            except BlockingIOError:
                report(f"another fast-agent serves {self._path}: stop one of the two")
            except OSError as error:
                report(
                    f"{self._path} was removed and cannot be made again ({error.strerror}): "
                    "restart the agent (in a cluster: delete its pod)"
                )
            await asyncio.sleep(interval_seconds)

    async def stop(self, *, drain_seconds: float = 10.0) -> None:
        """Accept no more calls, let those that run finish, then remove the socket. Idempotent."""
        if self._listener is None:
            return
        if self._in_place():
            self._path.unlink()
        self._close_listener()
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=drain_seconds)
            for task in late:
                task.cancel()  # the verbs roll back, including what a thread still does
            if late:
                log.warning("CNI calls cut off", calls=len(late))
                await asyncio.wait(late)
        os.close(self._lock_fd)

    # ── the lock and the socket ──

    async def _take_lock(self, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                self._lock_fd = self._lock()
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise InvalidConfig(f"another fast-agent serves {self._path}") from error
                await asyncio.sleep(0.1)
            else:
                return

    def _lock(self) -> int:
        """Lock the lock file; BlockingIOError if another process has."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _in_place(self) -> bool:
        """Return whether the path still leads to this process's socket, and the lock file is still the one locked."""
        try:
            lock = self._path.with_suffix(".lock").stat()
            return self._path.stat().st_ino == self._inode and lock.st_ino == os.fstat(self._lock_fd).st_ino
        except FileNotFoundError:
            return False

    def _restore(self) -> None:
        """Make directory, lock and socket again; BlockingIOError if another agent took the lock meanwhile."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._path.with_suffix(".lock")
        if not lock.exists() or lock.stat().st_ino != os.fstat(self._lock_fd).st_ino:
            fresh = self._lock()
            os.close(self._lock_fd)
            self._lock_fd = fresh
        self._listen()
        log.warning("the agent's socket had been removed, and was made again", socket=str(self._path))

    def _listen(self) -> None:
        """Listen at the path, and no longer on an earlier socket."""
        fresh = self._path.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            listener.bind(str(fresh))
            fresh.chmod(0o600)
            listener.listen(_BACKLOG)
            inode = fresh.stat().st_ino
            fresh.rename(self._path)
        except OSError:
            listener.close()
            fresh.unlink(missing_ok=True)
            raise
        self._close_listener()
        self._listener, self._inode = listener, inode
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _close_listener(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    # ── calls ──

    def _accept(self, listener: socket.socket) -> None:
        """Accept a waiting connection. One a turn: the loop calls again, and other work comes in between."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("no CNI call can be accepted for now", error=str(error))
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(_PAUSE_SECONDS, self._accept_again, listener)
            return
        connection.setblocking(False)
        task = asyncio.create_task(self._serve(connection))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.closing(connection):
            try:
                async with asyncio.timeout(_IO_SECONDS):
                    call, netns = await receive_call(connection)
                with netns:
                    reply = await self._answer(call)
            except InvalidConfig as error:
                reply = error_reply(error, NEWEST_VERSION)
            except (ConnectionLost, TimeoutError, OSError) as error:
                log.debug("a CNI call went away before it was read", error=str(error))
                return
            with contextlib.suppress(TimeoutError, OSError):  # the runtime gave up
                async with asyncio.timeout(_IO_SECONDS):
                    await asyncio.get_running_loop().sock_sendall(connection, encode_reply(reply))

    async def _answer(self, call: CniCall) -> CniReply:
        began = time.monotonic()
        reply = await self._dispatch(call)
        command = call.env.get("CNI_COMMAND", "")
        command = command if command in COMMANDS else "unknown"
        _REQUESTS.labels(command, str(reply.exit_code)).inc()
        _SECONDS.labels(command).observe(time.monotonic() - began)
        return reply
