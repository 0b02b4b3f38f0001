"""``fast-ctl doctor``: prints what ``node_checks`` and ``installed_checks`` find. No checks here."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import click

from fast.agent.config.node_options import (
    cni_bin_dir_option,
    cni_conf_dir_option,
    socket_option,
    state_dir_option,
    tunnel_port_option,
)
from fast.datapath.bpf_dir import bpf_dir_option

if TYPE_CHECKING:
    from fast.api.fastnode import NodeProblem


def _parse_ip(_: click.Context, __: click.Parameter, value: str | None) -> IPv4Address | None:
    try:
        return IPv4Address(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also name the checks that passed.")
@click.option(
    "--node-ip",
    envvar="FAST_NODE_IP",
    callback=_parse_ip,
    show_envvar=True,
    help="This node's underlay address. Without it, the underlay's device is not checked.",
)
@tunnel_port_option
@bpf_dir_option
@state_dir_option
@cni_bin_dir_option
@cni_conf_dir_option
@socket_option
@click.pass_context
def doctor(ctx: click.Context, /, output: str, verbose: bool, **places: Any) -> None:
    """Find the problems that Fast has, or would have, on this node, and say what to do about them.

    Changes nothing. Works before Fast is installed, too; on a node where it is, agent, plugin and disk are checked as
    well.

    Exit status: 0 if pods will work (there may be warnings), 1 if something keeps them from it.
    """
    from fast.agent.node.installed_checks import INSTALLED_CHECKS, is_installed
    from fast.agent.node.node_checks import CHECKS, NodeFacts, Severity, examine

    facts = NodeFacts(**places)
    checks = CHECKS | (INSTALLED_CHECKS if is_installed(facts) else {})
    problems = examine(facts, checks)
    passed = [name for name in checks if all(problem.check != name for problem in problems)]
    _print(problems, passed if verbose else [], output)
    errors = sum(problem.severity == Severity.ERROR for problem in problems)
    if output == "table":
        click.echo(f"{len(checks)} checks: {errors} errors, {len(problems) - errors} warnings")
    if errors:
        ctx.exit(1)


def _print(problems: Sequence[NodeProblem], passed: Sequence[str], output: str) -> None:
    if output == "table":
        for name in passed:
            click.echo(f"OK {name}")
        for problem in problems:
            click.echo(f"{problem.severity.upper()} {problem.check}: {problem.problem}")
            click.echo(f"    → {problem.remedy}")
        return
    import msgspec

    rows = [msgspec.to_builtins(problem) for problem in problems]
    rows += [{"check": name, "severity": "ok"} for name in passed]
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(rows, sort_keys=False), nl=False)
