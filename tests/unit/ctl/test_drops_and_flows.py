"""What ``drops`` and ``flows`` show of what the agent tells."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest
from click.testing import CliRunner

from fast.ctl.fast_ctl import main
from fast.ctl.see.filters import Filter, format_seconds, parse_seconds
from fast.ctl.see.flows_command import SampleRates

DROP = {
    "reason": "drop_spoofed_address",
    "what": "has a source address that is not the pod's",
    "direction": "from_pod",
    "pod": "default/bad",
    "source": "10.0.0.9",
    "sourcePod": "shop/victim",
    "destination": "10.0.0.2",
    "destinationPod": "shop/db",
    "destinationPort": 5432,
    "protocol": "tcp",
    "packets": 7,
    "sizeBytes": 420,
    "first": "2026-01-01T00:00:00.000Z",
    "last": "2026-01-01T00:00:01.000Z",
    "secondsAgo": 3.0,
}
USUAL = {**DROP, "reason": "drop_not_unicast", "pod": "default/good"}
EVENT = {**DROP, "time": "2026-01-01T00:00:01.234Z", "kind": "drop", "sourcePort": 1, "sizeBytes": 60}


@pytest.fixture
def agent(tmp_path):
    """An agent that gives what ``answers`` has for a path; gives the socket and ``answers``."""
    answers = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

        def address_string(self):
            return "client"

    path = tmp_path / "traffic.sock"
    with ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path, answers
        server.shutdown()


def run(path, *arguments):
    return CliRunner().invoke(main, [*arguments, "--traffic-socket", str(path)])


def drops(agent, *arguments, not_shown=0):
    path, answers = agent
    answers["/drops"] = json.dumps({"drops": [DROP, USUAL], "notShown": not_shown}).encode()
    return run(path, "drops", *arguments)


def test_drops_name_who_sent_them_and_as_whom(agent):
    found = drops(agent)
    assert found.exit_code == 0
    assert "default/bad as 10.0.0.9" in found.stdout
    assert "shop/db:5432" in found.stdout
    assert "not_unicast" not in found.stdout


def test_what_healthy_pods_cause_is_shown_if_asked_for(agent):
    assert "not_unicast" in drops(agent, "--all").stdout
    assert "not_unicast" in drops(agent, "--reason", "not_unicast").stdout


def test_drops_that_are_in_no_group_are_told(agent):
    assert "41 further drops" in drops(agent, not_shown=41).stderr


def test_an_agent_that_is_not_there_is_said_with_what_to_do(tmp_path):
    found = run(tmp_path / "nosuch.sock", "drops")
    assert found.exit_code == 1
    assert "does it run on" in found.stderr
    assert "--node NODE" in found.stderr


def test_flows_without_follow_show_the_kept_drops_line_by_line(agent):
    path, answers = agent
    lines = [EVENT, {**EVENT, "destinationPort": 1}]
    answers["/events?kinds=drop"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    found = run(path, "flows", "--port", "5432")
    assert found.stdout.count("\n") == 1
    assert "default/bad as 10.0.0.9:1 → shop/db:5432  tcp  60 B  spoofed_address" in found.stdout


def test_lost_events_are_told_whatever_the_filter(agent):
    path, answers = agent
    lines = [{"kind": "lost", "events": 12}, EVENT]
    answers["/events?kinds=drop,flow,sample&follow=1"] = b"".join(
        json.dumps(line).encode() + b"\n" for line in lines
    )
    found = run(path, "flows", "-f", "--pod", "nobody")
    assert found.stdout == "lost   12 events are not shown: there were too many at once\n"


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Filter(), True),
        (Filter(pods=("bad",)), True),
        (Filter(pods=("shop/db", "other")), True),
        (Filter(pods=("db",)), False),
        (Filter(pods=("db",), namespace="shop"), True),
        (Filter(namespace="shop"), True),
        (Filter(namespace="sho"), False),
        (Filter(addresses=("10.0.0.2",)), True),
        (Filter(addresses=("10.0.0.3",)), False),
        (Filter(port=5432), True),
        (Filter(port=80), False),
        (Filter(reason="spoofed_address"), True),
        (Filter(reason="drop_spoofed_address", port=80), False),
    ],
)
def test_a_filter_shows_what_matches_all_of_it(wanted, shown):
    assert wanted.matches(DROP) is shown


def test_durations_are_read_and_spelled():
    assert [parse_seconds(text) for text in ("30s", "10m", "2h")] == [30, 600, 7200]
    assert [format_seconds(seconds) for seconds in (0.4, 42, 600, 7300)] == ["0.4s", "42s", "10m", "2h"]


def test_samples_become_rates_of_whole_windows():
    now = [0.0]
    rates = SampleRates(lambda: now[0])
    sample = {**EVENT, "kind": "sample", "reason": "forward_tunnel", "sizeBytes": 1000}
    assert [rates.add(sample) for _ in range(9)] == [[]] * 9
    now[0] = 2.0
    (rate,) = rates.add(sample)
    assert (rate["packetsPerSecond"], rate["bitsPerSecond"]) == (5 * 1024, 5 * 1024 * 8000)
    assert (rate["from"], rate["to"]) == ("shop/victim", "shop/db:5432")
