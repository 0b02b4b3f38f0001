"""The options ``--node`` and ``-A`` of a command that lists something of a node: the same list from several nodes.

The command itself only makes rows. Asked for other nodes, ``fast-ctl`` runs itself there with ``-o json`` and puts the
rows together; a node that does not answer is a row, too.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fast.ctl.api_options import kubeconfig_option, resolve_kubeconfig, with_cluster
from fast.ctl.output import Column, Row, output_option, print_rows
from fast.errors import FastError

if TYPE_CHECKING:
    from fast.ctl.reach.node_runner import NodeRunner, Outcome
    from fast.kube import KubeClient

#: Exit status of a command that could not see everything it was asked for.
CANNOT_TELL = 3
_REMOTE = ("nodes", "every", "via", "kubeconfig", "output", "watch")
Rows = Callable[..., Sequence[Row]]
R = TypeVar("R")

_options: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option(
        "--node",
        "nodes",
        multiple=True,
        metavar="NODE",
        help="List this node instead of the one you are on; repeatable.",
    ),
    click.option("-A", "--all-nodes", "every", is_flag=True, help="List every node of the cluster."),
    click.option(
        "--via",
        type=click.Choice(["auto", "local", "playground", "exec"]),
        default="auto",
        show_default=True,
        help="The way to other nodes. auto: a playground's own way if the kubeconfig is a playground's, else exec.",
    ),
    kubeconfig_option,
    click.option(
        "-w",
        "--watch",
        is_flag=False,
        flag_value=2.0,
        type=click.FloatRange(min=0.2),
        metavar="[SECONDS]",
        help="List again and again, every 2 seconds unless said otherwise.",
    ),
    output_option,
)


_no_names_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--no-names", is_flag=True, help="Do not ask the API server which pod holds an address."
)


def listing(
    columns: Sequence[Column],
    *,
    nothing: str,
    address_field: str = "",
    status: Callable[[Sequence[Row]], int] = lambda _: 0,
) -> Callable[[Rows], Callable[..., None]]:
    """Make a command out of a function that gives rows: adds the options above, and prints.

    Args:
        columns: Of the table; NODE comes before them if other nodes are asked for.
        nothing: The sentence for a table without rows.
        address_field: The rows' field with an address: each row gets a field ``pod``, who holds it, and the command
            an option ``--no-names``. Empty: no names.
        status: Gives the exit status for the rows, if every node answered.
    """

    def decorate(rows_of: Rows) -> Callable[..., None]:
        @functools.wraps(rows_of)
        def command(
            *,
            nodes: tuple[str, ...],
            every: bool,
            via: str,
            kubeconfig: Path | None,
            watch: float | None,
            output: str,
            no_names: bool = True,
            **arguments: Any,
        ) -> None:
            ctx = click.get_current_context()
            while True:
                silent: list[Row] = []
                if nodes or every:
                    rows, silent = _gather(ctx, nodes, via, kubeconfig)
                    shown = [Column("NODE", "node"), *columns]
                else:
                    rows, shown = list(rows_of(**arguments)), list(columns)
                    if address_field:
                        rows = _named(rows, address_field, kubeconfig, no_names=no_names)
                if watch is not None and sys.stdout.isatty():
                    click.clear()
                _print(rows, silent, shown, output, nothing)
                if watch is None:
                    ctx.exit(status(rows) or (CANNOT_TELL if silent else 0))
                time.sleep(watch)

        made: Callable[..., None] = command
        for option in reversed(_options + ((_no_names_option,) if address_field else ())):
            made = option(made)
        return made

    return decorate


def _print(
    rows: Sequence[Row], silent: Sequence[Row], columns: Sequence[Column], output: str, nothing: str
) -> None:
    if output in ("json", "yaml"):
        print_rows([*rows, *silent], columns, output, nothing=nothing)
        return
    if rows or not silent:
        print_rows(rows, columns, output, nothing=nothing)
    for row in silent:
        click.echo(f"{row['node']}   unreachable: {row['unreachable']}", err=output == "name")


def _named(rows: Sequence[Row], field: str, kubeconfig: Path | None, *, no_names: bool) -> list[Row]:
    """Add who holds each row's address; empty if nobody does, or if it cannot be known."""
    from fast.ctl.reach.pod_names import find_pod_names

    names = {} if no_names else find_pod_names(kubeconfig, (row[field] for row in rows))
    return [{**row, "pod": names.get(row[field], "")} for row in rows]


def _gather(
    ctx: click.Context, nodes: Sequence[str], via: str, kubeconfig: Path | None
) -> tuple[list[Row], list[Row]]:
    """Run this very command on nodes; gives their rows, and a row for each node that did not answer."""
    arguments = remote_arguments(ctx)
    outcomes = run_everywhere(arguments, nodes, via, kubeconfig)
    rows: list[Row] = []
    silent: list[Row] = []
    for node, outcome in outcomes.items():
        why = outcome.unreachable or _why_not(outcome)
        if why:
            silent.append({"node": node, "unreachable": why})
        else:
            rows += [{"node": node, **row} for row in _decode(outcome.stdout)]
    return rows, silent


def run_everywhere(
    arguments: Sequence[str], nodes: Sequence[str], via: str, kubeconfig: Path | None
) -> dict[str, Outcome]:
    """Run ``fast-ctl`` on nodes; on all of the cluster if none is named.

    Raises:
        FastError: There is no way to the API server, or it does not answer.
    """
    from fast.ctl.reach.node_runner import LocalRunner, run_on_nodes

    async def work(client: KubeClient, runner: NodeRunner) -> dict[str, Outcome]:
        return await run_on_nodes(runner, list(nodes) or await _node_names(client), arguments)

    if via == "local" and nodes:
        return asyncio.run(run_on_nodes(LocalRunner(), list(nodes), arguments))
    return with_nodes(kubeconfig, via, work)


def with_nodes(
    kubeconfig: Path | None, via: str, work: Callable[[KubeClient, NodeRunner], Awaitable[R]]
) -> R:
    """Run ``work`` with a client of the cluster and the way to its nodes, and give what it gives.

    Raises:
        FastError: There is no way to the API server, or what ``work`` raises.
    """
    from fast.ctl.reach.node_runner import ExecRunner, LocalRunner, PlaygroundRunner, find_playground

    kubeconfig = resolve_kubeconfig(kubeconfig)
    playground = find_playground(kubeconfig) if via in ("auto", "playground") else ""
    if via == "playground" and not playground:
        raise FastError(
            "--via playground needs the kubeconfig of a playground: fast-ctl playground kubeconfig"
        )

    async def reach(client: KubeClient) -> R:
        if via == "local":
            return await work(client, LocalRunner())
        if playground:
            return await work(client, PlaygroundRunner(playground))
        return await work(client, ExecRunner(client, await _agent_pods(client)))

    return with_cluster(kubeconfig, reach)


def remote_arguments(ctx: click.Context) -> list[str]:
    """Give the arguments that make the same list on another node: the same options, but ``-o json``."""
    words: list[str] = []
    group: click.Context | None = ctx
    while group is not None and group.parent is not None:  # the root's name depends on how it was started
        words.insert(0, group.info_name or "")
        group = group.parent
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if name in _REMOTE or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if isinstance(parameter, click.Option):
            if parameter.is_flag:
                words += [parameter.opts[-1]] if value else parameter.secondary_opts[:1]
            else:
                for item in value if parameter.multiple else (value,):
                    words += [parameter.opts[-1], str(item)]
        else:
            words += map(str, value if isinstance(value, tuple) else (value,))
    return [*words, "-o", "json"]


async def _node_names(client: KubeClient) -> list[str]:
    from fast.api.resources import NODES

    return sorted(node.metadata.name for node in (await client.list(NODES)).items)


async def _agent_pods(client: KubeClient) -> dict[str, tuple[str, str]]:
    from fast.api.resources import PODS
    from fast.ctl.reach.node_runner import AGENT_SELECTOR

    found = await client.list(PODS, label_selector=AGENT_SELECTOR)
    return {pod.spec.node_name: (pod.metadata.namespace, pod.metadata.name) for pod in found.items}


def _why_not(outcome: Outcome) -> str:
    """Say why there are no rows although the command was run; empty if there are."""
    if outcome.stdout.strip().startswith((b"[", b"{")):
        return ""
    said = outcome.stderr.decode(errors="replace").strip().splitlines()
    return said[-1].removeprefix("Error: ") if said else f"fast-ctl ended with exit status {outcome.status}"


def _decode(stdout: bytes) -> list[dict[str, Any]]:
    import msgspec

    found = msgspec.json.decode(stdout)
    return found if isinstance(found, list) else [found]
