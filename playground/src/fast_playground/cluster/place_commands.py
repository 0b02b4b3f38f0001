"""``fast-ctl playground exec|node|shell|logs``: run commands in pods and on nodes, and read logs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from fast.errors import FastError
from fast_playground.cluster.choosing import choose, choose_running, name_option, namespace_option
from fast_playground.cluster.terminal_relay import run_on_terminal

if TYPE_CHECKING:
    from fast_playground.cluster.node import Place
    from fast_playground.cluster.pod_sandboxes import PlacedSandbox


def _shell() -> str:
    return "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


@click.command()
@name_option
@namespace_option
@click.argument("pod")
@click.argument("command", nargs=-1, required=True)
def exec(name: str | None, namespace: str, pod: str, command: tuple[str, ...]) -> None:
    """Run a command in a pod: exec POD -- CMD. The pod has the machine's programs and its own files."""
    placed = choose_running(name).sandbox(namespace, pod)
    _run_inside(placed, list(command))


@click.command()
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, required=True)
def node(name: str | None, node: str, command: tuple[str, ...]) -> None:
    """Run a command of this machine on a node (or in the "underlay" between them): node NODE -- CMD."""
    _run(choose_running(name).place(node), list(command))


@click.command()
@name_option
@namespace_option
@click.argument("place")
def shell(name: str | None, namespace: str, place: str) -> None:
    """Start a shell on a node, in the "underlay", or in a pod."""
    found = choose_running(name)
    if place in {"underlay", *(node.name for node in found.nodes())}:
        _run(found.place(place), [_shell()])
    _run_inside(found.sandbox(namespace, place), [_shell()])


@click.command()
@name_option
@click.option("-f", "--follow", is_flag=True, help="Keep running and show new lines.")
@click.option(
    "--tail", type=click.IntRange(min=0), default=20, show_default=True, help="How many lines of each log."
)
@click.argument("program", default="")
def logs(name: str | None, follow: bool, tail: int, program: str) -> None:
    """Show the logs of all programs, of one place (n1), or of one program (n1/agent)."""
    folder = choose(name).directory.log("x").parent
    there = {path.stem.replace("-", "/", 1): path for path in sorted(folder.glob("*.log"))}
    files = [
        str(path)
        for log, path in there.items()
        if program in ("", log, log.partition("/")[0], log.partition("/")[2])
    ]
    if not files:
        raise FastError(f"there is no log {program!r}; there are: {', '.join(there) or 'none'}")
    _become(["tail", "-n", str(tail), *(["-F"] if follow else []), *files], dict(os.environ))


def _run(place: Place, argv: list[str]) -> NoReturn:
    from fast_playground.cluster.node import LEAD_SESSION

    terminal = _on_terminal()
    argv = [*LEAD_SESSION, *argv] if terminal else argv
    _become(place.command(argv), place.environment(), terminal)


def _run_inside(placed: PlacedSandbox, argv: list[str]) -> NoReturn:
    terminal = _on_terminal()
    _become(placed.command_inside(argv, terminal=terminal), placed.environment(), terminal)


def _on_terminal() -> bool:
    return all(os.isatty(number) for number in range(3))


def _become(argv: list[str], environment: dict[str, str], terminal: bool = False) -> NoReturn:
    """Replace this process by the command, or run the command on its own terminal."""
    sys.stdout.flush()
    if terminal:
        sys.exit(run_on_terminal(argv, environment))
    os.execvpe(argv[0], argv, environment)  # noqa: S606 -- no shell is wanted
