"""Decides which addresses of the cluster count: records of pods and addresses of nodes, each after a check. Pure.

A record counts only inside its pool's ranges, and at most MOST_PODS of a node; a node's address counts only outside
every pool, every Service network and every record that counts. An address that counts keeps counting until its record
or node goes, as an edited pool must not cut running pods off. What does not count is skipped and named by its reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, ip_network

from fast.api.fastnode import FastNode
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips, pool_addresses
from fast.datapath.bpf.layout import ClusterPod, Kind
from fast.errors import InvalidRange
from fast.net import SPECIAL_NETWORKS, AddressRange, IPAddress, IPNetwork, RangeSet, record_name, special_use

#: What a node can hold: fast_local_pods has as many entries.
MOST_PODS = 4096
#: Names kept as examples for each reason.
_EXAMPLES = 3
#: Addresses that no pod and no node can have, by IP version.
SPECIAL = {
    version: RangeSet(
        AddressRange.of_network(network)
        for network in map(ip_network, SPECIAL_NETWORKS)
        if network.version == version
    )
    for version in (4, 6)
}

#: Entries to set, or, with None, to remove.
Changes = dict[IPAddress, ClusterPod | None]
Entries = dict[IPAddress, ClusterPod]


class Refusal(StrEnum):
    """Why a record or a node's address does not count."""

    OUTSIDE_POOL = "record-outside-pool"
    SPECIAL_ADDRESS = "special-address"
    NODE_ADDRESS = "record-has-a-nodes-address"
    TOO_MANY = "too-many-records-of-a-node"
    IN_POOL = "node-address-in-a-pool"
    POD_ADDRESS = "node-address-is-a-pods"
    TAKEN = "node-address-of-another-node"
    SERVICE_ADDRESS = "node-address-is-a-services"
    NO_ROOM = "no-room-in-the-map"


@dataclass(frozen=True, slots=True)
class Refused:
    """How many are refused for one reason, and the names of some."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a judgement rests on, as seen at one moment.

    Attributes:
        pools: Every pool.
        nodes: Every FastNode.
        records: Every record.
        held: The map's entries, for the first judgement of a process: what is in it counted before.
    """

    pools: Iterable[Ips] = ()
    nodes: Iterable[FastNode] = ()
    records: Iterable[IpEndpoint] = ()
    held: Mapping[IPAddress, ClusterPod] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pool:
    """The ranges of a pool. ``established``: the controller has not refused it, so younger nodes keep out of it."""

    ranges: RangeSet
    established: bool
    created: str

    @classmethod
    def of(cls, pool: Ips) -> _Pool | None:
        """Read a pool; None if its spec cannot be used."""
        try:
            addresses = pool_addresses(pool.spec)
        except InvalidRange:
            return None
        ranges = addresses.usable.without(SPECIAL[addresses.version])
        return cls(ranges, not pool.refused, pool.metadata.creation_timestamp or "")


@dataclass(frozen=True, slots=True)
class _Place:
    """A node as others may use it: the entry of its pods, its addresses that count, and those that do not."""

    pods: ClusterPod | None = None
    addresses: Mapping[IPAddress, ClusterPod] = field(default_factory=dict)
    refused: Mapping[IPAddress, Refusal] = field(default_factory=dict)


_NOWHERE = _Place()


class ClusterJudge:
    """What counts now. Methods that take a change give the entries that change by it.

    Attributes:
        judged: Whether everything was judged once.
    """

    def __init__(
        self,
        own_name: str,
        own_addresses: Collection[IPAddress],
        find_record: Callable[[str], IpEndpoint | None],
        services: Collection[IPNetwork] = (),
        created: Callable[[str], str] = lambda _: "",
    ) -> None:
        """Begin with nothing but this node.

        Args:
            own_name: This node's name.
            own_addresses: Its addresses, the IPv4 one of the underlay first; they count without a FastNode.
            find_record: Gives the record of a name as seen now.
            services: Networks of the cluster's Services.
            created: Gives when a Node was created (RFC 3339); empty if that is not known.
        """
        self._arguments = own_name, own_addresses, find_record, services, created
        self._created = created
        self._own_name = own_name
        self._find_record = find_record
        self._services = services
        underlay = next(item for item in own_addresses if isinstance(item, IPv4Address))
        own = dict.fromkeys(own_addresses, ClusterPod(underlay, Kind.NODE))
        self._places: dict[str, _Place] = {own_name: _Place(ClusterPod(underlay, Kind.POD), own)}
        self._claims: dict[str, FastNode] = {}
        self._node_addresses = Counter(map(record_name, own))  # as records of them would be named
        self._pools: dict[str, _Pool | None] = {}
        self._counting: defaultdict[str, set[str]] = defaultdict(set)  # names of records, by node
        self._refused: dict[str, Refusal] = {}  # by record's name
        self._inherited: dict[str, ClusterPod] = {}  # by record's name, on nodes without a FastNode so far
        self.judged = False

    def judge_everything(self, world: World) -> tuple[ClusterJudge, Entries]:
        """Judge everything again; gives a new judge and the whole map. May run in a thread, as nothing here changes.

        Takes half a second of CPU with 100,000 records.
        """
        made = ClusterJudge(*self._arguments)
        made.judged = True
        made._pools = {pool.metadata.name: _Pool.of(pool) for pool in world.pools}
        known: list[tuple[IPAddress, IpEndpoint]] = []
        new: list[tuple[IPAddress, IpEndpoint]] = []
        for record in world.records:
            if (address := record.find_address()) is None:
                continue
            name = record.metadata.name
            held = (
                self._inherited.get(name) if self.judged else world.held.get(address) if world.held else None
            )
            if held is not None and held.kind is Kind.POD:
                made._inherited[name] = held
            if (self.judged and self._counted(record)) or name in made._inherited:
                made._counting[record.spec.node].add(name)
                known.append((address, record))
            else:
                new.append((address, record))
        made._take_nodes({node.metadata.name: (node, self._kept(node, world.held)) for node in world.nodes})
        made._inherited = {
            name: made._inherited[name]
            for address, record in known
            if (name := record.metadata.name) in made._inherited and record.spec.node not in made._places
        }
        entries: Entries = {}
        for address, record in known:
            if (entry := made._entry_of(record)) is not None:
                entries[address] = entry
        for address, record in new:
            if made._judge_record(record, address, known=False) and (entry := made._entry_by_place(record)):
                entries[address] = entry
        for place in made._places.values():
            entries.update(place.addresses)
        return made, entries

    def _counted(self, record: IpEndpoint) -> bool:
        return record.metadata.name in self._counting.get(record.spec.node, ())

    def _kept(self, node: FastNode, held: Mapping[IPAddress, ClusterPod]) -> set[IPAddress]:
        """Give the addresses of a node that counted before, with the same underlay address."""
        before = self._places.get(node.metadata.name, _NOWHERE).addresses if self.judged else held
        wanted = (Kind.NODE, node.find_underlay())
        return {
            address
            for address in node.find_addresses()
            if (entry := before.get(address)) is not None and (entry.kind, entry.node_ip) == wanted
        }

    # One change.

    def set_services(self, services: Collection[IPNetwork]) -> None:
        """Set the networks of the cluster's Services, which no node can have addresses of."""
        self._services = services
        own_name, own_addresses, find_record, _, created = self._arguments
        self._arguments = own_name, own_addresses, find_record, services, created

    def record_changed(self, old: IpEndpoint | None, new: IpEndpoint | None) -> Changes:
        """Take a changed record."""
        shown = new if new is not None else old
        address = None if shown is None else shown.find_address()
        if shown is None or address is None:
            return {}
        name = shown.metadata.name
        if old is None:  # judged already, if everything was judged meanwhile
            known, before = self._counted(new) if new is not None else False, None
        else:
            known, before = self._counted(old), self._entry_of(old)
            self._counting[old.spec.node].discard(name)
            self._refused.pop(name, None)
            if new is None or new.spec.node != old.spec.node:
                self._inherited.pop(name, None)
        if new is not None:
            self._judge_record(new, address, known=known)
        entry = None if new is None else self._entry_of(new)
        changes: Changes = {} if entry == before else {address: entry}
        if old is not None and known and entry is None:
            changes |= self._make_room(old.spec.node) | self._judge_claims_of(address)
        return changes

    def node_changed(self, old: FastNode | None, new: FastNode | None) -> Changes:
        """Take a changed FastNode: its addresses, and every entry of its pods, follow."""
        shown = new if new is not None else old
        if shown is None or shown.metadata.name == self._own_name:
            return {}
        if old is not None and new is not None and old.spec == new.spec:
            return {}
        name = shown.metadata.name
        before = self._places.pop(name, _NOWHERE)
        self._leave(before)
        self._claims.pop(name, None)
        if new is not None:
            wanted = (Kind.NODE, new.find_underlay())
            kept = {item for item, entry in before.addresses.items() if (entry.kind, entry.node_ip) == wanted}
            self._take_node(new, kept)
        return self._moved(name, before)

    def pool_changed(self, name: str, new: Ips | None) -> Changes:
        """Take a changed pool: records and nodes that it refused, or that others refused for it, are judged again."""
        pool = None if new is None else _Pool.of(new)
        if name in self._pools and self._pools[name] == pool:
            return {}
        self._pools[name] = pool
        if new is None:
            del self._pools[name]
        return self._judge_records_again(Refusal.OUTSIDE_POOL, name) | self._judge_nodes_again()

    # Judging again what was refused.

    def _judge_records_again(self, why: Refusal, pool: str = "", node: str = "", most: int = 0) -> Changes:
        """Judge refused records again, of one pool or one node, ``most`` at most (0: all)."""
        changes: Changes = {}
        for name in [name for name, reason in self._refused.items() if reason is why]:
            record = self._find_record(name)
            if record is None or (pool and record.spec.pool != pool) or (node and record.spec.node != node):
                continue
            address = record.address
            self._judge_record(record, address, known=False)
            if (entry := self._entry_of(record)) is not None:
                changes[address] = entry
            if most and len(changes) >= most:
                break
        return changes

    def _make_room(self, node: str) -> Changes:
        """Let a record count that was refused because its node had too many."""
        if len(self._counting[node]) != MOST_PODS - 1:
            return {}
        return self._judge_records_again(Refusal.TOO_MANY, node=node, most=1)

    def _judge_claims_of(self, address: IPAddress) -> Changes:
        """Judge the nodes again that were refused this address."""
        if not any(address in place.refused for place in self._places.values()):
            return {}
        return self._judge_nodes_again()

    def _judge_nodes_again(self) -> Changes:
        changes: Changes = {}
        for name in [name for name, place in self._places.items() if place.refused]:
            before, node = self._places.pop(name), self._claims[name]
            self._leave(before)
            self._take_node(node, set(before.addresses))
            changes |= self._moved(name, before)
        return changes

    def _moved(self, name: str, before: _Place) -> Changes:
        """Give the entries that a node's change of place changes."""
        after = self._places.get(name, _NOWHERE)
        changes: Changes = {}
        for address in before.addresses.keys() | after.addresses.keys():
            entry = after.addresses.get(address) or self._entry_at(address)
            if entry != before.addresses.get(address):
                changes[address] = entry
        if after.pods != before.pods:
            for record in filter(None, map(self._find_record, self._counting[name])):
                self._inherited.pop(record.metadata.name, None)
                if record.spec.container_id:
                    changes[record.address] = after.pods
        gone = before.addresses.keys() - after.addresses.keys()
        for address in gone:
            refused = self._find_record(record_name(address))
            if refused is not None and self._refused.get(refused.metadata.name) is Refusal.NODE_ADDRESS:
                self._judge_record(refused, address, known=False)
                changes[address] = self._entry_of(refused)
        if gone and any(place.refused for place in self._places.values()):
            changes |= self._judge_nodes_again()
        return changes

    def _entry_at(self, address: IPAddress) -> ClusterPod | None:
        """Give what the address is without the node that just left it: another node's, with the same address."""
        return next(
            (place.addresses[address] for place in self._places.values() if address in place.addresses), None
        )

    # The rules.

    def _take_nodes(self, nodes: Mapping[str, tuple[FastNode, Collection[IPAddress]]]) -> None:
        """Judge nodes, each with its addresses that counted before: no other node gets those; then the oldest first."""
        for node, kept in nodes.values():
            new = [address for address in node.find_addresses() if address not in kept]
            self._put(node, dict.fromkeys(new, Refusal.TAKEN))
        for node, kept in sorted(nodes.values(), key=lambda item: _seniority(item[0])):
            if node.metadata.name != self._own_name:
                self._leave(self._places[node.metadata.name])
                self._take_node(node, kept)

    def _take_node(self, node: FastNode, kept: Collection[IPAddress]) -> None:
        """Judge a node's addresses and note which count; those in ``kept`` counted before."""
        self._places.pop(node.metadata.name, None)
        refused = {
            address: why
            for address in node.find_addresses()
            if (why := self._why_not_address(node, address, kept)) is not None
        }
        self._put(node, refused)

    def _put(self, node: FastNode, refused: Mapping[IPAddress, Refusal]) -> None:
        """Note which addresses of a node count. This node's own always do, without its FastNode."""
        name = node.metadata.name
        if name == self._own_name:
            return
        self._claims[name] = node
        place = self._places[name] = _place(node, refused)
        self._node_addresses.update(map(record_name, place.addresses))

    def _leave(self, place: _Place) -> None:
        """Forget the addresses of a place that a node had."""
        for name in map(record_name, place.addresses):
            self._node_addresses[name] -= 1
            if self._node_addresses[name] <= 0:
                del self._node_addresses[name]

    def _why_not_address(
        self, node: FastNode, address: IPAddress, kept: Collection[IPAddress]
    ) -> Refusal | None:
        if special_use(address):
            return Refusal.SPECIAL_ADDRESS
        name = record_name(address)
        entry = self._entry_at(address) if name in self._node_addresses else None
        if entry is not None and entry.node_ip != node.find_underlay():
            return Refusal.TAKEN
        if address in kept:
            return None
        if any(address in network for network in self._services):
            return Refusal.SERVICE_ADDRESS
        if any(name in names for names in self._counting.values()):
            return Refusal.POD_ADDRESS
        return Refusal.IN_POOL if self._is_in_older_pool(node, address) else None

    def _is_in_older_pool(self, node: FastNode, address: IPAddress) -> bool:
        """Whether a pool had the address before the node came. A pool laid over nodes later cuts none of them off."""
        known = (self._created(node.metadata.name), node.metadata.creation_timestamp or "")
        created = min(filter(None, known), default="")
        return any(
            address in pool.ranges
            for pool in self._pools.values()
            if pool is not None and pool.established and (not created or pool.created <= created)
        )

    def _judge_record(self, record: IpEndpoint, address: IPAddress, *, known: bool) -> bool:
        """Decide and note whether a record counts; ``known``: it did before."""
        name = record.metadata.name
        why = self._why_not_record(record, address, known=known)
        if why is None:
            self._refused.pop(name, None)
            self._counting[record.spec.node].add(name)
        else:
            self._refused[name] = why
        return why is None

    def _why_not_record(self, record: IpEndpoint, address: IPAddress, *, known: bool) -> Refusal | None:
        if known:
            return None
        pool = self._pools.get(record.spec.pool)
        if pool is None or address not in pool.ranges:
            return Refusal.SPECIAL_ADDRESS if special_use(address) else Refusal.OUTSIDE_POOL
        if record.metadata.name in self._node_addresses:
            return Refusal.NODE_ADDRESS
        if record.spec.container_id and len(self._counting[record.spec.node]) >= MOST_PODS:
            return Refusal.TOO_MANY
        return None

    def _entry_of(self, record: IpEndpoint) -> ClusterPod | None:
        """Give a record's entry; None if it does not count, is retained, or its node is not known."""
        return self._entry_by_place(record) if self._counted(record) else None

    def _entry_by_place(self, record: IpEndpoint) -> ClusterPod | None:
        """Give the entry of a record that counts; None if it is retained, or its node is not known."""
        if not record.spec.container_id:
            return None
        place = self._places.get(record.spec.node)
        return place.pods if place is not None else self._inherited.get(record.metadata.name)

    # What is told.

    def counts(self, record: IpEndpoint) -> bool:
        """Whether a record counts."""
        return self._counted(record)

    def node_addresses(self) -> set[IPAddress]:
        """Give the nodes' addresses that count, this node's included."""
        return {address for place in self._places.values() for address in place.addresses}

    def names_of(self, node: str) -> frozenset[str]:
        """Give the names of a node's records that count."""
        return frozenset(self._counting.get(node, ()))

    def refusals(self) -> dict[Refusal, Refused]:
        """Give what does not count, by reason."""
        counts = Counter(self._refused.values())
        examples: defaultdict[Refusal, list[str]] = defaultdict(list)
        for name, why in self._refused.items():
            if len(examples[why]) < _EXAMPLES:
                examples[why].append(name)
        for name, place in self._places.items():
            for address, why in place.refused.items():
                counts[why] += 1
                examples[why].append(f"{address} of node {name}")
        return {why: Refused(count, tuple(examples[why][:_EXAMPLES])) for why, count in counts.items()}


def _seniority(node: FastNode) -> tuple[str, str]:
    return node.metadata.creation_timestamp or "", node.metadata.name


def _place(node: FastNode, refused: Mapping[IPAddress, Refusal]) -> _Place:
    """Make a node's place: without its underlay address, nothing of the node can be reached."""
    underlay = node.find_underlay()
    if underlay is None or underlay in refused:
        return _Place(refused=refused)
    counting = [address for address in node.find_addresses() if address not in refused]
    addresses = dict.fromkeys(counting, ClusterPod(underlay, Kind.NODE))
    return _Place(ClusterPod(underlay, Kind.POD), addresses, refused)
