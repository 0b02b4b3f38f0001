"""Keeps the datapath's networks of pods in step with pools, records and nodes. Which they are: ``pod_networks``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fast.agent.sync.cluster_sync import ClusterKnown, ClusterSync
from fast.agent.sync.pod_networks import PodNetworks
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips
from fast.errors import InvalidRange
from fast.net import IPAddress, IPNetwork, parse_address


class NetworkSync:
    """Follows pools and records; tells the datapath when networks change.

    Args:
        known: What the informers know.
        cluster: Knows what counts.
        changed: Told the networks.
        servers: Hosts of the API server; those that are addresses are never pods'.
    """

    def __init__(
        self,
        known: ClusterKnown,
        cluster: ClusterSync,
        changed: Callable[[frozenset[IPNetwork]], None],
        servers: Iterable[str],
    ) -> None:
        self._known = known
        self._cluster = cluster
        self._networks = PodNetworks(changed)
        self._servers = _addresses(servers)
        self._started = False
        self._counted = False

    def start(self) -> None:
        """Begin, once every list is there; before, changes are not followed."""
        self._started = True
        self._follow(self._known.records.values())

    def cluster_judged(self) -> None:
        """Look at all records once more, when it is known for the first time which of them count."""
        if not self._counted and self._started:
            self._counted = True
            self._follow(self._known.records.values())

    def pool_changed(self, old: Ips | None, new: Ips | None) -> None:
        """Take a changed pool. Counts in its status change nothing."""
        shown = new if new is not None else old
        if shown is None or not self._started:
            return
        if old is None or new is None or (old.spec, old.refused) != (new.spec, new.refused):
            name = shown.metadata.name
            self._follow([record for record in self._known.records.values() if record.spec.pool == name])

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> None:
        """Take a changed record, after the cluster judged it."""
        if self._started:
            counts = new is not None and self._cluster.counts(new)
            self._networks.record_changed(old, new, counts=counts)

    def nodes_changed(self) -> None:
        """Take changed addresses of nodes."""
        if self._counted:
            self._follow(())

    def _follow(self, records: Iterable[IpEndpoint]) -> None:
        self._networks.set_pools(self._known.pools.values(), self._cluster.node_addresses() | self._servers)
        self._networks.review(records, self._cluster.counts)


def _addresses(texts: Iterable[str]) -> frozenset[IPAddress]:
    found = set()
    for text in texts:
        try:
            found.add(parse_address(text))
        except InvalidRange:
            continue  # a name: what it resolves to may change at any time
    return frozenset(found)
