"""What of the pods' networks a node leaves out, because it reaches it otherwise."""

from ipaddress import ip_address, ip_network

from fast.datapath.netlink import Route, requests
from fast.datapath.node.carving import carve


def route(destination, *, via=None, protocol=2):
    return Route(
        destination=ip_network(destination),
        index=2,
        gateway=ip_address(via) if via else None,
        source=None,
        protocol=protocol,
        table=254,
        priority=0,
    )


def carved(*networks, routes=(), pods=()):
    return carve(map(ip_network, networks), routes, lambda: map(ip_address, pods))


def holds(found, address):
    return any(ip_address(address) in network for network in found)


def nets(*texts):
    return frozenset(map(ip_network, texts))


DEFAULT = route("0.0.0.0/0", via="192.168.77.254")
LAN = route("192.168.77.0/24")


def test_a_pool_apart_from_the_nodes_world_stays_whole():
    assert carved("10.244.0.0/16", "fd00::/64", routes=[DEFAULT, LAN]) == nets("10.244.0.0/16", "fd00::/64")


def test_a_pool_around_the_nodes_lan_leaves_the_lan_and_the_default_gateway_alone():
    found = carved("192.168.0.0/16", routes=[DEFAULT, LAN])
    assert not any(holds(found, address) for address in ("192.168.77.1", "192.168.77.254"))
    assert holds(found, "192.168.76.255")
    assert holds(found, "192.168.78.0")


def test_a_pool_that_is_the_lan_has_the_addresses_of_its_pods_only():
    found = carved("192.168.77.0/24", routes=[DEFAULT, LAN], pods=["192.168.77.50", "10.244.0.1"])
    assert found == nets("192.168.77.50/32")


def test_a_part_of_the_lan_is_a_pools_but_for_the_gateway():
    found = carved("192.168.77.128/25", routes=[DEFAULT, LAN])
    assert holds(found, "192.168.77.200")
    assert not holds(found, "192.168.77.254")


def test_a_narrower_route_of_somebody_else_is_left_alone_and_a_wider_one_is_not():
    narrow, wide = route("172.17.0.0/16"), route("10.0.0.0/8", via="192.168.77.254")
    found = carved("172.16.0.0/12", "10.244.0.0/16", routes=[DEFAULT, LAN, narrow, wide])
    assert not holds(found, "172.17.0.1")
    assert holds(found, "172.18.0.1")
    assert ip_network("10.244.0.0/16") in found


def test_fasts_own_routes_cut_nothing():
    mine = [
        route("10.244.0.7/32", protocol=requests.ROUTE_PROTOCOL),
        route("10.244.0.0/16", protocol=requests.ROUTE_PROTOCOL),
    ]
    assert carved("10.244.0.0/16", routes=mine) == nets("10.244.0.0/16")


def test_a_learnt_route_of_exactly_the_pools_network_is_left_to_its_metric():
    learnt = route("10.244.0.0/16", via="192.168.77.254", protocol=186)
    assert carved("10.244.0.0/16", routes=[DEFAULT, LAN, learnt]) == nets("10.244.0.0/16")


def test_the_maps_are_not_read_unless_something_is_left_out():
    def never():
        raise AssertionError("100,000 entries for nothing")

    assert carve([ip_network("10.244.0.0/16")], [DEFAULT, LAN], never) == nets("10.244.0.0/16")
