"""``kubectl exec``: a child process whose streams go over a WebSocket, by the protocols v5 and v4 of channel.k8s.io.

Every message begins with the number of its channel. The server does not know how to enter a pod: it runs a command that
does (``--exec-command``) with the namespace, the pod, the container, ``--`` and what the user wants. Source: KEP-3396.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Sequence

import msgspec
import structlog
from aiohttp import WSMsgType, web

from fast_playground.apiserver.api import ApiError, Object
from fast_playground.apiserver.kinds import PODS
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.status import bad_request

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK_BYTES = 32 * 1024
_PING_SECONDS = 15.0
#: How long output may still come after the command ended, if its children hold the pipe open.
_DRAIN_SECONDS = 1.0
#: Stands before the command in place of ``--`` if it is to see the files of the pod's node, not those of the pod.
ON_NODE = "--on-node"
#: Where a node keeps what a container wrote.
LOG_FILE = "/var/log/pods/{namespace}_{name}_{uid}/{container}.log"
_UNSUPPORTED_OF_LOGS = {"previous", "sinceSeconds", "sinceTime", "timestamps", "limitBytes", "stream"}
_logger = structlog.get_logger()


class _Child:
    """A command, its process, and this end of its streams. ``terminal`` is -1 if it has none."""

    def __init__(self, terminal: int = -1) -> None:
        self.terminal = terminal
        self.outputs: dict[int, asyncio.StreamReader] = {}
        self.stdin: asyncio.StreamWriter | None = None  # None: the client sends none, or no more
        self._transports: list[asyncio.BaseTransport] = []
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, argv: Sequence[str], stdin: int, stdout: int, stderr: int) -> None:
        """Run the command on these descriptors, in a session of its own; OSError if it cannot be started."""
        if self.terminal >= 0:
            # setsid makes the terminal the session's: to do it from here, Python would have to run after the fork.
            argv = ["setsid", "--ctty", *argv]
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=self.terminal < 0,
            env=os.environ | {"TERM": "xterm"} if self.terminal >= 0 else None,
        )

    async def wait(self) -> int:
        """Wait for the command's end; gives its exit status, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def read_from(self, channel: int, descriptor: int) -> None:
        """Take what can be read from a descriptor, which now belongs here, as a channel's output."""
        reader = asyncio.StreamReader(_CHUNK_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
        )
        self._transports.append(transport)
        self.outputs[channel] = reader

    async def write_to(self, descriptor: int) -> None:
        """Send the client's input to a descriptor, which now belongs here."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(descriptor, "wb", 0)
        )
        self._transports.append(transport)
        self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)

    def end_input(self) -> None:
        """Tell the command that no more comes: end of file on a pipe, the end-of-file character on a terminal."""
        if self.stdin is not None and self.terminal >= 0:
            self.stdin.write(b"\x04")
        elif self.stdin is not None:
            self.stdin.close()
        self.stdin = None

    def close(self) -> None:
        """End the command and what it started (unless that left its session), and let go of every stream."""
        if self._process is not None and self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it does not lead a group yet
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        for transport in self._transports:
            transport.close()
        if self.terminal >= 0:
            os.close(self.terminal)


class PodExec:
    """Runs commands in pods.

    Args:
        api: Where the pods are.
        command: What enters a pod: program and first arguments. Empty: exec is not supported.
    """

    def __init__(self, api: Verbs, command: Sequence[str]) -> None:
        self._api = api
        self._command = tuple(command)

    @property
    def enabled(self) -> bool:
        """Whether the server knows a way into pods."""
        return bool(self._command)

    async def handle(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        """Serve one exec request, until the command ended or the client went; then the command is killed.

        Args:
            request: GET with the query of ``PodExecOptions``; already authorised (verb ``create`` on ``pods/exec``).
            namespace: The pod's.
            name: The pod.

        Raises:
            ApiError: 404 without the pod, 400 for an invalid request, 501 if exec is not supported.
        """
        argv = await self._argv(request, namespace, name)
        socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=_PING_SECONDS)
        if not socket.can_prepare(request).ok:
            raise bad_request("Upgrade request required")
        await socket.prepare(request)
        flags = {
            key for key in ("stdin", "stdout", "stderr", "tty") if request.query.get(key) in ("true", "1")
        }
        await socket.send_bytes(bytes([_STDOUT]))  # tells the client that the streams are there
        try:
            child = await _spawn(argv, flags)
        except OSError as error:
            await _send_status(socket, _failure("InternalError", f"{argv[0]}: {error.strerror}"))
        else:
            await _serve(socket, child)
        await socket.close()
        return socket

    async def logs(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        """Answer ``kubectl logs``: what a container wrote, as text; with ``follow`` until the client goes.

        The file is read on the pod's node, which keeps it where kubelets do (``LOG_FILE``).

        Raises:
            ApiError: 404 without the pod, 400 for what is invalid or not supported.
        """
        query = request.query
        if unknown := sorted(
            _UNSUPPORTED_OF_LOGS & {key for key in query if query[key] not in ("", "false")}
        ):
            raise bad_request(f"this server does not support {', '.join(unknown)} of logs: leave it out")
        lines = query.get("tailLines") or "+1"
        if lines != "+1" and not lines.isdecimal():
            raise bad_request(f'tailLines: Invalid value: "{lines}": must be greater than or equal to 0')
        pod, container = await self._find(request, namespace, name)
        path = LOG_FILE.format(**pod["metadata"], container=container)
        follow = ["-F"] if query.get("follow") in ("true", "1") else []
        command = [*self._command, namespace, name, container, ON_NODE, "tail", "-n", lines, *follow, path]
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            await response.prepare(request)
            while chunk := await process.stdout.read(_CHUNK_BYTES):
                await response.write(chunk)
            await response.write_eof()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return response

    async def _argv(self, request: web.Request, namespace: str, name: str) -> list[str]:
        if not self.enabled:
            raise ApiError(
                501, "NotImplemented", "exec is not supported: the server was started without a way into pods"
            )
        wanted = request.query.getall("command", [])
        if not wanted:
            raise bad_request("you must specify at least 1 command for the container")
        _, container = await self._find(request, namespace, name)
        return [*self._command, namespace, name, container, "--", *wanted]

    async def _find(self, request: web.Request, namespace: str, name: str) -> tuple[Object, str]:
        """Find the pod, which must have a node, and the container that the request means."""
        pod = await self._api.get(PODS, name, namespace)
        if not pod["spec"].get("nodeName"):
            raise bad_request(f"pod {name} does not have a host assigned")
        containers = [container["name"] for container in pod["spec"]["containers"]]
        container = request.query.get("container") or containers[0]
        if container not in containers:
            raise bad_request(f"container {container} is not valid for pod {name}")
        return pod, container


async def _serve(socket: web.WebSocketResponse, child: _Child) -> None:
    """Carry the streams until the command ends or the client goes."""
    pumps = [asyncio.create_task(_pump(socket, number, reader)) for number, reader in child.outputs.items()]
    client = asyncio.create_task(_receive(socket, child))
    ended = asyncio.create_task(child.wait())
    try:
        await asyncio.wait({client, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            if pumps:
                await asyncio.wait(pumps, timeout=_DRAIN_SECONDS)
            await _send_status(socket, _exit_status(ended.result()))
    finally:
        child.close()
        for task in (client, *pumps):
            task.cancel()
        await asyncio.gather(client, ended, *pumps, return_exceptions=True)


async def _spawn(argv: Sequence[str], flags: set[str]) -> _Child:
    """Start the command on pipes, or on a terminal of its own. Raises OSError: It could not be started."""
    if "tty" in flags:
        terminal, slave = pty.openpty()
        child, theirs = _Child(terminal), {"stdin": slave, "stdout": slave, "stderr": slave}
        ours = {"stdin": os.dup(terminal), "stdout": os.dup(terminal)}
    else:
        child, theirs, ours = _Child(), {}, {}
        for name in flags & {"stdin", "stdout", "stderr"}:
            reading, writing = os.pipe()
            theirs[name], ours[name] = (reading, writing) if name == "stdin" else (writing, reading)
    try:
        for name, descriptor in ours.items():
            if name == "stdin":
                await child.write_to(descriptor)
            else:
                await child.read_from(_STDOUT if name == "stdout" else _STDERR, descriptor)
        none = asyncio.subprocess.DEVNULL
        await child.start(argv, *(theirs.get(name, none) for name in ("stdin", "stdout", "stderr")))
    except OSError:
        child.close()
        raise
    finally:
        for descriptor in set(theirs.values()):
            os.close(descriptor)
    return child


async def _pump(socket: web.WebSocketResponse, channel: int, reader: asyncio.StreamReader) -> None:
    """Send what the command writes, until it writes no more."""
    with contextlib.suppress(OSError):  # EIO: nobody holds the terminal any more
        while chunk := await reader.read(_CHUNK_BYTES):
            await socket.send_bytes(bytes([channel]) + chunk)


async def _receive(socket: web.WebSocketResponse, child: _Child) -> None:
    """Handle what the client sends, until it disconnects."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STDIN and child.stdin is not None:
            child.stdin.write(data)
            with contextlib.suppress(
                ConnectionError
            ):  # the command reads no more; how it ended is told anyway
                await child.stdin.drain()
        elif channel == _RESIZE and child.terminal >= 0:
            _resize(child.terminal, data)
        elif channel == _CLOSE and data[:1] == bytes([_STDIN]) and child.stdin is not None:
            child.end_input()


def _resize(terminal: int, data: bytes) -> None:
    try:
        size = msgspec.json.decode(data)
        packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
    except (msgspec.DecodeError, KeyError, TypeError, struct.error):
        _logger.warning("a terminal size makes no sense", data=data[:100])
        return
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)


async def _send_status(socket: web.WebSocketResponse, status: Object) -> None:
    with contextlib.suppress(ConnectionError):
        await socket.send_bytes(bytes([_ERROR]) + msgspec.json.encode(status))


def _exit_status(code: int) -> Object:
    """Say how the command ended; by a signal counts as 128 plus its number, as shells have it."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    shown = code if code > 0 else 128 - code
    message = f"command terminated with non-zero exit code: exit status {shown}"
    causes = [{"reason": "ExitCode", "message": str(shown)}]
    return _failure("NonZeroExitCode", message) | {"details": {"causes": causes}}


def _failure(reason: str, message: str) -> Object:
    return {"metadata": {}, "status": "Failure", "reason": reason, "message": message}
