"""``fast-ctl playground``: the commands. Only arguments and what is printed; the rest is in ``lifecycle.py``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fast_playground.cluster.lifecycle import Playground

name_option = click.option(
    "--name", default="default", show_default=True, help="Which playground; several live side by side."
)
namespace_option = click.option(
    "-n", "--namespace", default="default", show_default=True, help="The pod's namespace."
)


def _playground(name: str) -> Playground:
    from fast_playground.cluster.lifecycle import Playground

    return Playground(name)


@click.group()
def playground() -> None:
    """A whole cluster on this machine: API server, controller, nodes with real agents and eBPF programs.

    The machine's own network stays untouched, and "down" leaves nothing behind.
    """


@playground.command()
@name_option
@click.option(
    "--nodes",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="0: only the API server.",
)
@click.option(
    "--mtu",
    type=click.IntRange(1280, 65535),
    default=1500,
    show_default=True,
    help="Of the network between the nodes, in bytes.",
)
@click.option(
    "--agent-arg",
    "agent_args",
    multiple=True,
    help="Passed to every fast-agent, as --agent-arg=--routing=native.",
)
def up(name: str, nodes: int, mtu: int, agent_args: tuple[str, ...]) -> None:
    """Start a playground; returns when all its nodes are Ready. What a crashed one left is removed first."""
    from fast_playground.cluster.directory import Settings

    began = time.monotonic()
    made = _playground(name)
    made.up(Settings(nodes=nodes, mtu=mtu, agent_args=agent_args), _progress(began))
    flag = "" if name == "default" else f" --name {name}"
    click.echo(f"playground {name} is up, {nodes} nodes, after {time.monotonic() - began:.1f} s")
    click.echo(f"export KUBECONFIG=$(fast-ctl playground kubeconfig{flag})")


def _progress(began: float) -> Callable[[str], None]:
    return lambda text: click.echo(
        click.style(f"{time.monotonic() - began:5.1f} s  {text}", dim=True), err=True
    )


@playground.command()
@name_option
@click.option("--all", "every", is_flag=True, help="Take down every playground of this machine.")
def down(name: str, every: bool) -> None:
    """Take a playground down, whatever state it is in; nothing of it is left."""
    from fast_playground.cluster.lifecycle import list_playgrounds

    for item in list_playgrounds() if every else [name]:
        gone = _playground(item).down()
        click.echo(f"playground {item} is down" if gone else f"there is no playground {item}")


@playground.command()
@name_option
def status(name: str) -> None:
    """Show the nodes and programs of a playground; exit status 1 where one is not as it should be."""
    from fast.ctl.output import Column, format_table

    found = _playground(name)
    settings = found.settings
    ready = found.cluster.ready_nodes() if found.cluster.answers() else {}
    programs = [
        {
            "place": item.place,
            "program": item.name,
            "pid": item.state.pid or "-",
            "starts": item.state.starts,
            "state": "running" if item.state.pid else f"ended ({item.state.exit_status})",
        }
        for item in found.programs()
    ]
    nodes = [
        {"node": node.name, "ip": node.address, "state": _node_state(node.running, ready.get(node.name))}
        for node in found.nodes()
    ]
    titles = [Column("PLACE", "place"), Column("PROGRAM", "program"), Column("PID", "pid")]
    click.echo(f"playground {name}: {settings.nodes} nodes, kubeconfig {found.directory.kubeconfig}\n")
    click.echo(format_table(programs, [*titles, Column("STARTS", "starts"), Column("STATE", "state")]))
    if nodes:
        columns = [Column("NODE", "node"), Column("UNDERLAY-IP", "ip"), Column("STATE", "state")]
        click.echo("\n" + format_table(nodes, columns))
    if any(item["state"] != "running" for item in programs) or any(
        item["state"] != "Ready" for item in nodes
    ):
        sys.exit(1)


def _node_state(running: bool, problem: str | None) -> str:
    if not running:
        return "down"
    if problem is None:
        return "unknown to the API server"
    return f"not Ready: {problem}" if problem else "Ready"


@playground.command()
@name_option
def kubeconfig(name: str) -> None:
    """Print the path of a kubeconfig that works from this machine: kubectl --kubeconfig $(…) get pods."""
    found = _playground(name)
    assert found.settings is not None
    click.echo(found.directory.kubeconfig)


@playground.command()
@name_option
@namespace_option
@click.argument("pod")
@click.argument("command", nargs=-1, required=True)
def exec(name: str, namespace: str, pod: str, command: tuple[str, ...]) -> None:
    """Run a command of this machine in a pod's network namespace: exec POD -- CMD."""
    found = _playground(name)
    assert found.settings is not None
    placed = found.sandbox(namespace, pod)
    _become(placed.command(list(command)), placed.node.environment() | {"HOSTNAME": pod})


@playground.command()
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, required=True)
def node(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command of this machine on a node (or in the "underlay" between them): node NODE -- CMD."""
    found = _playground(name)
    assert found.settings is not None
    place = found.place(node)
    _become(place.command(list(command)), place.environment())


def _become(argv: list[str], environment: dict[str, Any]) -> None:
    """Become the command, so that terminal, signals, output and exit status are its own."""
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environment)  # noqa: S606 -- no shell is wanted
