"""Which step of a trace is the cause, how the trace ends, and how netfilter's drops are read."""

import pytest

from fast.ctl.see.nft_trace import dropping_rules
from fast.ctl.see.trace_report import BAD, NODE, OK, UNKNOWN, Report
from fast.ctl.see.trace_steps import End, drops_between
from fast.net import parse_address


def report(*steps, delivered=None):
    made = Report("a", "b", delivered=delivered)
    for name, state in steps:
        made.add(name, state, f"text of {name}", f"remedy of {name}")
    return made


@pytest.mark.parametrize(
    ("made", "cause", "status"),
    [
        (report(("pod", OK)), None, 0),
        (report(("pod", OK), ("record", BAD), ("program", BAD)), "record", 1),
        (report((NODE, BAD), ("program", BAD)), "program", 1),
        (report((NODE, BAD), ("program", OK)), NODE, 1),
        (report((NODE, BAD), ("probe", OK), delivered=True), None, 0),
        (report((NODE, BAD), ("program", BAD), delivered=True), "program", 1),
        (report(("program", OK), delivered=False), None, 3),
        (report(("program", UNKNOWN)), None, 3),
    ],
)
def test_the_first_bad_step_is_the_cause_and_a_nodes_own_problems_come_last(made, cause, status):
    assert (made.cause.name if made.cause else None, made.exit_status) == (cause, status)


def test_the_last_lines_are_cause_and_remedy():
    lines = report(("pod", OK), ("record", BAD)).as_text().splitlines()
    assert lines[-2:] == ["cause: text of record", "do:    remedy of record"]


def test_a_cause_that_is_not_found_is_said_with_what_to_do_next():
    lines = report(("program", OK), delivered=False).as_text().splitlines()
    assert lines[-2].startswith("cause: not found")
    assert lines[-1].startswith("do: ")


def test_rules_policies_and_rejects_that_dropped_are_found_once_each():
    said = """
trace id 1c inet fast_trace pre packet: iif "eth0" ip saddr 192.168.77.1 ip daddr 192.168.77.2
trace id 1c inet fast_trace pre rule ip saddr 192.168.77.1 udp dport 8472 meta nftrace set 1 (verdict continue)
trace id 1c inet fast_trace pre verdict continue
trace id 1c inet fw input rule udp dport 8472 drop comment "corp hardening" (verdict drop)
trace id 1d inet fw input rule udp dport 8472 drop comment "corp hardening" (verdict drop)
trace id 1e ip filter FORWARD verdict continue
trace id 1e ip filter FORWARD policy drop
trace id 1f ip filter INPUT rule ip saddr 10.0.0.1 counter packets 1 bytes 84 reject (verdict drop)
trace id 20 inet fast forward policy accept
""".splitlines()
    assert dropping_rules(said) == [
        'inet fw input rule udp dport 8472 drop comment "corp hardening"',
        "ip filter FORWARD policy drop",
        "ip filter INPUT rule ip saddr 10.0.0.1 counter packets 1 bytes 84 reject",
    ]


def test_only_the_newest_drops_between_the_two_ends_count():
    one, other = End("a", parse_address("10.0.0.1")), End("b", parse_address("10.0.0.2"))

    def row(source, destination, seconds):
        return {"source": source, "destination": destination, "secondsAgo": seconds}

    rows = [
        row("10.0.0.1", "10.0.0.2", 8.0),
        row("10.0.0.1", "10.0.0.2", 2.0),
        row("10.0.0.2", "10.0.0.1", 1.0),
    ]
    assert drops_between(rows, one, other)["secondsAgo"] == 2.0
    assert drops_between([row("10.0.0.1", "10.0.0.2", 30.0)], one, other) is None
