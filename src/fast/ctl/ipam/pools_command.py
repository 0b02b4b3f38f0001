"""The rows of ``fast-ctl ipam pools``: counted from records, and what cools from the node's agent."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from fast.ipam.pool.ledger import Ledger
from fast.ipam.store.snapshot import Snapshot, SnapshotStore

_COOLING = re.compile(r'^fast_ipam_cooling_addresses\{pool="([^"]*)"\} (\S+)$', re.MULTILINE)
_TIMEOUT_SECONDS = 2.0


def cooling_of_agent(url: str) -> Mapping[str, int]:
    """Ask an agent's metrics how many addresses of each pool cool; empty if it does not answer."""
    if not url.startswith(("http://", "https://")):
        return {}
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - only http, see above
            text = answer.read().decode()
    except (OSError, urllib.error.URLError, ValueError):
        return {}
    return {pool: int(float(count)) for pool, count in _COOLING.findall(text)}


def pool_rows(snapshot: Snapshot, cooling: Mapping[str, int]) -> list[dict[str, Any]]:
    """Count each pool's addresses as agents and controller do.

    ``outside`` counts records of the pool whose address its ranges do not hold.
    """
    ledger = Ledger(SnapshotStore(snapshot), "", clock=lambda: 0.0)
    rows = []
    for name, pool in sorted(snapshot.pools.items()):
        counts, entry = ledger.counts(name), ledger.pools[name]
        inside = [
            record
            for record in snapshot.records.values()
            if record.spec.pool == name
            and entry.book is not None
            and (address := record.find_address()) is not None
            and address in entry.book
        ]
        rows.append(
            {
                "pool": name,
                "subnet": pool.spec.subnet,
                "total": counts.size,
                "bound": counts.bound,
                "retained": counts.retained,
                "free": counts.free,
                "cooling": cooling.get(name),
                "outside": counts.bound + counts.retained - len(inside) if entry.book else 0,
                "problem": entry.problem,
            }
        )
    return rows
