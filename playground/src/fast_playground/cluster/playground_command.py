"""``fast-ctl playground``: the commands. Only arguments and output; the rest is in ``lifecycle.py``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from fast_playground.cluster.choosing import DEFAULT_NAME, choose, choose_running, name_option
from fast_playground.cluster.place_commands import exec, logs, node, shell
from fast_playground.cluster.training.training_commands import COMMANDS

#: The quick start's default pool. It leaves the first addresses of the subnet free for pools that you try out.
_DEFAULT_POOL = "10.244.0.0/16=10.244.100.0-10.244.200.250"


@click.group()
def playground() -> None:
    """A whole cluster on this machine: API server, controller, nodes with real agents and eBPF programs.

    The machine's own network stays untouched, and "down" leaves nothing behind.
    """


@playground.command()
@click.option(
    "--name", default=DEFAULT_NAME, show_default=True, help="Its name; several can run side by side."
)
@click.option(
    "--nodes",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Number of nodes; 0: only the API server.",
)
@click.option(
    "--mtu",
    type=click.IntRange(1280, 65535),
    default=1500,
    show_default=True,
    help="MTU of the network between the nodes, in bytes.",
)
@click.option(
    "--agent-arg",
    "agent_args",
    multiple=True,
    help="Argument for every fast-agent, such as --agent-arg=--routing=native.",
)
@click.option(
    "--pool",
    default=_DEFAULT_POOL,
    show_default=True,
    help="The pool default-ips, as SUBNET or SUBNET=RANGE,…; empty: none.",
)
@click.option("--two-addresses", is_flag=True, help="Give each node a second InternalIP, in another network.")
def up(name: str, nodes: int, mtu: int, agent_args: tuple[str, ...], pool: str, two_addresses: bool) -> None:
    """Start a playground; returns when all its nodes are Ready. Removes first what a crashed one left."""
    from fast_playground.cluster.directory import Settings

    began = time.monotonic()
    made = choose(name)
    settings = Settings(nodes=nodes, mtu=mtu, agent_args=agent_args, pool=pool, two_addresses=two_addresses)
    made.up(settings, _progress(began))
    flag = "" if name == DEFAULT_NAME else f" --name {name}"
    click.echo(f"playground {name} is up, {nodes} nodes, after {time.monotonic() - began:.1f} s")
    click.echo(f"export KUBECONFIG=$(fast-ctl playground kubeconfig{flag})")


def _progress(began: float) -> Callable[[str], None]:
    return lambda text: click.echo(
        click.style(f"{time.monotonic() - began:5.1f} s  {text}", dim=True), err=True
    )


@playground.command()
@name_option
@click.option("--all", "every", is_flag=True, help="Take down every playground of this machine.")
def down(name: str | None, every: bool) -> None:
    """Take a playground down, whatever state it is in. Nothing of it is left."""
    from fast_playground.cluster.lifecycle import list_playgrounds

    for item in list_playgrounds() if every else [choose(name).name]:
        gone = choose(item).down()
        click.echo(f"playground {item} is down" if gone else f"there is no playground {item}")


@playground.command("list")
def list_() -> None:
    """List the playgrounds of this machine."""
    from fast.ctl.output import Column, format_table
    from fast_playground.cluster.lifecycle import list_playgrounds

    rows = []
    for name in list_playgrounds():
        found = choose(name)
        settings = found.directory.find_settings()
        nodes = settings.nodes if settings else "-"
        rows.append(
            {"name": name, "nodes": nodes, "up": found.is_up, "kubeconfig": found.directory.kubeconfig}
        )
    columns = [Column("NAME", "name"), Column("NODES", "nodes"), Column("UP", "up")]
    click.echo(format_table(rows, [*columns, Column("KUBECONFIG", "kubeconfig")]))


@playground.command()
@name_option
def status(name: str | None) -> None:
    """Show nodes, programs and faults. Exit status 1 if a program is not running or a node is not Ready."""
    from fast.ctl.output import Column, format_table
    from fast_playground.cluster.training.journal import Journal

    found = choose(name)
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
    click.echo(f"playground {found.name}: {settings.nodes} nodes, kubeconfig {found.directory.kubeconfig}\n")
    click.echo(format_table(programs, [*titles, Column("STARTS", "starts"), Column("STATE", "state")]))
    if nodes:
        columns = [Column("NODE", "node"), Column("UNDERLAY-IP", "ip"), Column("STATE", "state")]
        click.echo("\n" + format_table(nodes, columns))
    for item in Journal(found.directory.path).read():
        click.echo(f"broken: {item.case} {item.where}")
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
def kubeconfig(name: str | None) -> None:
    """Print the path of a kubeconfig that works from this machine: kubectl --kubeconfig $(…) get pods."""
    click.echo(choose_running(name).directory.kubeconfig)


for command in (exec, node, shell, logs, *COMMANDS):
    playground.add_command(command)
