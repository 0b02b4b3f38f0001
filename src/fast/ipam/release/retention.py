"""Which retained addresses go: kept too long, beyond a limit, or of a family that their pod dropped. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Retention
from fast.api.timestamps import seconds_since
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import is_retained
from fast.ipam.rules.sticky_keys import parse_sticky_key


def beyond_limits(records: Iterable[IpEndpoint], retention: Mapping[str, Retention]) -> dict[str, Decision]:
    """Decide which retained records their pools' ``spec.retention`` lets go, by record name.

    Of a namespace or workload that keeps more than it may, those retained longest go.

    Args:
        records: All of the cluster.
        retention: By pool; pools without limits are left out.
    """
    found: dict[str, Decision] = {}
    by_namespace: dict[tuple[str, str], list[IpEndpoint]] = defaultdict(list)
    by_workload: dict[tuple[str, str, str], list[IpEndpoint]] = defaultdict(list)
    for record in records:
        limits = retention.get(record.spec.pool)
        if limits is None or not is_retained(record):
            continue
        age = seconds_since(record.spec.retained_at) if record.spec.retained_at else 0.0
        if limits.seconds and age > limits.seconds:
            found[record.metadata.name] = Decision(
                Action.RELEASE,
                "retention-expired",
                f"retained for {age:.0f} s, pool {record.spec.pool} keeps addresses for {limits.seconds} s",
            )
            continue
        namespace, workload = _whose(record)
        by_namespace[record.spec.pool, namespace].append(record)
        by_workload[record.spec.pool, namespace, workload].append(record)
    for (pool, namespace), kept in by_namespace.items():
        _cut(found, kept, retention[pool].max_per_namespace, f"namespace {namespace}", pool)
    for (pool, namespace, workload), kept in by_workload.items():
        _cut(found, kept, retention[pool].max_per_workload, f"{namespace}/{workload}", pool)
    return found


def _cut(found: dict[str, Decision], kept: list[IpEndpoint], most: int, who: str, pool: str) -> None:
    if not most or len(kept) <= most:
        return
    newest_first = sorted(kept, key=lambda item: (item.spec.retained_at, item.metadata.version), reverse=True)
    text = f"{len(kept)} addresses of pool {pool} are retained for {who}, which may keep {most}"
    for record in newest_first[most:]:
        found[record.metadata.name] = Decision(Action.RELEASE, "retention-limit", text)


def _whose(record: IpEndpoint) -> tuple[str, str]:
    """The namespace and workload that the address is kept for."""
    key = parse_sticky_key(record.spec.sticky_key)
    if key is None or key.set_uid:
        return record.spec.pod.namespace, key.set_uid if key is not None else record.spec.sticky_key
    return key.namespace, key.name


class DroppedFamilies:
    """Finds retained addresses of a family that their pod no longer has, as its pools' list was changed.

    Between the two claims of a dual-stack pod it looks the same, so two looks must find the same versions.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}

    def judge(self, records: Iterable[IpEndpoint]) -> dict[str, Decision]:
        """Decide about the retained records, by name; to be called once in a sweep."""
        known = list(records)
        running = {
            (record.spec.sticky_key, record.spec.interface): record
            for record in known
            if record.spec.sticky_key and not is_retained(record)
        }
        seen: dict[str, tuple[str, str]] = {}
        found: dict[str, Decision] = {}
        for record in known:
            other = running.get((record.spec.sticky_key, record.spec.interface))
            if other is None or not is_retained(record):
                continue
            name = record.metadata.name
            seen[name] = (record.metadata.resource_version, other.metadata.resource_version)
            if self._seen.get(name) == seen[name]:
                found[name] = Decision(
                    Action.RELEASE,
                    "family-dropped",
                    f"its pod runs with {other.metadata.name} and without it",
                )
        self._seen = seen
        return found
