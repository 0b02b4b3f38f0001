"""``fast-ctl check``: whether the endpoints of pods are as ADD made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fast.ctl.output import Column, Row
from fast.ctl.reach.every_node import CANNOT_TELL as _CANNOT_TELL
from fast.ctl.reach.every_node import listing
from fast.errors import FastError

_COLUMNS = (
    Column("POD", "pod", spell=lambda pod: pod or "-"),
    Column("ADDRESSES", "addresses", spell=",".join),
    Column("INTERFACE", "interface", wide=True),
    Column("CONTAINER", "container", wide=True),
    Column("CHECK", "check", colour=lambda found: {"OK": "green", "BAD": "red"}.get(found, "yellow")),
    Column("CAUSE", "problems", spell=lambda found: "; ".join(found) or "-"),
    Column("DO", "do", spell=lambda text: text or "-"),
)


class _CannotTell(click.ClickException):
    exit_code = _CANNOT_TELL


def _status(rows: Sequence[Row]) -> int:
    """0 all sound, 1 something wrong, 3 something could not be checked."""
    found = {row["check"] for row in rows}
    return 1 if "BAD" in found else _CANNOT_TELL if "?" in found else 0


@click.command()
@click.argument("pods", metavar="[[NAMESPACE/]POD]...", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Check every pod of the node.")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="FAST_AGENT_SOCKET",
    default="/run/fast/agent.sock",
    show_default=True,
    show_envvar=True,
    help="The agent's socket.",
)
@listing(_COLUMNS, nothing="No pods on this node.", status=_status)
def check(pods: tuple[str, ...], everything: bool, socket_path: Path) -> Sequence[Row]:
    """Check pods' interface, addresses, routes, neighbour entries, programs, map entries and MTU.

    That is what CNI CHECK does, and the MTU. Nothing is changed. A name without a namespace is of namespace "default".

    Exit status: 0 if all is sound, 1 if something is wrong, 3 if something could not be checked.
    """
    from fast.ctl.reach.pod_names import find_pod_names
    from fast.ctl.see.endpoint_checks import check_endpoints, find_endpoints

    if bool(pods) == everything:
        raise click.UsageError("name pods, or give --all")
    endpoints = find_endpoints()
    names = find_pod_names(None, (str(address) for item in endpoints for address in item.addresses))
    pod_of = {item.host_device: names.get(str(item.addresses[0]), "") for item in endpoints}
    if pods and endpoints and not names:
        raise _CannotTell("the API server does not answer, so no pod has a name here: use --all")
    if not everything:
        wanted = {name if "/" in name else f"default/{name}" for name in pods}
        missing = wanted - set(pod_of.values())
        if missing:
            raise FastError(
                f"no endpoint of pod {', '.join(sorted(missing))} on this node; on which node it is, kubectl get pod "
                "-o wide tells: name that one with --node"
            )
        endpoints = [item for item in endpoints if pod_of[item.host_device] in wanted]
    return [
        {
            "pod": pod_of[item.endpoint.host_device],
            "addresses": [*map(str, item.endpoint.addresses)],
            "interface": item.endpoint.ifname,
            "container": item.endpoint.container_id,
            "check": "?" if item.unknown else "BAD" if item.problems else "OK",
            "problems": [item.unknown] if item.unknown else list(item.problems),
            "do": item.remedy,
        }
        for item in check_endpoints(endpoints, socket_path)
    ]
