"""The rows of ``fast-ctl status``: each node and each pool in a line, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fast.api.core import Lease, Node
from fast.api.fastnode import SILENT_SECONDS, FastNode, FastNodeStatus, lease_name
from fast.api.ips import Ips, IpsStatus
from fast.api.meta import Condition


def heard_seconds(leases: Iterable[Lease], now: datetime | None = None) -> dict[str, float]:
    """Return how long ago each node's agent renewed its heartbeat, in seconds."""
    now = now or datetime.now(UTC)
    found = {}
    for lease in leases:
        node = lease.metadata.name.removeprefix(lease_name(""))
        try:
            renewed = datetime.fromisoformat(lease.spec.renew_time)
        except ValueError:
            continue
        if node != lease.metadata.name:
            found[node] = (now - renewed).total_seconds()
    return found


def node_rows(
    nodes: Iterable[Node], fast_nodes: Mapping[str, FastNode], heard: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Make a row of each Node: what its agent says of it, or that it says nothing."""
    return [
        _node_row(node.metadata.name, fast_nodes.get(node.metadata.name), heard.get(node.metadata.name))
        for node in sorted(nodes, key=lambda node: node.metadata.name)
    ]


def _node_row(name: str, found: FastNode | None, heard: float | None) -> dict[str, Any]:
    status = (
        found.status if found is not None and isinstance(found.status, FastNodeStatus) else FastNodeStatus()
    )
    unmet = [item for item in status.conditions if item.status != "True"]
    if found is None:
        problem = "no agent ever ran here: kubectl get pods -A -o wide"
    elif heard is None or heard > SILENT_SECONDS:
        since = f"for {heard:.0f} s" if heard is not None else "since it was installed"
        problem = f"its agent has been silent {since}: it is dead, hangs, or does not reach the API server"
    elif unmet:
        problem = _say(unmet[0])
    else:
        errors = [item for item in status.problems if item.severity == "error"] or status.problems
        problem = f"{errors[0].problem}. {errors[0].remedy}" if errors else ""
    errors_count = sum(item.severity == "error" for item in status.problems)
    silent = found is None or heard is None or heard > SILENT_SECONDS
    return {
        "node": name,
        "address": str(found.spec.addresses[0]) if found is not None and found.spec.addresses else "",
        "heardSecondsAgo": None if heard is None else round(heard, 1),
        "sound": not (silent or unmet or errors_count),
        "silent": silent,
        "pods": status.pod_count,
        "problems": max(status.problem_count, len(status.problems)),
        "problem": problem,
    }


def pool_rows(pools: Iterable[Ips]) -> list[dict[str, Any]]:
    """Make a row of each pool, as the controller counted it."""
    rows = []
    for pool in sorted(pools, key=lambda pool: pool.metadata.name):
        status = pool.status if isinstance(pool.status, IpsStatus) else IpsStatus()
        unready = next(
            (item for item in status.conditions if item.type == "Ready" and item.status != "True"), None
        )
        full = status.total_ip_count > 0 and status.free_ip_count == 0
        rows.append(
            {
                "pool": pool.metadata.name,
                "used": status.allocated_ip_count,
                "total": status.total_ip_count,
                "free": status.free_ip_count,
                "retained": status.retained_ip_count,
                "sound": unready is None and not full,
                "problem": _say(unready)
                if unready
                else "no address is free: extend spec.ips"
                if full
                else "",
            }
        )
    return rows


def _say(condition: Condition) -> str:
    return condition.message or condition.reason
