"""Watches over HTTP: turns a resource's log into lines of an answer, filtered and in the form asked for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aiohttp import web

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.http_requests import View
from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.selectors import Selector
from fast_playground.apiserver.status import ApiError, too_large_version
from fast_playground.apiserver.storage import Bucket, Record, Store, encode
from fast_playground.apiserver.tables import partial_metadata, table
from fast_playground.apiserver.watch import Event, Follower, line

#: How long one write to a client may take before it is cut off.
WRITE_SECONDS = 20.0
_BOOKMARK_SECONDS = 60.0
_TIMEOUT_SECONDS = (1800, 3600)
_CHUNK_BYTES = 256 * 1024
#: With many watchers, each collects what comes in this time (together at most the second), to write it at once.
_GATHER_SECONDS_PER_WATCHER, _GATHER_SECONDS = 0.0002, 0.04


@functools.lru_cache(maxsize=1024)
def _read(record: Record) -> Object:
    """Decode a state once for all watchers; the result must not be changed."""
    return record.decode()


@dataclass
class Watch:
    """What a client follows.

    Attributes:
        kind: Of what.
        namespace: Where; None: everywhere.
        selector: Which objects.
        view: In which form.
        version: Where to begin; None: with the objects there are.
        bookmarks: Whether to tell the newest version from time to time.
        initial: Whether to tell when the objects there are have all been sent.
        timeout_seconds: When to end; 0: in half an hour or later.
        header: Whether a table's columns are still to be told.
    """

    kind: Kind
    namespace: str | None
    selector: Selector
    view: View
    version: int | None = None
    bookmarks: bool = False
    initial: bool = False
    timeout_seconds: int = 0
    header: bool = True

    @property
    def plain(self) -> bool:
        """Whether every event goes out as it is."""
        return not (self.namespace or self.selector or self.view.form)

    def lines(self, events: Iterable[Event]) -> Iterator[bytes]:
        """Make the lines for events. An object that enters or leaves the selection is ADDED or DELETED."""
        prefix = f"{self.namespace}/" if self.namespace else ""
        for event in events:
            if not event.key.startswith(prefix):
                continue
            kind, record = event.type, event.record
            if self.selector:
                before = event.old is not None and self.selector.matches(_read(event.old))
                after = kind != "DELETED" and self.selector.matches(_read(record))
                if not (before or after):
                    continue
                if before != after:
                    kind = "ADDED" if after else "DELETED"
                    if kind == "DELETED" and event.type != "DELETED":
                        assert event.old is not None
                        record = _aged(event.old, record.version)
            yield self.line(kind, record)

    def line(self, kind: str, record: Record) -> bytes:
        """Make one line."""
        if not self.view.form:
            return line(kind, record.raw, self.kind.prefix)
        obj = self.kind.whole(_read(record))
        shown = partial_metadata(obj)
        if self.view.form == "Table":
            meta = {"resourceVersion": str(record.version)}
            shown = table(self.kind, [obj], meta, self.view.include, header=self.header)
            self.header = False
        return encode({"type": kind, "object": shown}) + b"\n"

    def bookmark(self, version: int, *, initial: bool) -> bytes:
        """Make a line that only tells the version."""
        meta: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj = self.kind.whole({"metadata": meta})
        if self.view.form == "Table":
            rows = {"rows": [{"cells": [], "object": partial_metadata(obj)}]}
            obj = table(self.kind, [], {"resourceVersion": str(version)}, "None", header=self.header) | rows
        return encode({"type": "BOOKMARK", "object": obj}) + b"\n"


def _aged(record: Record, version: int) -> Record:
    """The same state under a later version: an object that left the selection, as it last matched."""
    obj = record.decode()
    obj["metadata"]["resourceVersion"] = str(version)
    return Record(version, encode(obj))


async def stream(request: web.Request, store: Store, watch: Watch) -> web.StreamResponse:
    """Serve a watch until its time is over, the client goes, is too slow, or the kind is no longer served."""
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
    )
    response.enable_chunked_encoding()
    bucket = store.bucket(watch.kind.storage)
    follower = Follower([bucket.log])
    timeout = watch.timeout_seconds or random.randint(*_TIMEOUT_SECONDS)
    try:
        await response.prepare(request)
        async with asyncio.timeout(timeout):
            await _run(response, store, bucket, watch, follower)
    except ApiError as error:
        await _send(response, [encode({"type": "ERROR", "object": error.to_status()}) + b"\n"])
    except _TooSlow:
        if request.transport is not None:
            request.transport.abort()
        return response
    except TimeoutError:
        pass
    except (ConnectionError, OSError):
        return response
    finally:
        follower.close()
    with contextlib.suppress(ConnectionError, OSError):
        await response.write_eof()
    return response


class _TooSlow(Exception):
    """The client does not read what it is sent."""


async def _run(
    response: web.StreamResponse, store: Store, bucket: Bucket, watch: Watch, follower: Follower
) -> None:
    loop = asyncio.get_running_loop()
    if watch.version is None:
        position = store.version
        prefix = f"{watch.namespace}/" if watch.namespace else ""
        records = [record for _, record in bucket.scan(prefix, "")]
        fitting = (r for r in records if not watch.selector or watch.selector.matches(_read(r)))
        await _send(response, (watch.line("ADDED", record) for record in fitting))
        if watch.initial:
            await _send(response, [watch.bookmark(position, initial=True)])
    else:
        position = watch.version
        if position > store.version:
            raise too_large_version(position, store.version)
        bucket.log.since(position)  # a version that is too old is refused at once
    told = loop.time()
    while True:
        newest = bucket.log.newest
        if newest > position:
            if watch.plain:
                lines: Iterable[bytes] = [bucket.log.render(position, watch.kind.prefix)]
            else:
                lines = watch.lines(bucket.log.since(position))
            position = newest
            await _send(response, lines)
        if bucket.log.closed:  # only now: the last events tell of the deletion
            return
        gather = min(_GATHER_SECONDS, bucket.log.watchers * _GATHER_SECONDS_PER_WATCHER)
        await asyncio.sleep(gather)
        if bucket.log.newest <= position:
            await _sleep(follower, told + _BOOKMARK_SECONDS - loop.time() if watch.bookmarks else None)
        if watch.bookmarks and loop.time() - told >= _BOOKMARK_SECONDS and bucket.log.newest <= position:
            told, position = loop.time(), store.version
            await _send(response, [watch.bookmark(position, initial=False)])


async def _sleep(follower: Follower, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await follower.moved()


async def _send(response: web.StreamResponse, lines: Iterable[bytes]) -> None:
    """Write lines in pieces of some size."""
    pieces: list[bytes] = []
    size = 0
    for text in lines:
        pieces.append(text)
        size += len(text)
        if size >= _CHUNK_BYTES:
            await _write(response, b"".join(pieces))
            pieces, size = [], 0
    if size:
        await _write(response, b"".join(pieces))


async def _write(response: web.StreamResponse, data: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(data)
    except TimeoutError as error:
        raise _TooSlow from error
