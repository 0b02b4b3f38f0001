"""The filters that ``drops`` and ``flows`` share, and how they spell ends and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from fast.ctl.completion import complete_pods

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

filter_options: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option("-n", "--namespace", default="", help="Only what concerns a pod of this namespace."),
    click.option(
        "--pod",
        "pods",
        multiple=True,
        shell_complete=complete_pods,
        help="Only what concerns this pod: [NAMESPACE/]NAME; repeatable.",
    ),
    click.option(
        "--address", "addresses", multiple=True, help="Only what is from or to this address; repeatable."
    ),
    click.option("--port", type=int, help="Only what is to this port, or from it."),
    click.option("--reason", default="", help="Only this reason, with or without drop_."),
)


def with_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of :class:`Filter`."""
    for option in reversed(filter_options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Filter:
    """What to show. Every field that is set has to match; of repeated ones, one has to.

    Attributes:
        namespace: Of a pod that the packet concerns; also that of ``pods`` that name none.
        pods: ``[NAMESPACE/]NAME`` each.
        addresses: Source or destination.
        port: Destination or source.
        reason: With or without ``drop_``.
    """

    namespace: str = ""
    pods: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    port: int | None = None
    reason: str = ""

    def matches(self, item: Mapping[str, Any]) -> bool:
        """Tell whether to show an event or a group of drops, as the agent gives them."""
        named = {item.get(field, "") for field in ("pod", "sourcePod", "destinationPod")} - {""}
        wanted = {name if "/" in name else f"{self.namespace or 'default'}/{name}" for name in self.pods}
        return (
            (not wanted or bool(wanted & named))
            and (not self.namespace or any(name.startswith(f"{self.namespace}/") for name in named))
            and (not self.addresses or bool({item["source"], item["destination"]} & set(self.addresses)))
            and (self.port is None or self.port in (item.get("destinationPort"), item.get("sourcePort")))
            and (not self.reason or item["reason"].removeprefix("drop_") == self.reason.removeprefix("drop_"))
        )


def end(address: str, holder: str, sender: str = "") -> str:
    """Spell one end of a packet: the pod that holds the address, or the address; and who sent it, if not that pod."""
    if sender and sender != holder:
        return f"{sender} as {address}"
    return holder or address


def parse_seconds(text: str) -> float:
    """Read a duration such as ``30s``, ``10m`` or ``2h``; returns seconds.

    Raises:
        click.BadParameter: It is none.
    """
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _UNITS:
        raise click.BadParameter(f"{text!r} is not a duration such as 30s, 10m or 2h", param_hint="--since")
    return int(number) * _UNITS[unit]


def format_seconds(seconds: float) -> str:
    """Spell a time in the largest unit that fits."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s"
