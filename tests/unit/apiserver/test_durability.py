"""kill -9 in a write storm: what was acknowledged is there after a restart, nothing is half written, versions rise."""

import http.client
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fast_playground.apiserver.storage import Store
from unit.apiserver.process import Client, Server, serve

_KILLS = 20
_WRITERS = 4
_PATH = "/api/v1/namespaces/default/configmaps"
#: One write fills several pages of the database, so that half of one would show.
_FILLING = "x" * 10_000
#: Processes are forked from one that has imported the server: starting Python 20 times would take most of the time.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["fast_playground.apiserver.fast_apiserver"])


class ForkedServer(Server):
    """The server's command in a process that need not import it first."""

    def start(self) -> None:
        flags = ["--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}", "--no-scheduler"]
        self.process = _FORKS.Process(target=serve, args=(flags,))
        self.process.start()
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError, http.client.HTTPException):
                if self.client().get("/readyz").status == 200:
                    return
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGKILL) -> None:
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        self.process.join(30)


@contextmanager
def forked(place: Path) -> Iterator[ForkedServer]:
    server = ForkedServer(place)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def config_map(name: str, number: int, **labels: str) -> dict[str, Any]:
    """An object that tells whether it is whole: both fields hold the same number."""
    data = {"first": str(number), "filling": _FILLING, "last": str(number)}
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}
    return head | {"data": data}


class Writer:
    """Creates, replaces and deletes objects of its own until the server is gone.

    Attributes:
        known: What it was acknowledged: name → number; None: deleted.
        doubtful: What it had asked for when the server died: name → number.
        newest: The highest version it was told.
        count: How many writes were acknowledged.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self.known: dict[str, int | None] = {}
        self.doubtful: dict[str, int | None] = {}
        self.newest = 0
        self.count = 0

    def run(self, client: Client) -> None:
        """Write until the connection breaks."""
        self.doubtful = {}
        try:
            while True:
                self._write(client)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            client.close()

    def _write(self, client: Client) -> None:
        self._number += 1
        name = f"{self._name}-{self._number % 7}"
        pair = f"{self._name}-pair"
        if self._number % 10 == 0:  # two objects in one step: both go, or none
            self._put(client, f"{pair}-a", pair=self._name)
            self._put(client, f"{pair}-b", pair=self._name)
            self.doubtful = {f"{pair}-a": None, f"{pair}-b": None}
            self._done(client.delete(f"{_PATH}?labelSelector=pair%3D{self._name}"))
        elif self._number % 5 == 0 and self.known.get(name) is not None:
            self.doubtful = {name: None}
            self._done(client.delete(f"{_PATH}/{name}"))
        else:
            self._put(client, name)

    def _put(self, client: Client, name: str, **labels: str) -> None:
        self.doubtful = {name: self._number}
        body = config_map(name, self._number, **labels)
        if self.known.get(name) is None:
            self._done(client.post(_PATH, body))
        else:
            self._done(client.put(f"{_PATH}/{name}", body))

    def _done(self, answer: Any) -> None:
        assert answer.status in (200, 201), answer.raw
        self.newest = max(self.newest, int(answer.body.get("metadata", {}).get("resourceVersion") or 0))
        self.known |= self.doubtful
        self.doubtful = {}
        self.count += 1

    def check(self, found: dict[str, int]) -> None:
        """Hold what the restarted server has against what was acknowledged; then take it for known."""
        mine = {name: number for name, number in found.items() if name.startswith(f"{self._name}-")}
        expected = {name: number for name, number in self.known.items() if number is not None}
        done = {name: number for name, number in (self.known | self.doubtful).items() if number is not None}
        assert mine in (expected, done)
        self.known = dict(mine)


def storm(server: ForkedServer, writers: list[Writer]) -> None:
    """Write from all sides, and kill -9 the server in the midst of it."""
    threads = [threading.Thread(target=writer.run, args=(server.client(),)) for writer in writers]
    before = sum(writer.count for writer in writers)
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while sum(writer.count for writer in writers) < before + 25 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.03))
    server.stop()
    for thread in threads:
        thread.join(30)
    assert sum(writer.count for writer in writers) >= before + 25


def test_kill_9_in_a_write_storm_loses_nothing_acknowledged_and_leaves_no_half_write(tmp_path: Path) -> None:
    writers = [Writer(f"w{index}") for index in range(_WRITERS)]
    with forked(tmp_path) as server:
        for _ in range(_KILLS):
            storm(server, writers)
            server.start()
            client = server.client()
            listed = client.get(_PATH).body
            found = {}
            for item in listed["items"]:
                if item["metadata"]["name"].startswith("w"):
                    assert item["data"]["first"] == item["data"]["last"]
                    assert item["data"]["filling"] == _FILLING
                    found[item["metadata"]["name"]] = int(item["data"]["first"])
            for writer in writers:
                writer.check(found)
            newest = max(writer.newest for writer in writers)
            assert int(listed["metadata"]["resourceVersion"]) >= newest
            made = client.post(_PATH, config_map(f"after-{random.randrange(10**9)}", 0)).body
            assert int(made["metadata"]["resourceVersion"]) > int(listed["metadata"]["resourceVersion"])
            client.close()


def test_the_database_is_written_ahead_and_synced_in_full(tmp_path: Path) -> None:
    store = Store(tmp_path / "objects.sqlite")
    try:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    finally:
        store.close()


def test_a_terminated_server_ends_its_watches_and_keeps_everything(tmp_path: Path) -> None:
    with forked(tmp_path) as server:
        client = server.client()
        made = client.post(_PATH, config_map("kept", 1)).body
        watch = server.client().send("GET", f"{_PATH}?watch=1")
        assert watch.status == 200
        server.stop(signal.SIGTERM)
        lines = [json.loads(line) for line in watch.read().splitlines()]
        assert [line["type"] for line in lines] == ["ADDED"]
        server.start()
        assert server.client().get(f"{_PATH}/kept").body == made
