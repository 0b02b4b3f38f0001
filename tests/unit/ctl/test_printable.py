"""What the API says cannot control the terminal of who reads it: no escape, no forged line, in any output."""

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.ctl import fast_ctl
from fast.ctl.ipam.why_command import explanation_text
from fast.ctl.output import Column, format_table, print_rows
from fast.ctl.printable import printable, printable_json
from fast.ctl.see.flows_command import format_event
from fast.errors import FastError
from fast.ipam.explain.why import Explanation

HOSTILE = "x\x1b[2J\x1b]0;owned\x07\nFAKE LINE: all is well\r\u202etxt.\x9b31m"


def is_harmless(text):
    return all(character.isprintable() or character == "\n" for character in text)


def shown(text):
    assert is_harmless(text), repr(text)
    assert not any(line.startswith("FAKE LINE") for line in text.splitlines())
    return text


@given(st.text(st.characters()))
def test_a_value_stays_one_printable_line_and_what_is_printable_stays_as_it_is(text):
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_a_table_has_as_many_lines_as_rows():
    rows = [{"pod": HOSTILE}, {"pod": "fine"}]
    assert len(shown(format_table(rows, [Column("POD", "pod")])).splitlines()) == 3


@pytest.mark.parametrize("output", ["table", "wide", "name", "json", "yaml"])
def test_every_form_of_output_is_harmless(output, capsys):
    print_rows([{"pod": HOSTILE}], [Column("POD", "pod")], output, nothing="")
    assert is_harmless(shown(capsys.readouterr().out))


@given(st.recursive(st.text(st.characters(blacklist_categories=("Cs",))), st.lists))
def test_json_means_the_same_when_it_is_made_printable(value):
    text = json.dumps(value, ensure_ascii=False)
    assert json.loads(printable_json(text)) == value
    assert is_harmless(printable_json(text))


def test_an_explanation_is_harmless():
    pod = PodRef("default", HOSTILE, HOSTILE)
    spec = IpEndpointSpec(pool=HOSTILE, node=HOSTILE, container_id=HOSTILE, interface=HOSTILE, pod=pod)
    record = IpEndpoint(metadata=ObjectMeta(name="10.244.9.9"), spec=spec)
    found = Explanation(
        "10.244.9.9", HOSTILE, record=record, pools=(HOSTILE,), verdicts=(), history=((HOSTILE, HOSTILE),)
    )
    shown(explanation_text(found))


def test_an_event_of_traffic_is_harmless():
    event = {
        "kind": "drop",
        "time": "2026-11-28T12:00:00.000Z",
        "source": "10.244.0.1",
        "sourcePod": HOSTILE,
        "destination": "10.244.0.2",
        "destinationPod": HOSTILE,
        "protocol": "tcp",
        "sizeBytes": 1,
        "reason": "drop_unknown",
        "what": HOSTILE,
    }
    text = click.unstyle(format_event(event))
    assert len(shown(text).splitlines()) == 1


def test_an_error_is_harmless(monkeypatch):
    @click.command()
    def fail():
        raise FastError(HOSTILE)

    monkeypatch.setattr(fast_ctl.LazyGroup, "get_command", lambda *_: fail)
    done = CliRunner().invoke(fast_ctl.main, ["local-ips"])
    assert done.exit_code == 1
    shown(done.output)
