"""What of the pods' networks this node must not take, because it reaches it otherwise. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network, summarize_address_range

from fast.datapath.netlink import Route, requests
from fast.net import AddressRange, IPAddress, IPNetwork, RangeSet


def carve(
    networks: Iterable[IPNetwork], routes: Iterable[Route], find_pods: Callable[[], Iterable[IPAddress]]
) -> frozenset[IPNetwork]:
    """Leave out of the pods' networks what others route, but for the pods in it.

    Left out are gateways, a device's own network, and every narrower network that somebody else's route leads to: the
    nodes' LAN with a pool around it, the network of another bridge. Pods that live there get routes of their own.

    Args:
        networks: Where pods may live.
        routes: The main table.
        find_pods: Gives the addresses of all pods; called only if something is left out.
    """
    wanted = frozenset(networks)
    foreign = [route for route in routes if route.protocol != requests.ROUTE_PROTOCOL]
    gateways = {ip_network(route.gateway) for route in foreign if route.gateway is not None}
    holes = gateways | {
        route.destination
        for route in foreign
        if route.destination.prefixlen and any(_takes(network, route) for network in wanted)
    }
    cut = {network for network in wanted if any(_overlap(network, hole) for hole in holes)}
    if not cut:
        return wanted
    kept = [piece for network in cut for piece in _without(network, holes)]
    pods = [
        address
        for address in find_pods()
        if any(address in network for network in cut)
        and any(address in hole for hole in holes)
        and ip_network(address) not in gateways
    ]
    return frozenset([*(wanted - cut), *kept, *map(ip_network, pods)])


def _takes(network: IPNetwork, route: Route) -> bool:
    """Whether a pods' network would take what the route leads to: it is wider, or it is a device's own network."""
    if not _overlap(network, route.destination):
        return False
    if network.prefixlen == route.destination.prefixlen:
        return route.is_connected  # a learnt route of the same network is weighed by its metric (routing.py)
    return network.prefixlen < route.destination.prefixlen


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _without(network: IPNetwork, holes: Iterable[IPNetwork]) -> list[IPNetwork]:
    there = RangeSet(AddressRange.of_network(hole) for hole in holes if hole.version == network.version)
    left = RangeSet([AddressRange.of_network(network)]).without(there)
    return [
        piece
        for item in left.ranges
        for piece in summarize_address_range(item.address(item.first), item.address(item.last))
    ]
