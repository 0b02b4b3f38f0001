"""What Fast's nftables table says; whether nft takes it is tests/kernel's matter."""

from ipaddress import ip_address, ip_network

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
