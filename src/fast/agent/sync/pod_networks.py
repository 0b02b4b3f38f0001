"""Works out which networks are pods': the ranges of usable pools and the addresses in use outside them. Pure.

Routes, masquerade and rules follow these, not the width of a pool's subnet: a /8 with a narrow range leaves the rest of
the /8 as it is. Addresses of nodes and API servers are never among them, whatever a pool says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import summarize_address_range

from fast.agent.sync.cluster_judge import SPECIAL
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, owned_ranges
from fast.errors import InvalidRange
from fast.net import AddressRange, IPAddress, IPNetwork, RangeSet

_VERSIONS = (4, 6)


class PodNetworks:
    """Follows pools and records; tells when the networks change."""

    def __init__(self, changed: Callable[[frozenset[IPNetwork]], None]) -> None:
        """Begin with nothing; nothing is told before :meth:`review`.

        Args:
            changed: Called with the networks, each time they differ from those told last.
        """
        self._changed = changed
        self._owned = {version: RangeSet() for version in _VERSIONS}
        self._outside: set[IPAddress] = set()
        self._protected: frozenset[IPAddress] = frozenset()
        self._ready = False
        self._told: frozenset[IPNetwork] | None = None

    def set_pools(self, pools: Iterable[Ips], protected: Iterable[IPAddress]) -> None:
        """Take the pools as they are now. Afterwards :meth:`review` the records of those that changed.

        Args:
            pools: Every pool.
            protected: Addresses that are never pods': of nodes and API servers.
        """
        every, kept = list(pools), list(protected)
        self._owned = {version: _owned(every, kept, version) for version in _VERSIONS}
        self._protected = frozenset(kept)
        self._outside = {address for address in self._outside if not self._is_owned(address)}

    def review(self, records: Iterable[IpEndpoint], counts: Callable[[IpEndpoint], bool]) -> None:
        """Look which records are in use outside the pools' ranges, and tell.

        Args:
            records: Those whose pool changed.
            counts: Whether a record counts.
        """
        for record in records:
            address = record.find_address()
            if address is None or self._is_owned(address):
                continue
            self._note(address, in_use=bool(record.spec.container_id) and counts(record))
        self._ready = True
        self._tell()

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None, *, counts: bool) -> None:
        """Take a changed record; ``counts``: whether it counts now. Cheap for addresses inside the pools' ranges."""
        shown = new if new is not None else old
        address = None if shown is None else shown.find_address()
        if address is None or self._is_owned(address):
            return
        self._note(address, in_use=new is not None and bool(new.spec.container_id) and counts)
        self._tell()

    def _note(self, address: IPAddress, *, in_use: bool) -> None:
        if in_use and address not in self._protected:
            self._outside.add(address)
        else:
            self._outside.discard(address)

    def _is_owned(self, address: IPAddress) -> bool:
        return address in self._owned[address.version]

    def _tell(self) -> None:
        if not self._ready:
            return
        networks: list[IPNetwork] = []
        for version, owned in self._owned.items():
            outside = RangeSet(AddressRange.of(item) for item in self._outside if item.version == version)
            for item in (*owned.ranges, *outside.ranges):
                networks += summarize_address_range(item.address(item.first), item.address(item.last))
        found = frozenset(networks)
        if found != self._told:
            self._told = found
            self._changed(found)


def _owned(pools: Iterable[Ips], protected: Iterable[IPAddress], version: int) -> RangeSet:
    """Give the addresses of one IP version that usable pools own, without those that are never pods'."""
    ranges: list[AddressRange] = []
    for pool in pools:
        if pool.refused:
            continue
        try:
            owned = owned_ranges(pool.spec)
        except InvalidRange:
            continue  # the pool's condition says so; it serves no pod
        ranges += [item for item in owned.ranges if item.version == version]
    kept = [AddressRange.of(address) for address in protected if address.version == version]
    return RangeSet(ranges).without(RangeSet(kept)).without(SPECIAL[version])
