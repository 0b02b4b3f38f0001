"""The map of every pod and node address of the cluster: applying changes in batches, full syncs by difference.

The agent decides what belongs in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from fast.datapath.bpf.layout import ClusterPod, Kind
from fast.datapath.bpf.maps import ClusterPods
from fast.net import IPAddress, from_map_key, map_key


@dataclass(frozen=True, slots=True)
class SyncResult:
    """How many entries a full sync touched; ``left_out`` pods found no room in the map."""

    added: int
    changed: int
    removed: int
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class ClusterTable:
    """Writes ``fast_cluster_pods``, and knows which addresses in it are nodes'. For one caller at a time."""

    def __init__(
        self,
        entries: ClusterPods,
        own: Iterable[IPAddress],
        node_ip: IPv4Address,
        *,
        keep_classes: bool = False,
    ) -> None:
        """Read which nodes the map has from before, and put this one in, which is never taken out again.

        Args:
            entries: The map.
            own: This node's addresses; the programs know the node's own by these.
            node_ip: This node's underlay address.
            keep_classes: Whether the entries keep the policy classes that they have.
        """
        self._map = entries
        there = entries.snapshot_raw()
        self._nodes = self._nodes_of(there)
        #: The policy class of each address that has one, also of those that have no entry.
        self._classes: dict[bytes, int] = {}
        if keep_classes:
            found = {key: ClusterPod.unpack(raw).peer_class for key, raw in there.items()}
            self._classes = {key: peer_class for key, peer_class in found.items() if peer_class}
        self._own = {
            key: self._with_class(key, ClusterPod(node_ip, Kind.NODE).pack()) for key in map(map_key, own)
        }
        self._nodes.update(self._own)
        self._map.put_many_raw(self._own)

    @property
    def nodes(self) -> frozenset[IPAddress]:
        """The addresses in the map that are nodes'."""
        return frozenset(from_map_key(key) for key in self._nodes)

    @staticmethod
    def _nodes_of(entries: Mapping[bytes, bytes]) -> set[bytes]:
        return {key for key, value in entries.items() if ClusterPod.unpack(value).kind is Kind.NODE}

    def _with_class(self, key: bytes, value: bytes) -> bytes:
        peer_class = self._classes.get(key, 0)
        return replace(ClusterPod.unpack(value), peer_class=peer_class).pack() if peer_class else value

    def _add_classes(self, packed: dict[bytes, bytes]) -> None:
        for key in self._classes.keys() & packed.keys() if self._classes else ():
            packed[key] = self._with_class(key, packed[key])

    def set_classes(self, peer_class: int, keys: Iterable[bytes]) -> None:
        """Give addresses a policy class: now, or when they get an entry."""
        changed = {}
        for key in keys:
            if peer_class:
                self._classes[key] = peer_class
            else:
                self._classes.pop(key, None)
            if (raw := self._map.get_raw(key)) is not None:
                changed[key] = replace(ClusterPod.unpack(raw), peer_class=peer_class).pack()
        self._own |= {key: value for key, value in changed.items() if key in self._own}
        self._map.put_many_raw(changed)

    def keep_classes(self, known: Callable[[bytes], bool]) -> None:
        """Forget the classes of addresses that policy does not know; their entries stay as they are."""
        self._classes = {key: value for key, value in self._classes.items() if known(key)}

    def forget_classes(self, keys: Iterable[bytes]) -> None:
        """Forget the classes of these addresses."""
        for key in keys:
            self._classes.pop(key, None)

    def upsert(self, entries: Iterable[tuple[IPAddress, ClusterPod]]) -> None:
        """Set entries, new or changed.

        Raises:
            MapFull: The map has no room; what fitted before is set.
        """
        packed: dict[bytes, bytes] = {}
        for address, entry in entries:
            key = map_key(address)
            packed[key] = entry.pack()
            (self._nodes.add if entry.kind is Kind.NODE else self._nodes.discard)(key)
        self._add_classes(packed)
        self._map.put_many_raw(packed | self._own)

    def remove(self, addresses: Iterable[IPAddress]) -> int:
        """Delete entries; give how many there were."""
        keys = [key for address in addresses if (key := map_key(address)) not in self._own]
        self._nodes.difference_update(keys)
        return self._map.delete_many_raw(keys)

    def entries(self) -> dict[IPAddress, ClusterPod]:
        """Read the map."""
        return {from_map_key(key): ClusterPod.unpack(raw) for key, raw in self._map.snapshot_raw().items()}

    def sync(self, entries: Mapping[IPAddress, ClusterPod]) -> SyncResult:
        """Make the map hold exactly these entries, writing only what differs.

        If they do not fit, nodes get room first, then pods that are in the map already, then the others; the number of
        those left out is in the result.

        Raises:
            MapFull: Not even the nodes fit.
        """
        packed: dict[bytes, bytes] = {}
        nodes: set[bytes] = set()
        values: dict[int, bytes] = {}  # by identity: all pods of a node share one entry
        for address, entry in entries.items():
            key = map_key(address)
            packed[key] = values.get(id(entry)) or values.setdefault(id(entry), entry.pack())
            if entry.kind is Kind.NODE:
                nodes.add(key)
        self._add_classes(packed)
        packed |= self._own
        nodes |= self._own.keys()
        there = self._map.snapshot_raw()
        left_out = self._leave_out(packed, nodes, there)
        different = {key: value for key, value in packed.items() if there.get(key) != value}
        stale = [key for key in there if key not in packed]
        added = sum(key not in there for key in different)
        self._nodes = nodes
        self._map.delete_many_raw(stale)
        self._map.put_many_raw({key: different[key] for key in different if key in nodes})
        self._map.put_many_raw({key: different[key] for key in different if key not in nodes})
        return SyncResult(added, len(different) - added, len(stale), left_out)

    def _leave_out(self, packed: dict[bytes, bytes], nodes: set[bytes], there: Mapping[bytes, bytes]) -> int:
        """Take the pods out of ``packed`` that find no room; give how many."""
        surplus = len(packed) - self._map.info.max_entries
        if surplus <= 0:
            return 0
        pods = sorted((key for key in packed if key not in nodes), key=lambda key: (key not in there, key))
        for key in pods[max(0, len(pods) - surplus) :]:
            del packed[key]
        return min(surplus, len(pods))
