"""Listing something on several nodes at once."""

import asyncio
import json
from collections.abc import Sequence

import click
import pytest
from click.testing import CliRunner

from fast.ctl.output import Column
from fast.ctl.reach import every_node
from fast.ctl.reach.every_node import listing, remote_arguments
from fast.ctl.reach.node_runner import LocalRunner, Outcome, find_playground, run_on_nodes

COLUMNS = (Column("NAME", "name"), Column("SIZE", "size"))


@click.group("fast-ctl")
def program():
    """A program with one listing."""


@program.command()
@click.option("--big", is_flag=True)
@click.option("--from", "start", default="")
@click.argument("names", nargs=-1)
@listing(COLUMNS, nothing="Nothing.")
def things(big: bool, start: str, names: tuple[str, ...]) -> list[dict[str, object]]:
    """List things."""
    return [{"name": name, "size": 9 if big else 1} for name in names]


@pytest.fixture
def outcomes(monkeypatch):
    """What the nodes answer, and what they were asked."""
    answers: dict[str, Outcome] = {}
    asked = []

    def run(arguments, nodes, via, kubeconfig):
        asked.append(list(arguments))
        return {node: answers[node] for node in nodes or sorted(answers)}

    monkeypatch.setattr(every_node, "run_everywhere", run)
    answers["asked"] = asked
    yield answers
    answers.clear()


def ask(*arguments: str):
    return CliRunner().invoke(program, ["things", *arguments])


def rows(*names: str) -> Outcome:
    return Outcome(stdout=json.dumps([{"name": name, "size": 1} for name in names]).encode())


def test_without_nodes_the_command_lists_what_is_here():
    done = ask("a", "b", "--big")
    assert (done.exit_code, done.output.splitlines()) == (0, ["NAME   SIZE", "a      9", "b      9"])


def test_rows_of_several_nodes_come_in_one_table_with_the_node_before_them(outcomes):
    asked = outcomes.pop("asked")
    outcomes |= {"n1": rows("a"), "n2": rows("b", "c")}
    done = ask("-A", "x", "--from", "here")
    assert done.output.splitlines() == [
        "NODE   NAME   SIZE",
        "n1     a      1",
        "n2     b      1",
        "n2     c      1",
    ]
    assert asked == [["things", "--from", "here", "x", "-o", "json"]]


def test_a_node_that_does_not_answer_is_a_row_and_exit_status_3(outcomes):
    outcomes.pop("asked")
    outcomes |= {"n1": rows("a"), "n2": Outcome(unreachable="no answer in 5 s")}
    done = ask("-A", "x")
    assert done.exit_code == 3
    assert done.output.splitlines()[-1] == "n2   unreachable: no answer in 5 s"
    as_json = json.loads(ask("-A", "x", "-o", "json").output)
    assert as_json[-1] == {"node": "n2", "unreachable": "no answer in 5 s"}


def test_a_command_that_fails_on_a_node_is_told_by_its_own_last_line(outcomes):
    outcomes.pop("asked")
    outcomes["n1"] = Outcome(status=1, stderr=b"warning\nError: there are no eBPF maps of Fast\n")
    done = ask("--node", "n1", "x")
    assert done.output == "n1   unreachable: there are no eBPF maps of Fast\n"


def test_output_by_name_is_the_first_column_of_each_row():
    assert ask("a", "b", "-o", "name").output == "a\nb\n"


def test_flags_that_were_not_given_are_not_passed_on():
    context = click.Context(
        program.commands["things"], info_name="things", parent=click.Context(program, info_name="p")
    )
    with context:
        program.commands["things"].parse_args(context, ["q"])
        assert remote_arguments(context) == ["things", "q", "-o", "json"]


def test_the_remote_command_does_not_depend_on_how_this_one_was_started():
    parent = click.Context(program, info_name="python -m fast.ctl.fast_ctl")
    with click.Context(program.commands["things"], info_name="things", parent=parent) as context:
        program.commands["things"].parse_args(context, ["q"])
        assert remote_arguments(context) == ["things", "q", "-o", "json"]


class Slow:
    """A runner that counts how many nodes it serves at once; one node never answers."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def run(self, node: str, arguments: Sequence[str]) -> Outcome:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(10 if node == "dead" else 0.02)
        finally:
            self.now -= 1
        return Outcome(stdout=node.encode())


async def test_nodes_are_asked_side_by_side_up_to_the_limit_and_a_dead_one_holds_up_nobody():
    runner = Slow()
    names = [f"n{number}" for number in range(12)] + ["dead"]
    found = await run_on_nodes(runner, names, ["x"], at_once=4, seconds=0.5)
    assert list(found) == names
    assert runner.most == 4
    assert found["dead"].unreachable == "no answer in 0.5 s"
    assert all(found[name].stdout == name.encode() for name in names[:-1])


async def test_this_node_is_asked_by_running_fast_ctl_itself():
    done = await LocalRunner().run("here", ["version", "-o", "json"])
    assert (done.status, done.unreachable) == (0, "")
    assert "fast" in json.loads(done.stdout)[0]


def test_a_playgrounds_kubeconfig_is_known_by_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr("fast.ctl.reach.node_runner.PLAYGROUNDS", tmp_path)
    assert find_playground(tmp_path / "default" / "kubeconfig") == "default"
    assert find_playground(tmp_path / "kubeconfig") == ""
    assert find_playground(None) == ""
