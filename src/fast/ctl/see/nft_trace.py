"""Finds the netfilter rule that drops packets, by nftables' own tracing. The table it needs is removed at the end."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address

from fast.datapath.node.host_command import call, run
from fast.errors import NftablesError
from fast.net import IPAddress

TABLE = "fast_trace"
_RULES_SHOWN = 10
_DROPPED = re.compile(r"^trace id \S+ (?P<what>.* rule .*)\(verdict drop\)\s*$")
_POLICY = re.compile(r"^trace id \S+ (?P<what>\S+ \S+ \S+) (verdict \S+ )?policy drop\s*$")
_REJECTED = re.compile(r"^trace id \S+ (?P<what>.* rule .*reject.*)\(verdict \w+\)\s*$")


def dropping_rules(lines: Iterator[str] | list[str]) -> list[str]:
    """Return the rules and policies that dropped traced packets, each once, from what ``nft monitor trace`` wrote."""
    found: dict[str, None] = {}
    for line in lines:
        for pattern, text in ((_DROPPED, "{}"), (_REJECTED, "{}"), (_POLICY, "{} policy drop")):
            if match := pattern.match(line.strip()):
                found.setdefault(text.format(match["what"].strip()))
    return list(found)[:_RULES_SHOWN]


def watch_for_drops(
    seconds: float,
    source: IPAddress,
    destination: IPAddress,
    tunnel: tuple[IPv4Address, int] | None,
) -> list[str]:
    """Trace packets between two addresses, both ways, and what the tunnel brings; returns the rules that dropped some.

    Args:
        seconds: How long.
        source: One end.
        destination: The other.
        tunnel: The other node's underlay address and the tunnel's port; None: no tunnel between them.

    Raises:
        NftablesError: nft is missing or refuses.
    """
    with _traced(source, destination, tunnel):
        lines: list[str] = []
        with subprocess.Popen(["nft", "monitor", "trace"], stdout=subprocess.PIPE, text=True) as monitor:
            assert monitor.stdout is not None
            stop = threading.Timer(seconds, monitor.terminate)
            stop.start()
            try:
                lines.extend(monitor.stdout)
            finally:
                stop.cancel()
                monitor.terminate()
    return dropping_rules(lines)


@contextlib.contextmanager
def _traced(
    source: IPAddress, destination: IPAddress, tunnel: tuple[IPv4Address, int] | None
) -> Iterator[None]:
    family = "ip" if source.version == 4 else "ip6"  # noqa: PLR2004
    rules = [
        f"{family} saddr {source} {family} daddr {destination} meta nftrace set 1",
        f"{family} saddr {destination} {family} daddr {source} meta nftrace set 1",
    ]
    if tunnel is not None:
        rules.append(f"ip saddr {tunnel[0]} udp dport {tunnel[1]} meta nftrace set 1")
    body = "\n".join(rules)
    run(
        "nft",
        "-f",
        "-",
        stdin=f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain pre {{
    type filter hook prerouting priority -400; policy accept;
    {body}
  }}
  chain out {{
    type filter hook output priority -400; policy accept;
    {body}
  }}
}}
""",
    )
    try:
        yield
    finally:
        with contextlib.suppress(NftablesError):
            call("nft", "delete", "table", "inet", TABLE)
