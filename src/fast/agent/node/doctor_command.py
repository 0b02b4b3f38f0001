"""``fast-ctl doctor``: prints what :mod:`fast.agent.node.node_checks` finds. No checks here."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import click

from fast.agent.config.node_options import (
    cni_bin_dir_option,
    cni_conf_dir_option,
    tunnel_port_option,
)
from fast.datapath.bpf_dir import bpf_dir_option


def _parse_ip(_: click.Context, __: click.Parameter, value: str | None) -> IPv4Address | None:
    try:
        return IPv4Address(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--node-ip",
    envvar="FAST_NODE_IP",
    callback=_parse_ip,
    show_envvar=True,
    help="This node's underlay address; without, its device is not looked at.",
)
@tunnel_port_option
@bpf_dir_option
@cni_bin_dir_option
@cni_conf_dir_option
@click.pass_context
def doctor(
    ctx: click.Context,
    output: str,
    node_ip: IPv4Address | None,
    tunnel_port: int,
    bpf_dir: Path,
    cni_bin_dir: Path,
    cni_conf_dir: Path,
) -> None:
    """Say what problems Fast would have on this node, and what to do about them.

    Looks only; also before Fast is installed.

    Exit status: 0 where pods will work (there may be warnings), 1 where something keeps them from it.
    """
    from fast.agent.node.node_checks import CHECKS, NodeFacts, Severity, examine

    findings = examine(
        NodeFacts(
            node_ip=node_ip,
            tunnel_port=tunnel_port,
            bpf_dir=bpf_dir,
            cni_bin_dir=cni_bin_dir,
            cni_conf_dir=cni_conf_dir,
        )
    )
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.severity.value.upper()} {finding.check}: {finding.problem}")
            click.echo(f"    → {finding.remedy}")
        errors = sum(finding.severity is Severity.ERROR for finding in findings)
        click.echo(f"{len(CHECKS)} checks: {errors} errors, {len(findings) - errors} warnings")
    if any(finding.severity is Severity.ERROR for finding in findings):
        ctx.exit(1)
