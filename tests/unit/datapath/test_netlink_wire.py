"""Encoding and decoding of rtnetlink messages, without a kernel."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from fast.datapath.netlink import records, requests, wire
from fast.net import Mac

MAC = Mac.parse("02:00:00:00:00:01")


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=300)))
def test_attributes_read_back_to_what_was_written(attributes):
    raw = b"".join(wire.attribute(kind, payload) for kind, payload in attributes.items())
    assert len(raw) % 4 == 0
    assert wire.parse_attributes(raw) == attributes


@given(st.binary(max_size=200))
def test_reading_attributes_survives_any_bytes(raw):
    wire.parse_attributes(raw)


def test_a_route_request_reads_back_as_the_route_it_asks_for():
    request = requests.replace_route(ip_network("10.244.0.0/16"), 7, source=ip_address("192.168.77.1"))
    route = records.parse_route(request.body)
    assert route is not None
    assert (route.destination, route.index, route.gateway) == (ip_network("10.244.0.0/16"), 7, None)
    assert route.source == ip_address("192.168.77.1")
    assert (route.protocol, route.table) == (requests.ROUTE_PROTOCOL, wire.RT_TABLE_MAIN)


def test_the_default_route_of_either_family_reads_back():
    for network, gateway in (("0.0.0.0/0", "169.254.1.1"), ("::/0", "fe80::1")):
        request = requests.replace_route(ip_network(network), 3, gateway=ip_address(gateway))
        route = records.parse_route(request.body)
        assert route is not None
        assert (route.destination, route.gateway) == (ip_network(network), ip_address(gateway))


def test_a_vxlan_request_reads_back_as_a_collect_metadata_device_that_does_not_learn():
    link = records.parse_link(requests.add_vxlan("fast_vxlan", MAC, 8479, 1450).body)
    assert (link.name, link.kind, link.mac, link.mtu, link.vxlan_port) == (
        "fast_vxlan",
        "vxlan",
        MAC,
        1450,
        8479,
    )
    assert link.collect_metadata
    assert (link.learning, link.arp, link.up) == (False, False, False)


def test_an_address_and_a_neighbour_request_read_back():
    address = records.parse_address_record(requests.add_address(2, ip_address("fd00::1")).body)
    assert (address.index, address.address, address.prefix_length) == (2, ip_address("fd00::1"), 128)
    neighbour = records.parse_neighbour(requests.replace_neighbour(2, ip_address("169.254.1.1"), MAC).body)
    assert neighbour is not None
    assert (neighbour.address, neighbour.mac, neighbour.permanent) == (ip_address("169.254.1.1"), MAC, True)
