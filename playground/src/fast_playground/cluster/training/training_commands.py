"""``fast-ctl playground stop|start|crash|hang|reboot|cut|break|mend``: only arguments and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from fast_playground.cluster.choosing import choose_running, name_option, namespace_option

if TYPE_CHECKING:
    from fast_playground.cluster.training.breaking import Breaker
    from fast_playground.cluster.training.steering import Steering


def _breaker(name: str | None) -> Breaker:
    from fast_playground.cluster.training.breaking import Breaker

    return Breaker(choose_running(name))


def _steered(verb: str, text: str, done: str) -> click.Command:
    """Make a command for one action on a node or a program."""

    @name_option
    @click.argument("target")
    def callback(name: str | None, target: str) -> None:
        from fast_playground.cluster.training.steering import Steering

        action: Callable[[Steering, str], None] = getattr(Steering, verb)
        action(Steering(choose_running(name)), target)
        click.echo(f"{target} {done}")

    callback.__doc__ = (
        f"{text}\n\n    TARGET is a node (n1), a program of one (n1/agent), controller or apiserver."
    )
    return click.command(verb)(callback)


COMMANDS = [
    _steered("stop", "End a program or a node; it stays down until started.", "is stopped"),
    _steered("start", "Start again what was stopped, crashed or hung.", "is started"),
    _steered("crash", "Kill a program, which starts again by itself; or cut a node's power.", "has crashed"),
    _steered("hang", "Make a program, or all programs of a node, hang until started.", "hangs"),
    _steered("reboot", "Cut a node's power and switch it on again; its disk stays.", "was rebooted"),
]


@click.command()
@name_option
@click.argument("node")
def cut(name: str | None, node: str) -> None:
    """Unplug a node from the network between the nodes, until "mend"."""
    _breaker(name).cut(node)
    click.echo(f"{node} is cut off; undo it: fast-ctl playground mend cut")


@click.command("break")
@name_option
@namespace_option
@click.option("--list", "listing", is_flag=True, help="Show the cases.")
@click.argument("case", default="")
@click.argument("target", default="")
def break_(name: str | None, namespace: str, listing: bool, case: str, target: str) -> None:
    """Break something on purpose, to search for it: break CASE [NODE|POD]. "mend" undoes it."""
    from fast.ctl.output import Column, format_table
    from fast_playground.cluster.training.fault_cases import CASES

    if listing or not case:
        rows = [{"case": item.name, "at": item.at, "what": item.what} for item in CASES.values()]
        columns = [Column("CASE", "case"), Column("AT", "at"), Column("WHAT IS BROKEN", "what")]
        click.echo(format_table(rows, columns))
        return
    broken = _breaker(name).break_(case, target, namespace)
    where = f" at {broken.where}" if broken.where else ""
    click.echo(f"{case} is broken{where}; undo it: fast-ctl playground mend {case}")


@click.command()
@name_option
@click.argument("case", default="")
def mend(name: str | None, case: str) -> None:
    """Undo what "break" and "cut" did: one case, or all."""
    for item in _breaker(name).mend(case):
        click.echo(f"{item.case} is undone")


COMMANDS += [cut, break_, mend]
