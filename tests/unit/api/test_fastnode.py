"""FastNode: what is read from one that its agent, or anybody, wrote."""

from ipaddress import ip_address

import msgspec

from fast.api.fastnode import FastNode
from fast.api.ipendpoint import IpEndpoint
from fast.api.meta import ObjectMeta


def made(*addresses, **more):
    value = {"metadata": {"name": "n1"}, "spec": {"addresses": list(addresses), **more}}
    return msgspec.convert(value, FastNode)


def test_the_underlay_is_the_first_ipv4_address_wherever_it_stands():
    node = made("fd77::1", "192.168.77.1")
    assert node.find_underlay() == ip_address("192.168.77.1")
    assert node.find_addresses() == (ip_address("fd77::1"), ip_address("192.168.77.1"))


def test_text_that_is_not_an_address_and_addresses_beyond_two_do_not_count():
    node = made("nonsense", "192.168.77.1", "192.168.77.2")
    assert node.find_addresses() == (ip_address("192.168.77.1"),)


def test_a_node_without_addresses_has_no_underlay():
    assert made().find_underlay() is None
    assert FastNode(metadata=ObjectMeta(name="n1")).find_underlay() is None


def test_spec_and_status_are_written_as_the_definition_names_them():
    node = made("192.168.77.1", nodeUID="u", bootID="b", podMTU=1450, tunnel={"port": 8479, "vni": 1})
    assert msgspec.to_builtins(node)["spec"] == {
        "nodeUID": "u",
        "bootID": "b",
        "addresses": ("192.168.77.1",),
        "tunnel": {"protocol": "vxlan", "port": 8479, "vni": 1},
        "podMTU": 1450,
    }


def test_a_record_of_a_version_that_copied_the_nodes_address_is_read_without_it():
    value = {
        "metadata": {"name": "10.244.0.1"},
        "spec": {"pool": "p", "node": "n1", "nodeIP": "192.168.77.1"},
    }
    read = msgspec.convert(value, IpEndpoint)
    assert read.spec.node == "n1"
    assert "nodeIP" not in msgspec.to_builtins(read)["spec"]
