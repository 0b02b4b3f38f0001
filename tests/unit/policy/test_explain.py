"""A denial names the policy and the rule, and what would let the packet pass."""

from __future__ import annotations

from ipaddress import ip_address

from fast.net.address import map_key
from fast.policy import Packet
from fast.policy.explain import Explainer
from fast.policy.judge import judge
from unit.policy.node import SECOND, Node
from unit.policy.test_bad_input import cluster_policy, policy
from unit.policy.worlds import deny_all

CLIENT, DB = ip_address("10.0.1.1"), ip_address("10.0.0.1")
NAMES = {map_key(CLIENT): "default/client-6f (n1)"}


def shop(**client: str) -> Node:
    node = Node()
    node.namespace("shop")
    node.namespace("default", {"team": "blue"})
    node.local("db-0", "shop", {"app": "db"}, (str(DB),))
    node.remote(str(CLIENT), "default", client or {"app": "client"})
    node.policy(deny_all("shop", "default-deny"))
    peers = [
        {
            "namespaceSelector": {"matchLabels": {"team": "blue"}},
            "podSelector": {"matchLabels": {"app": "client"}},
        }
    ]
    rule = {"from": peers, "ports": [{"port": 8080}]}
    node.policy(policy({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [rule]}, "db", "shop"))
    node.plan()
    return node


def denial(node: Node, packet: Packet) -> list[str]:
    decision = next(item for item in judge(node.maps, packet).decisions if not item.allowed)
    return Explainer(node.tables, NAMES).denial(packet, decision).splitlines()


def test_this_client_at_another_port():
    assert denial(shop(), Packet(CLIENT, DB, 6, 5432)) == [
        "DROPPED  default/client-6f (n1) → shop/db-0:5432/TCP   ingress of shop/db-0",
        "  isolated by: shop/db, shop/default-deny",
        "  shop/db ingress[0] matches this client, but only on TCP/8080",
        "  would pass with: port TCP/5432 in shop/db ingress[0]",
    ]


def test_this_port_for_other_clients():
    lines = denial(shop(app="other"), Packet(CLIENT, DB, 6, 8080))
    assert lines[2] == (
        "  shop/db ingress[0] matches TCP/8080, but other clients: pods app=client in namespaces team=blue "
        "(differs in label app=client)"
    )
    assert lines[3] == "  would pass with: this client in shop/db ingress[0]"


def test_neither_names_the_nearest_rule():
    lines = denial(shop(app="other"), Packet(CLIENT, DB, 17, 53))
    assert "is for other clients and ports" in lines[2]
    assert lines[3] == "  would pass with: this client, and UDP/53 in shop/db ingress[0]"


def test_a_namespaces_label_that_is_missing_is_named():
    node = shop()
    node.namespace("default", {"team": "red"})
    node.plan()
    assert "differs in namespace label team=blue" in denial(node, Packet(CLIENT, DB, 6, 8080))[2]


def test_somebody_outside_of_the_cluster():
    outside = Packet(ip_address("1.2.3.4"), DB, 6, 8080)
    assert "1.2.3.4 is neither a pod nor a node that is known here" in denial(shop(), outside)[2]


def test_a_cluster_policys_rule_is_named_with_its_name():
    node = shop()
    rule = {"name": "no-blue", "action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "blue"}}}]}
    node.policy(cluster_policy({"ingress": [rule]}, "guard"))
    node.plan()
    assert denial(node, Packet(CLIENT, DB, 6, 8080))[1:] == [
        "  denied by: guard ingress[0] (no-blue)",
        "  would pass with: an Accept or Pass rule before guard ingress[0] (no-blue)",
    ]


def test_rules_that_are_gone_can_be_told_for_ten_minutes():
    node = shop()
    packet = Packet(CLIENT, DB, 6, 5432)
    decision = judge(node.maps, packet).decisions[0]
    for item in list(node.world.policies):
        node.unpolicy(item)
    node.plan()
    node.plan(after=2 * SECOND)
    assert not node.maps.rule_sets
    explainer = Explainer(node.tables)
    assert "isolated by: shop/db, shop/default-deny" in explainer.denial(packet, decision)
    node.plan(after=700 * SECOND)
    assert "not known any more" in explainer.denial(packet, decision)


def test_why_tells_both_directions():
    node = shop()
    explainer = Explainer(node.tables, NAMES)
    assert explainer.why(node.maps, Packet(CLIENT, DB, 6, 8080)).splitlines() == [
        "PASSES  default/client-6f (n1) → shop/db-0:8080/TCP",
        "ingress of shop/db-0: allowed",
        "  by shop/db ingress[0]",
        "egress of default/client-6f (n1): not decided on this node",
    ]
    text = explainer.why(node.maps, Packet(DB, CLIENT, 1))
    assert text.startswith("DROP_POLICY_EGRESS  shop/db-0 → default/client-6f (n1) protocol 1")
    assert "isolated by: shop/default-deny" in text


def test_why_tells_what_audited_policies_would_do():
    node = shop()
    for item in node.world.policies:
        item.metadata.annotations["fast.io/policy-mode"] = "audit"
    again = shop()
    for item in node.world.policies:
        again.policy(item)
    again.plan()
    text = Explainer(again.tables).why(again.maps, Packet(CLIENT, DB, 6, 5432))
    assert text.startswith("PASSES")
    assert "audit: ingress would be dropped" in text
    assert "shop/db ingress[0] matches this client" in text
