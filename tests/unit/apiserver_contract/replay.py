"""Sending the transcripts' requests to a server, in order, and comparing what it answers with what was recorded."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unit.apiserver.process import Client, Server
from unit.apiserver_contract.comparing import NOTHING, Comparison, Difference, Volatile

PLACE = Path(__file__).parent / "transcripts"
WRITES_DURING_WATCH = "04b-writes-during-watch"
#: The note of what was not sent with the administrator's credentials → as whom.
USERS = {
    "no credentials are anonymous: forbidden": None,
    "a known user without rights": "system:kube-scheduler",
}
#: Watches during which the writes of 04b ran.
_WATCHES_WITH_WRITES = (
    "watch from the list's version",
    "watch with a field selector: leaving it is DELETED, entering it ADDED",
)
#: How long controllers may take, in all, until reads show what the recorded ones did.
_PATIENCE_SECONDS = 40.0


@dataclass(frozen=True)
class Line:
    """One line of a transcript: a request and what a real kube-apiserver answered."""

    file: str
    number: int
    told: dict[str, Any]

    @property
    def id(self) -> str:
        """Its name: ``05-core:7``."""
        return f"{self.file}:{self.number}"

    @property
    def request(self) -> dict[str, Any]:
        """Its request."""
        found: dict[str, Any] = self.told["request"]
        return found


def read_transcripts() -> list[Line]:
    """Every line of every transcript, in the order of files and lines."""
    return [
        Line(path.stem, number, json.loads(text))
        for path in sorted(PLACE.glob("*.jsonl"))
        for number, text in enumerate(path.read_text().splitlines(), 1)
    ]


class Replay:
    """Replays transcripts on one server.

    Args:
        server: It, fresh.
        lines: All lines.
        may_differ: Which differences are none.
    """

    def __init__(
        self, server: Server, lines: list[Line], may_differ: Callable[[Line, Difference], bool]
    ) -> None:
        self._server = server
        self._may_differ = may_differ
        self._patience_seconds = _PATIENCE_SECONDS
        self._lines = lines
        self._volatile = Volatile()

    def run(self) -> dict[str, list[Difference]]:
        """Replay all, each line once where it was recorded; the differences of each by its id."""
        found: dict[str, list[Difference]] = {}
        during = [line for line in self._lines if line.file == WRITES_DURING_WATCH]
        for line in self._lines:
            if line.file == WRITES_DURING_WATCH:
                continue  # they run while the watches of 04 are open
            if "stream" not in line.told:
                found[line.id] = self._ask(line)
                continue
            note = line.told["note"]
            writes = during if note in _WATCHES_WITH_WRITES else []
            found[line.id] = self._watch(line, writes, found, kept=note == _WATCHES_WITH_WRITES[-1])
        return found

    def _client(self, line: Line) -> Client:
        if line.told["note"] not in USERS:
            return self._server.client()
        user = USERS[line.told["note"]]
        return self._server.client(self._server.tokens.ensure_identity(user) if user else "")

    def _send(self, client: Client, line: Line) -> Any:
        request = line.request
        body = self._volatile.body(request["body"]) if "body" in request else None
        return client.send(
            request["method"],
            self._volatile.translate(request["path"]),
            json.dumps(body).encode() if body is not None else None,
            kind=request.get("contentType", ""),
            accept=request["accept"],
        )

    def _ask(self, line: Line) -> list[Difference]:
        """One request; a read is repeated until the controllers have done what the recorded ones had."""
        client = self._client(line)
        begun = time.monotonic()
        deadline = begun + (self._patience_seconds if line.request["method"] == "GET" else 0)
        try:
            while True:
                before = self._volatile
                self._volatile = before.copy()
                got = self._send(client, line)
                found = list(self._compare(line, got, got.read()))
                if not any(not self._may_differ(line, difference) for difference in found):
                    return found
                if time.monotonic() > deadline:
                    return found
                self._volatile = before
                time.sleep(0.1)
        finally:
            client.close()
            self._patience_seconds = max(0.0, self._patience_seconds - (time.monotonic() - begun))

    def _compare(self, line: Line, got: Any, raw: bytes) -> Iterator[Difference]:
        told = line.told
        yield from _head(told, got)
        if "responseText" in told:
            if raw.decode() != told["responseText"]:
                yield Difference("text", told["responseText"], raw.decode())
            return
        comparison = Comparison(self._volatile, unordered=line.file.startswith("01-"))
        yield from comparison.differences(told["response"], json.loads(raw))

    def _watch(
        self, line: Line, writes: list[Line], found: dict[str, list[Difference]], *, kept: bool
    ) -> list[Difference]:
        """A watch, with writes while it is open: every event in order, and none more.

        The writes ran once for each such watch; only what the last run was answered is ``kept`` in the transcript.
        """
        client = self._client(line)
        recorded = line.told["stream"]
        try:
            got = self._send(client, line)
            differences = list(_head(line.told, got))
            for write in writes:
                answered = self._write(write, compare=kept)
                if kept:
                    found[write.id] = answered
            # Not until its timeoutSeconds are over, where nothing is written any more.
            texts = [got.readline() for _ in recorded] if writes else got.read().splitlines()
            given = [json.loads(text) for text in texts if text]
        finally:
            client.close()
        return differences + list(Comparison(self._volatile).differences(recorded, given, "stream"))

    def _write(self, line: Line, *, compare: bool) -> list[Difference]:
        client = self._client(line)
        try:
            got = self._send(client, line)
            raw = got.read()
        finally:
            client.close()
        return list(self._compare(line, got, raw)) if compare else list(_head(line.told, got))


def _head(told: dict[str, Any], got: Any) -> Iterator[Difference]:
    """Status, Content-Type and warning."""
    for name, recorded, given in (
        ("status", told["status"], got.status),
        ("contentType", told["contentType"], got.headers.get("Content-Type", NOTHING)),
        ("warning", told.get("warning") or NOTHING, got.headers.get("Warning") or NOTHING),
    ):
        if recorded != given:
            yield Difference(f"({name})", recorded, given)
