"""Address management's Prometheus metrics, named and counted in one place."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fast.ipam.pool.pool_counts import PoolCounts


class IpamMetrics:
    """The metrics of one process.

    Args:
        registry: Where they are registered; by default one of their own, which nobody scrapes.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry if registry is not None else CollectorRegistry()
        self.claims = Counter(
            "fast_ipam_claims",
            "Claims of an address by result: created, existing, take_over, rebind, exhausted, refused, error",
            ["pool", "result"],
            registry=registry,
        )
        self.conflicts = Counter(
            "fast_ipam_conflicts",
            "Candidates that the API server said were taken",
            ["pool"],
            registry=registry,
        )
        self.claim_seconds = Histogram(
            "fast_ipam_claim_duration_seconds",
            "Time of a claim, all families",
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.addresses = Gauge(
            "fast_ipam_addresses",
            "Addresses of a pool by state: bound, retained, free",
            ["pool", "state"],
            registry=registry,
        )
        self.cooling = Gauge(
            "fast_ipam_cooling_addresses",
            "Free addresses of a pool that this agent does not give out yet, as they were just released",
            ["pool"],
            registry=registry,
        )
        self.released = Counter(
            "fast_ipam_released",
            "Addresses released or retained, by the rule that did it: del, no-sandbox, rebooted-node, node-gone …",
            ["pool", "rule"],
            registry=registry,
        )
        self.drift = Gauge(
            "fast_ipam_drift",
            "Differences between records, sandboxes and eBPF maps at the last audit, by kind",
            ["kind"],
            registry=registry,
        )
        self.gc_stopped = Gauge(
            "fast_ipam_gc_stopped",
            "1 while the controller's garbage collection is stopped by its circuit breaker",
            registry=registry,
        )

    def count_pools(self, counts: Mapping[str, PoolCounts], *, cooling: bool = False) -> None:
        """Set the gauges of addresses; pools that are not named lose theirs.

        Args:
            counts: By pool.
            cooling: Whether this process knows what cools.
        """
        self.addresses.clear()
        self.cooling.clear()
        for pool, found in counts.items():
            for state in ("bound", "retained", "free"):
                self.addresses.labels(pool, state).set(getattr(found, state))
            if cooling:
                self.cooling.labels(pool).set(found.cooling)
