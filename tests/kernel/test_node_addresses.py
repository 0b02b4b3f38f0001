"""A node's addresses: which one is found for IPv6, and that those of before leave the tunnel device."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fast.datapath.datapath_config import DatapathConfig
from fast.datapath.node.node_datapath import NodeDatapath
from fast.datapath.node.tunnel import find_node_ip6
from fast.errors import DatapathError
from kernel.fastlab import POD_SUBNETS
from kernel.lab import node_ip, underlay

OLD, NEW = ip_address("192.168.77.1"), ip_address("192.168.77.21")


@pytest.fixture
def machine():
    with underlay() as net:
        yield net.join("n1", 1)


def test_the_ipv6_address_beside_the_nodes_ipv4_one_is_found(machine):
    machine.run("ip -6 addr flush dev u0 scope global; ip addr add fd77::21/64 dev u0 nodad")
    machine.run("ip link add other type veth peer name other2; ip link set other up")
    machine.run("ip addr add fd00:9::1/64 dev other nodad")  # of another NIC
    assert machine.call(find_node_ip6, node_ip(1)) == ip_address("fd77::21")


@pytest.mark.parametrize(
    "passing",
    ["fd77::1/64 dev u0 nodad preferred_lft 0", "fe80::77/64 dev u0 nodad", "::1/128 dev lo"],
    ids=["deprecated", "link-local", "loopback"],
)
def test_an_ipv6_address_that_does_not_last_or_reach_others_is_none(machine, passing):
    machine.run(f"ip -6 addr flush dev u0 scope global; ip addr replace {passing}")
    assert machine.call(find_node_ip6, node_ip(1)) is None


def test_an_address_that_no_device_has_is_an_error_that_names_it(machine):
    with pytest.raises(DatapathError, match=r"192\.168\.77\.99"):
        machine.call(find_node_ip6, ip_address("192.168.77.99"))


def test_the_address_that_a_node_had_before_leaves_the_tunnel_device(machine):
    def datapath(address):
        config = DatapathConfig(node_name="n1", node_ip=address, pod_subnets=POD_SUBNETS)
        return NodeDatapath(config)

    machine.call(datapath(OLD).ensure)
    assert f"{OLD}/32" in machine.run("ip -4 addr show dev fast_vxlan")
    machine.run(f"ip addr del {OLD}/24 dev u0; ip addr add {NEW}/24 dev u0")
    restarted = datapath(NEW)
    machine.call(restarted.ensure)
    shown = machine.run("ip -4 addr show dev fast_vxlan")
    assert f"{NEW}/32" in shown
    assert f"{OLD}/32" not in shown
    assert "fast_vxlan" not in machine.run(f"ip route get {OLD}"), (
        "whoever has the address now can be reached"
    )
    assert machine.call(restarted.ensure) == []
    machine.call(restarted.clean)
