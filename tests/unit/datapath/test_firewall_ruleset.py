"""What Fast's nftables table says; whether nft takes it is tests/kernel's matter."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from fast.datapath.node.firewall import Ruleset

RULESET = Ruleset(
    tunnel_port=8479,
    node_ip=ip_address("192.168.77.1"),
    node_ip6=None,
    masquerade=True,
    pod_subnets=frozenset({ip_network("10.244.0.0/16"), ip_network("fd00:244::/64")}),
)


def test_each_set_holds_the_addresses_of_its_family():
    text = RULESET.render()
    assert "set pods4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.244.0.0/16 }; }" in text
    assert "set pods6 { type ipv6_addr; flags interval; auto-merge; elements = { fd00:244::/64 }; }" in text
    assert (
        "set pods6 { type ipv6_addr; flags interval; auto-merge; }"
        in Ruleset(8479, ip_address("192.168.77.1"), None, masquerade=True).render()
    )


def test_the_table_is_replaced_in_one_transaction_whether_it_exists_or_not():
    lines = [line for line in RULESET.render().splitlines() if line]
    assert lines[:3] == ["add table inet fast", "delete table inet fast", "table inet fast {"]


def test_without_masquerade_no_rule_of_it_is_left():
    assert "masquerade" in RULESET.render()
    without = Ruleset(8479, ip_address("192.168.77.1"), None, masquerade=False)
    assert "masquerade" not in without.render()


@pytest.mark.parametrize(
    ("port", "ports"), [(8479, "8480-65535"), (60_000, "1024-59999"), (4789, "4790-65535")]
)
def test_masquerade_takes_the_larger_range_without_the_tunnels_port(port, ports):
    lines = [
        line for line in replace(RULESET, tunnel_port=port).render().splitlines() if "masquerade to" in line
    ]
    assert len(lines) == 2
    assert all(f"masquerade to :{ports} fully-random" in line for line in lines)


def test_a_pools_source_is_refused_on_other_devices_unless_it_may_come_natively():
    def refused(ruleset):
        return [line.split()[3] for line in ruleset.render().splitlines() if "name untunnelled" in line]

    assert refused(RULESET) == ["ip", "ip6"]
    assert refused(replace(RULESET, native=True)) == ["ip6"]


def test_only_a_node_that_blocks_metadata_refuses_translations_to_it():
    assert "169.254.169.254" not in RULESET.render()
    text = replace(RULESET, block_metadata=True).render()
    for address in ("ip daddr 169.254.169.254", "ip6 daddr fd00:ec2::254"):
        assert f"ct status dnat {address} counter name metadata drop" in text
