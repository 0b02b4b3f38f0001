"""The rows of ``fast-ctl ipam pools``: counted from records, and what cools from the node's agent."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from fast.api.ips import pool_addresses
from fast.errors import InvalidRange
from fast.ipam.rules.ownership import is_retained
from fast.ipam.store.snapshot import Snapshot

_COOLING = re.compile(r'^fast_ipam_addresses\{pool="([^"]*)",state="cooling"\} (\S+)$', re.MULTILINE)
_TIMEOUT_SECONDS = 2.0


def cooling_of_agent(url: str) -> Mapping[str, int]:
    """Ask an agent's metrics how many addresses of each pool cool; empty where it does not answer."""
    if not url.startswith(("http://", "https://")):
        return {}
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - only http, see above
            text = answer.read().decode()
    except (OSError, urllib.error.URLError, ValueError):
        return {}
    return {pool: int(float(count)) for pool, count in _COOLING.findall(text)}


def pool_rows(snapshot: Snapshot, cooling: Mapping[str, int]) -> list[dict[str, Any]]:
    """Count each pool's addresses.

    ``used`` and ``retained`` are the pool's own records; ``free`` is what has no record of any pool; ``outside``
    counts records whose address the ranges do not hold any more.
    """
    addresses = []
    for record in snapshot.records.values():
        try:
            addresses.append((record.address, record))
        except InvalidRange:
            continue
    rows = []
    for name, pool in sorted(snapshot.pools.items()):
        own = [record for record in snapshot.records.values() if record.spec.pool == name]
        retained = sum(map(is_retained, own))
        row: dict[str, Any] = {
            "pool": name,
            "subnet": pool.spec.subnet,
            "total": 0,
            "used": len(own) - retained,
            "free": 0,
            "cooling": cooling.get(name),
            "retained": retained,
            "outside": 0,
            "problem": "",
        }
        rows.append(row)
        try:
            usable = pool_addresses(pool.spec).usable
        except InvalidRange as error:
            row["problem"] = str(error)
            continue
        version = usable.ranges[0].version
        taken = {address for address, _ in addresses if address.version == version and address in usable}
        row["total"] = usable.size
        row["free"] = usable.size - len(taken)
        row["outside"] = sum(
            1 for address, record in addresses if record.spec.pool == name and address not in taken
        )
    return rows
