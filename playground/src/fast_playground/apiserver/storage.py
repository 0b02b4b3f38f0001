"""Where objects live: SQLite on disk, a copy in memory for reading, one writer that commits in groups.

Knows resources only as strings and objects only as JSON. Nothing is seen by readers or watchers, and no writer is told
of success, before the commit is on disk (WAL, ``synchronous=FULL``): kill -9 loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.status import ApiError, expired
from fast_playground.apiserver.watch import Event, EventLog

T = TypeVar("T")
_AFTER_ALL_KEYS = "\U0010ffff"
log = structlog.get_logger()
encode = msgspec.json.Encoder().encode
decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (resource, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (id INTEGER PRIMARY KEY CHECK (id = 0), newest INTEGER NOT NULL);
INSERT OR IGNORE INTO version VALUES (0, 0);
"""


class Record:
    """One state of one object: its version and its JSON without ``kind`` and ``apiVersion``. Never changes."""

    __slots__ = ("raw", "version")

    def __init__(self, version: int, raw: bytes) -> None:
        self.version = version
        self.raw = raw

    def decode(self) -> Object:
        """Make a dict that belongs to the caller."""
        made: Object = decode(self.raw)
        return made


class Bucket:
    """The objects of one resource in memory, in the order of their keys, and their latest changes."""

    def __init__(self, version: int) -> None:
        self.records: dict[str, Record] = {}
        self.keys: list[str] = []
        self.log = EventLog(version)

    def set(self, key: str, record: Record | None) -> None:
        """Put a committed state in place (None: gone)."""
        if record is not None:
            if key not in self.records:
                insort(self.keys, key)
            self.records[key] = record
        elif self.records.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def scan(self, prefix: str, start: str, version: int | None = None) -> Iterator[tuple[str, Record]]:
        """Go through the objects whose keys begin with ``prefix`` and are not below ``start``, in order.

        Args:
            prefix: ``namespace/``, or empty for all.
            start: Where to begin; for pages.
            version: Show the state of then; None: of now.

        Raises:
            ApiError: 410 if that version is no longer known.
        """
        past = {} if version is None else self._undo(version)
        keys = self.keys
        if revived := [key for key, record in past.items() if record is not None and key not in self.records]:
            keys = sorted(self.keys + revived)
        for index in range(bisect_left(keys, max(prefix, start)), len(keys)):
            key = keys[index]
            if not key.startswith(prefix):
                return
            record = past[key] if key in past else self.records[key]
            if record is not None:
                yield key, record

    def count(self, prefix: str, start: str, version: int | None = None) -> int:
        """How many objects ``scan`` would go through, without doing so."""
        past = {} if version is None else self._undo(version)
        first = bisect_left(self.keys, max(prefix, start))
        count = bisect_left(self.keys, prefix + _AFTER_ALL_KEYS) - first
        for key, record in past.items():
            if key.startswith(prefix) and key >= start:
                count += (record is not None) - (key in self.records)
        return count

    def _undo(self, version: int) -> dict[str, Record | None]:
        """Give the state at ``version`` of the objects that changed since."""
        if version < self.log.oldest:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new"
                " list without the continue parameter."
            )
        past: dict[str, Record | None] = {}
        for event in self.log.since(version):
            past.setdefault(event.key, event.old)
        return past


class Transaction:
    """What one write sees and changes. Its reads include the writes before it that are not yet on disk."""

    def __init__(self, store: Store, pending: dict[tuple[str, str], Record | None], version: int) -> None:
        self._store = store
        self._pending = pending
        self._own: dict[tuple[str, str], Record | None] = {}
        self.events: list[tuple[str, Event]] = []
        self.version = version

    def get(self, resource: str, key: str) -> Record | None:
        """Read one object's newest state."""
        for layer in (self._own, self._pending):
            if (resource, key) in layer:
                return layer[resource, key]
        return self._store.bucket(resource).records.get(key)

    def keys(self, resource: str, prefix: str = "") -> list[str]:
        """List the keys of the objects that exist, in no order."""
        found = set(self._store.bucket(resource).records)
        for layer in (self._pending, self._own):
            for (of, key), record in layer.items():
                if of == resource:
                    (found.discard if record is None else found.add)(key)
        return [key for key in found if key.startswith(prefix)]

    def put(self, resource: str, key: str, obj: Object) -> Record:
        """Store ``obj`` and set its resourceVersion."""
        old = self.get(resource, key)
        record = self._stamp(obj)
        self._own[resource, key] = record
        self.events.append((resource, Event("MODIFIED" if old else "ADDED", key, record, old)))
        return record

    def delete(self, resource: str, key: str, obj: Object) -> None:
        """Remove an object; watchers see it as ``obj``, with the version of its removal."""
        old = self.get(resource, key)
        version = obj["metadata"].get("resourceVersion")
        self._own[resource, key] = None
        self.events.append((resource, Event("DELETED", key, self._stamp(obj), old)))
        obj["metadata"]["resourceVersion"] = version

    def _stamp(self, obj: Object) -> Record:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        return Record(self.version, encode({k: v for k, v in obj.items() if k not in ("kind", "apiVersion")}))

    def accept(self) -> None:
        """Let the writes after this one see what it did."""
        self._pending.update(self._own)


class Store:
    """All objects.

    Args:
        path: The database file; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Held while a thread uses the connection: run() may be cancelled, its thread goes on, and SQLite crashes if
        # a connection is closed in use.
        self._in_use = threading.Lock()
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._buckets: dict[str, Bucket] = {}
        self._queue: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any], bool]] = []
        self._wake = asyncio.Event()
        (self.version,) = self._db.execute("SELECT newest FROM version").fetchone()
        rows = self._db.execute("SELECT resource, key, version, value FROM objects ORDER BY resource, key")
        for resource, key, version, value in rows:
            bucket = self.bucket(resource)
            bucket.records[key] = Record(version, value)
            bucket.keys.append(key)

    def bucket(self, resource: str) -> Bucket:
        """The objects of a resource; empty if it has none."""
        if (found := self._buckets.get(resource)) is None:
            found = self._buckets[resource] = Bucket(self.version)
        return found

    def retire(self, resource: str) -> None:
        """End the watches of a resource and forget its past; it has no objects left."""
        if bucket := self._buckets.pop(resource, None):
            bucket.log.close()

    def end_watches(self) -> None:
        """End all watches."""
        for bucket in self._buckets.values():
            bucket.log.close()

    async def write(self, change: Callable[[Transaction], T], *, dry_run: bool = False) -> T:
        """Run ``change`` alone against the newest state, and return once what it did is on disk.

        Whatever it raises is raised here, and nothing it did is kept. It must not block.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((change, done, dry_run))
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Write what is asked for, until cancelled. Whatever waits meanwhile becomes the next group."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            queue, self._queue = self._queue, []
            if queue:
                await self._commit(queue)

    async def _commit(
        self, queue: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any], bool]]
    ) -> None:
        pending: dict[tuple[str, str], Record | None] = {}
        version, events, results = self.version, [], []
        for change, done, dry_run in queue:
            transaction = Transaction(self, pending, version)
            try:
                result = change(transaction)
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
                continue
            if not dry_run:
                transaction.accept()
                version = transaction.version
                events += transaction.events
            results.append((done, result))
        try:
            if events:
                await asyncio.to_thread(self._persist, pending, version)
        except sqlite3.Error as error:
            log.exception("cannot store")
            failure = ApiError(500, "InternalError", f"Internal error occurred: cannot store: {error}")
            for done, _ in results:
                if not done.done():
                    done.set_exception(failure)
            return
        self._publish(events, version)
        for done, result in results:
            if not done.done():
                done.set_result(result)

    def _persist(self, pending: dict[tuple[str, str], Record | None], version: int) -> None:
        puts = [(res, key, rec.version, rec.raw) for (res, key), rec in pending.items() if rec is not None]
        gone = [target for target, record in pending.items() if record is None]
        with self._in_use:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", puts)
                self._db.executemany("DELETE FROM objects WHERE resource = ? AND key = ?", gone)
                self._db.execute("UPDATE version SET newest = ?", (version,))
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _publish(self, events: list[tuple[str, Event]], version: int) -> None:
        self.version = version
        touched: dict[int, EventLog] = {}
        for resource, event in events:
            bucket = self.bucket(resource)
            bucket.set(event.key, None if event.type == "DELETED" else event.record)
            bucket.log.append(event)
            touched[id(bucket.log)] = bucket.log
        for changed in touched.values():
            changed.wake()

    def close(self) -> None:
        """Close the file, after a write under way. Call after ``run`` has ended."""
        with self._in_use:
            self._db.close()
