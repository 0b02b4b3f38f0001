"""An API server that misbehaves on purpose: every fault of a watch that a real one, a proxy or the network can show.

It holds objects like a (very small) API server; each watch that is opened plays the next :class:`Fault` of its
script, the last one for ever. Its contract is tests/unit/kube/test_nasty_server.py.
"""

from __future__ import annotations

import asyncio
import enum
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

COLLECTION = "/apis/sample.fast.io/v1alpha1/ipendpoints"


class Fault(enum.Enum):
    """How one watch goes."""

    NONE = "stays open and tells what happens"
    CLOSE = "one event and a bookmark, then a clean end"
    CLOSE_AT_ONCE = "a clean end without an event"
    RESET = "one event and half of another, then a reset"
    EXPIRED_EVENT = "an ERROR event of 410"
    EXPIRED_STATUS = "HTTP status 410"
    BIG = "an event of 300 KB, then a clean end"
    GARBAGE = "a line that is no JSON"
    UNREADABLE_OBJECT = "an event whose object does not fit its type, and a good one, then a clean end"
    INTERNAL_ERROR = "HTTP status 500"
    THROTTLED = "HTTP status 429 with Retry-After"
    UNAUTHORIZED = "HTTP status 401"
    HALF_OPEN = "one event, then silence for ever"


@dataclass(slots=True)
class Seen:
    """A request the server got."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: str = ""  # the common name of its certificate

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and self.path == COLLECTION and not self.is_watch


Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class NastyServer:
    """The server; make it with :func:`nasty_server`.

    Attributes:
        script: The faults of the watches, in order.
        objects: What a list shows.
        version: The resourceVersion of now; goes up by one with each change.
        seen: Every request.
        answer: Asked before anything else; what it gives is the answer of that request, None goes on.
    """

    script: list[Fault]
    url: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int = 10
    seen: list[Seen] = field(default_factory=list)
    answer: Callable[[Seen], Answer | None] = lambda _: None
    connections: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _log: list[tuple[int, bytes]] = field(default_factory=list)
    _watches: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def lists(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.is_list]

    @property
    def watches(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.is_watch]

    def put(
        self, name: str, *, uid: str = "", padding: int = 0, silent: bool = False, spec: Any = None
    ) -> None:
        """Add or change an object; ``silent``: no watch ever tells."""
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = endpoint(name, self.version, uid=uid, padding=padding, spec=spec)
        self._tell(kind, self.objects[name], silent)

    def remove(self, name: str, *, silent: bool = False) -> None:
        """Delete an object; ``silent``: no watch ever tells."""
        self.version += 1
        gone = self.objects.pop(name)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", gone, silent)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def _tell(self, kind: str, obj: Any, silent: bool) -> None:
        if not silent:
            self._log.append((self.version, event(kind, obj)))
            self._changed.set()
            self._changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                seen = await _read_request(reader)
                seen.client = _common_name(writer)
                self.seen.append(seen)
                if not await self._answer(seen, writer):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        """Answer; False where the connection is over."""
        if (given := self.answer(seen)) is not None:
            code, body, *headers = given
            _whole(writer, code, body, headers[0] if headers else {})
            return True
        if seen.is_watch:
            fault = self.script[min(self._watches, len(self.script) - 1)]
            self._watches += 1
            return await self._watch(fault, int(seen.query["resourceVersion"]), writer)
        if seen.is_list:
            _whole(writer, 200, self.page(list(self.objects.values())))
            return True
        name = seen.path.rpartition("/")[2]
        found = self.objects.get(name)
        _whole(writer, 200, found) if found else _whole(writer, 404, status(404, "NotFound"))
        return True

    def page(self, items: Iterable[Any], continue_: str = "") -> dict[str, Any]:
        metadata = {"resourceVersion": str(self.version), **({"continue": continue_} if continue_ else {})}
        return {"kind": "IpEndpointList", "metadata": metadata, "items": list(items)}

    async def _watch(self, fault: Fault, since: int, writer: asyncio.StreamWriter) -> bool:
        statuses = {
            Fault.EXPIRED_STATUS: (410, "Expired", {}),
            Fault.INTERNAL_ERROR: (500, "InternalError", {}),
            Fault.THROTTLED: (429, "TooManyRequests", {"Retry-After": "1"}),
            Fault.UNAUTHORIZED: (401, "Unauthorized", {}),
        }
        if fault in statuses:
            code, reason, headers = statuses[fault]
            _whole(writer, code, status(code, reason), headers)
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        if fault is Fault.NONE:
            await self._tell_for_ever(since, writer)
        return await self._play(fault, writer)

    async def _play(self, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        """Play a fault that happens after the watch was opened."""
        match fault:
            case Fault.CLOSE:
                self.put("b", silent=True)
                _chunk(writer, event("ADDED", self.objects["b"]))
                self.version += 5
                _chunk(writer, bookmark(self.version))
            case Fault.RESET:
                self.put("b", silent=True)
                _chunk(writer, event("MODIFIED", self.objects["b"]) + b'{"type":"ADDED","obj')
                await writer.drain()
                await asyncio.sleep(0.05)  # so that the bytes go out before the reset
                writer.transport.abort()
                return False
            case Fault.EXPIRED_EVENT:
                _chunk(writer, event("ERROR", status(410, "Expired")))
            case Fault.BIG:
                self.put("big", padding=300_000, silent=True)
                _chunk(writer, event("ADDED", self.objects["big"]))
            case Fault.GARBAGE:
                _chunk(writer, b"<html>who am I\n")
            case Fault.UNREADABLE_OBJECT:
                self.put("odd", spec={"pool": 17}, silent=True)
                _chunk(writer, event("ADDED", self.objects["odd"]))
                self.put("good", silent=True)
                _chunk(writer, event("ADDED", self.objects["good"]))
            case Fault.HALF_OPEN:
                self.put("last", silent=True)
                _chunk(writer, event("ADDED", self.objects["last"]))
                await writer.drain()
                await asyncio.sleep(3600)
        writer.write(b"0\r\n\r\n")
        return True

    async def _tell_for_ever(self, since: int, writer: asyncio.StreamWriter) -> None:
        while True:
            changed = self._changed
            for version, line in list(self._log):
                if version > since:
                    _chunk(writer, line)
                    since = version
            await writer.drain()
            await changed.wait()


def endpoint(name: str, version: int, *, uid: str = "", padding: int = 0, spec: Any = None) -> dict[str, Any]:
    """An IpEndpoint as JSON; ``padding`` bytes of annotation make it big."""
    metadata: dict[str, Any] = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    if padding:
        metadata["annotations"] = {"padding": "x" * padding}
    return {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "IpEndpoint",
        "metadata": metadata,
        "spec": {"pool": "p"} if spec is None else spec,
    }


def event(kind: str, obj: Any) -> bytes:
    """A watch event's line."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """A bookmark's line."""
    return event("BOOKMARK", {"kind": "IpEndpoint", "metadata": {"resourceVersion": str(version)}})


def status(code: int, reason: str, message: str = "message") -> dict[str, Any]:
    """A Status object of a failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


async def _read_request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    return Seen(method, url.path, query, headers, body)


def _common_name(writer: asyncio.StreamWriter) -> str:
    certificate = writer.get_extra_info("peercert") or {}
    names = dict(pair for part in certificate.get("subject", ()) for pair in part)
    return names.get("commonName", "")


def _whole(writer: asyncio.StreamWriter, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Write an answer in one piece."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)


def _chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(content), content))


@asynccontextmanager
async def nasty_server(*script: Fault, tls: ssl.SSLContext | None = None) -> AsyncIterator[NastyServer]:
    """Run a server on a free port of the loopback; its watches play the script, the last fault for ever."""
    nasty = NastyServer(list(script) or [Fault.NONE])
    nasty.objects["a"] = endpoint("a", 9)
    connections: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(nasty.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    nasty.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield nasty
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
