"""Routes to the tunnel device: for what the stack sends to other nodes' pods, and for pods' packets to other nodes.

The main table has the pod subnets. Fast's own table has the other nodes' addresses; it is used for packets whose source
is a pod: a Service may translate a pod's packet to a process on another node (an API server). If that packet left by
the underlay, its reply would come back through the tunnel and pass no translation; and some underlays drop foreign
sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

import structlog

from fast.datapath.netlink import Link, Netlink, Request, Route, requests, wire
from fast.datapath.node.tunnel import TUNNEL_DEVICE, Mtus
from fast.datapath.pod.identity import DEVICE_PREFIX, gateway_of
from fast.datapath.repair import Repair, RepairKind
from fast.net import IPAddress, IPNetwork

log = structlog.get_logger()

#: Fast's own routing table, and the priority of the rules that look into it: before the main table (32766).
NODES_TABLE = 117
_RULE_PRIORITY = 11_700


def ensure_subnet_routes(
    netlink: Netlink, link: Link, mtus: Mtus, subnets: Mapping[IPNetwork, IPAddress | None]
) -> list[Repair]:
    """Route the pod subnets, and nothing else of Fast's, to the tunnel device.

    Args:
        netlink: In the node's namespace.
        link: The tunnel device.
        mtus: What it carries.
        subnets: Each with the address that the node itself has towards it; None: the kernel chooses.

    A subnet that somebody else already routes elsewhere is left alone, and logged: taking the route of the nodes' own
    network would cut the node off.

    Raises:
        NetlinkError: The kernel refused.
    """
    wanted = {
        subnet: (source, _route_mtu(subnet, mtus), gateway_of(subnet.network_address))
        for subnet, source in subnets.items()
    }
    found: dict[IPNetwork, Route] = {}
    others: list[Route] = []
    for route in netlink.routes():
        if route.index == link.index and route.protocol == requests.ROUTE_PROTOCOL:
            found[route.destination] = route
        elif route.destination in wanted:
            others.append(route)
    for route in others:
        if route.destination in wanted and _goes_before(route, found.get(route.destination)):
            del wanted[route.destination]
            log.error(
                "pod subnet is routed elsewhere already, left alone",
                subnet=str(route.destination),
                route=route,
            )
    right = {
        subnet
        for subnet, route in found.items()
        if wanted.get(subnet) == (route.source, route.mtu, route.gateway)
    }
    missing = [subnet for subnet in wanted if subnet not in right]
    extra = [subnet for subnet in found if subnet not in wanted]
    netlink.execute(
        *(
            _route(subnet, link, source=source, mtu=mtu)
            for subnet in missing
            for source, mtu, _ in [wanted[subnet]]
        ),
        *(requests.delete_route(subnet, link.index) for subnet in extra),
    )
    return [
        *(Repair(RepairKind.ROUTE, f"route {subnet} to {link.name} differed; set") for subnet in missing),
        *(
            Repair(RepairKind.ROUTE, f"route {subnet} to {link.name} is no longer needed; deleted")
            for subnet in extra
        ),
    ]


def _route(
    destination: IPNetwork,
    link: Link,
    *,
    source: IPAddress | None = None,
    mtu: int | None = None,
    table: int = wire.RT_TABLE_MAIN,
) -> Request:
    """Route the destination to the tunnel device, by one gateway for all.

    The kernel keeps a neighbour entry for each next hop, and its table is the whole machine's: with routes without a
    gateway, a pod that scans a pool would fill it. No packet is sent to the gateway: the device has no ARP.
    """
    return requests.replace_route(
        destination,
        link.index,
        gateway=gateway_of(destination.network_address),
        source=source,
        mtu=mtu,
        table=table,
        gateway_on_link=True,
    )


def _goes_before(route: Route, ours: Route | None) -> bool:
    """Return whether Fast leaves a destination to somebody else's route.

    That is any route that was there first; later one with a better metric, and the network of one of the node's own
    devices, whatever its metric. A worse route of a routing daemon changes nothing.
    """
    return ours is None or route.is_connected or route.priority <= ours.priority


def find_subnets(netlink: Netlink) -> frozenset[IPNetwork]:
    """Return the pod subnets that the node routes to the tunnel device now."""
    link = netlink.find_link(TUNNEL_DEVICE)
    if link is None:
        return frozenset()
    return frozenset(
        route.destination
        for route in netlink.routes()
        if route.index == link.index and route.protocol == requests.ROUTE_PROTOCOL
    )


def find_connected(netlink: Netlink) -> frozenset[IPNetwork]:
    """Return the networks that the node's own devices are on, other than those of Fast."""
    own = {link.index for link in netlink.links() if link.name.startswith(DEVICE_PREFIX)}
    return frozenset(
        route.destination
        for route in netlink.routes()
        if route.is_connected
        and route.index not in own
        and 0 < route.destination.prefixlen < route.destination.max_prefixlen
    )


def ensure_node_routes(
    netlink: Netlink, link: Link, mtus: Mtus, subnets: Iterable[IPNetwork], nodes: Iterable[IPAddress]
) -> list[Repair]:
    """Route what pods send to other nodes to the tunnel device, and nothing else of Fast's.

    Args:
        netlink: In the node's namespace.
        link: The tunnel device.
        mtus: What it carries.
        subnets: Where pods live.
        nodes: The addresses of the other nodes.

    Raises:
        NetlinkError: The kernel refused.
    """
    wanted = {
        node: (_route_mtu(node, mtus), gateway_of(node.network_address)) for node in map(ip_network, nodes)
    }
    found = {
        route.destination: (route.mtu, route.gateway)
        for route in netlink.routes(table=NODES_TABLE)
        if route.index == link.index
    }
    missing = [node for node in wanted if found.get(node) != wanted[node]]
    extra = [node for node in found if node not in wanted]
    ruled = {rule.source for rule in netlink.rules() if rule.table == NODES_TABLE}
    sources = set(subnets)
    netlink.execute(
        *(_route(node, link, mtu=wanted[node][0], table=NODES_TABLE) for node in missing),
        *(requests.delete_route(node, link.index, table=NODES_TABLE) for node in extra),
        *(requests.add_rule(source, NODES_TABLE, _RULE_PRIORITY) for source in sources - ruled),
        *(requests.delete_rule(source, NODES_TABLE, _RULE_PRIORITY) for source in ruled - sources),
    )
    return [
        *(Repair(RepairKind.ROUTE, f"route of pods to node {node.network_address} set") for node in missing),
        *(
            Repair(RepairKind.ROUTE, f"route of pods to node {node.network_address} deleted")
            for node in extra
        ),
        *(Repair(RepairKind.ROUTE, f"rule for packets from {source} set") for source in sources - ruled),
        *(Repair(RepairKind.ROUTE, f"rule for packets from {source} deleted") for source in ruled - sources),
    ]


def resolve_nodes(netlink: Netlink, underlay: int, nodes: Iterable[IPAddress]) -> None:
    """Resolve the MACs of the other nodes before the first packet: for native routing.

    A packet that a program redirects to a node whose MAC is unknown is lost: it waits for the answer, and then goes
    where its route leads, the tunnel device (net/core/neighbour.c, __neigh_update). Repeated with every verification,
    as entries expire.

    Args:
        netlink: In the node's namespace.
        underlay: Index of the device that the nodes are on.
        nodes: The addresses of the other nodes; those of IPv6 are not routed natively and left out.

    Raises:
        NetlinkError: The kernel refused.
    """
    netlink.execute(*(requests.resolve_neighbour(underlay, node) for node in nodes if node.version == 4))  # noqa: PLR2004


def remove_rules(netlink: Netlink) -> None:
    """Delete Fast's routing rules. The routes go with the tunnel device. Idempotent."""
    mine = [rule for rule in netlink.rules() if rule.table == NODES_TABLE]
    netlink.execute(*(requests.delete_rule(rule.source, NODES_TABLE, _RULE_PRIORITY) for rule in mine))


def _route_mtu(subnet: IPNetwork, mtus: Mtus) -> int | None:
    """Natively routed, the device carries the underlay's full size for IPv4; IPv6 takes the tunnel even then."""
    return mtus.tunnel if subnet.version == 6 and mtus.tunnel < mtus.tunnel_device else None  # noqa: PLR2004
