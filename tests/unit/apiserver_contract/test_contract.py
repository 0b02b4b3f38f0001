"""The server answers as a real kube-apiserver does: every request of every transcript, in order, on a fresh server."""

import time

import pytest

from unit.apiserver.process import running
from unit.apiserver_contract.allowances import ALLOWANCES, Allowance
from unit.apiserver_contract.comparing import Comparison, Difference, Volatile
from unit.apiserver_contract.replay import PLACE, Line, Replay, read_transcripts

_LINES = read_transcripts()
#: As recorded: a transcript that was lost or cut short must not go unnoticed.
_COUNTS = {
    "01-discovery": 16,
    "02-create-get-update": 34,
    "03-delete": 16,
    "04-list-watch": 25,
    "04b-writes-during-watch": 5,
    "05-core": 28,
}


class Outcome:
    """What came of the replay."""

    def __init__(self, found: dict[str, list[Difference]], seconds: float) -> None:
        self.found = found
        self.seconds = seconds
        self.used: set[Allowance] = set()

    def failures(self, line: Line) -> list[Difference]:
        """What differs on a line and may not."""
        failed = []
        for difference in self.found[line.id]:
            covering = [allowance for allowance in ALLOWANCES if allowance.covers(line, difference)]
            self.used.update(covering)
            if not covering:
                failed.append(difference)
        return failed


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    begun = time.monotonic()
    with running(tmp_path_factory.mktemp("contract"), "--no-scheduler") as server:
        found = Replay(server, _LINES, _allowed).run()
    return Outcome(found, time.monotonic() - begun)


def _allowed(line: Line, difference: Difference) -> bool:
    return any(allowance.covers(line, difference) for allowance in ALLOWANCES)


@pytest.mark.parametrize("line", _LINES, ids=lambda line: line.id)
def test_a_request_is_answered_as_by_a_real_kube_apiserver(outcome: Outcome, line: Line) -> None:
    failed = outcome.failures(line)
    shown = "\n".join(map(str, failed))
    assert not failed, f"{line.told['note']} ({line.request['method']} {line.request['path']}):\n{shown}"


def test_no_transcript_is_skipped_and_the_passed_lines_are_counted(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = {path.stem: len(path.read_text().splitlines()) for path in PLACE.glob("*.jsonl")}
    replayed = {name: sum(id_.startswith(f"{name}:") for id_ in outcome.found) for name in recorded}
    passed = sum(not outcome.failures(line) for line in _LINES)
    with capsys.disabled():
        print(f"\ncontract: {passed} of {len(_LINES)} lines passed in {outcome.seconds:.1f} s")
    assert replayed == recorded == _COUNTS
    assert passed == len(_LINES)


def test_every_allowance_is_needed_and_has_a_reason(outcome: Outcome) -> None:
    for line in _LINES:
        outcome.failures(line)
    assert [a for a in ALLOWANCES if a not in outcome.used or not a.reason] == []


@pytest.mark.parametrize(
    ("recorded", "given"),
    [
        ({"a": 1}, {}),
        ({}, {"a": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"uid": "0000-aaaa"}, {"uid": None}),
        ([{"uid": "0000-aaaa"}, {"uid": "0000-bbbb"}], [{"uid": "1111-aaaa"}, {"uid": "1111-aaaa"}]),
        ([{"uid": "0000-aaaa"}, {"uid": "0000-aaaa"}], [{"uid": "1111-aaaa"}, {"uid": "1111-bbbb"}]),
        (
            [{"uid": "0000-aaaa", "resourceVersion": "1"}, {"uid": "0000-aaaa", "resourceVersion": "2"}],
            [{"uid": "1111-aaaa", "resourceVersion": "9"}, {"uid": "1111-aaaa", "resourceVersion": "8"}],
        ),
        (
            [{"uid": "0000-aaaa", "resourceVersion": "1"}, {"uid": "0000-aaaa", "resourceVersion": "1"}],
            [{"uid": "1111-aaaa", "resourceVersion": "8"}, {"uid": "1111-aaaa", "resourceVersion": "9"}],
        ),
        ({"lastTransitionTime": "2026-01-01T00:00:00Z"}, {"lastTransitionTime": "yesterday"}),
    ],
)
def test_the_comparison_finds_a_difference(recorded: object, given: object) -> None:
    assert list(Comparison(Volatile()).differences(recorded, given))


def test_the_comparison_takes_other_uids_versions_and_times_for_the_same() -> None:
    recorded = {
        "uid": "0000-aaaa",
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "note": "0000-aaaa is it",
    }
    given = {
        "uid": "1111-bbbb",
        "resourceVersion": "77",
        "creationTimestamp": "2027-01-01T00:00:00Z",
        "note": "1111-bbbb is it",
    }
    volatile = Volatile()
    assert not list(Comparison(volatile).differences({"uid": "0000-aaaa"}, {"uid": "1111-bbbb"}))
    assert not list(Comparison(volatile).differences(recorded, given))
