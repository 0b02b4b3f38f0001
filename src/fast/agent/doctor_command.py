"""``fast-ctl doctor``: prints what :mod:`fast.agent.doctor` finds. No checks here."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import click

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


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
@click.option(
    "--tunnel-port",
    type=click.IntRange(1, 65535),
    envvar="FAST_TUNNEL_PORT",
    default=8479,
    show_default=True,
    show_envvar=True,
)
@click.option(
    "--bpf-dir",
    type=_DIRECTORY,
    envvar="FAST_BPF_DIR",
    default="/sys/fs/bpf/fast",
    show_default=True,
    show_envvar=True,
)
@click.option(
    "--cni-bin-dir",
    type=_DIRECTORY,
    envvar="FAST_CNI_BIN_DIR",
    default="/opt/cni/bin",
    show_default=True,
    show_envvar=True,
)
@click.option(
    "--cni-conf-dir",
    type=_DIRECTORY,
    envvar="FAST_CNI_CONF_DIR",
    default="/etc/cni/net.d",
    show_default=True,
    show_envvar=True,
)
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
    """Say what on this node will bite Fast, and what to do about it. Looks only; also before Fast is installed.

    Exit status: 0 where pods will work (there may be warnings), 1 where something keeps them from it.
    """
    from fast.agent.doctor import CHECKS, NodeFacts, Severity, examine

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
