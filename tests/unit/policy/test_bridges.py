"""Addresses that change their meaning while pods change their rule set: rare by chance, so planted here."""

from __future__ import annotations

from ipaddress import ip_address

from fast.policy import Capacity, NamedPort, Packet, ProblemKind
from fast.policy.judge import Verdict
from unit.policy.node import Node
from unit.policy.test_bad_input import a_node, cluster_policy, many_rules, packet, policy
from unit.policy.test_steps import restarted

EVERYBODY = [{"namespaces": {}}]


def verdicts_during(node: Node, looked_at: Packet) -> set[Verdict]:
    """Plan, and give every verdict that a packet gets on the way."""
    seen = {node.verdict(looked_at)}
    node.watcher = lambda write: seen.add(node.verdict(looked_at))
    node.plan()
    node.quiesce()
    return seen


def test_a_namespaces_label_that_changes_subject_and_peer_at_once_shows_no_mixture():
    node = Node()
    node.namespace("x", {"team": "a"})
    node.local("server", "x", {}, ("10.0.0.1",))
    node.remote("10.0.1.1", "x", {})
    subject = {"namespaces": {"matchLabels": {"team": "a"}}}
    rule = {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "b"}}}]}
    node.policy(cluster_policy({"subject": subject, "ingress": [rule]}))
    node.plan()
    node.namespace("x", {"team": "b"})
    assert verdicts_during(node, packet()) == {Verdict.PASS}
    node.namespace("x", {"team": "a"})
    assert verdicts_during(node, packet()) == {Verdict.PASS}


def test_a_pod_that_becomes_a_peer_with_a_number_of_its_own_shows_no_mixture():
    node = a_node()
    web = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}
    rules = [
        {"action": "Accept", "to": [web], "protocols": [{"destinationNamedPort": "http"}]},
        {"action": "Deny", "to": [web]},
    ]
    node.policy(cluster_policy({"egress": rules}))
    ports = [NamedPort("http", 6, 9090)]
    node.remote("10.0.1.9", "x", {"app": "none"}, ports)
    node.plan()
    to_web = Packet(ip_address("10.0.0.1"), ip_address("10.0.1.9"), 6, 9090)
    node.remote("10.0.1.9", "x", {"app": "web"}, ports)
    assert verdicts_during(node, to_web) == {Verdict.PASS}
    node.remote("10.0.1.9", "x", {"app": "none"}, ports)
    assert verdicts_during(node, to_web) == {Verdict.PASS}


def test_pods_of_a_deployment_share_one_rule_set_cilium_45118():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}))
    for number in range(2, 9):
        node.local(
            f"server-{number}", "x", {"app": "server"}, (f"10.0.0.{number}",), (NamedPort("http", 6, 80),)
        )
    node.local("other", "x", {"app": "server"}, ("10.0.0.9",), (NamedPort("http", 6, 81),))
    node.plan()
    assert len({entry.ingress_rules for entry in node.maps.pods.values()}) == 2
    assert len(node.maps.rule_sets) == 2


def test_a_pod_whose_rules_a_restart_cannot_make_again_gets_no_packets():
    node = a_node()
    node.policy(policy(many_rules(300)))
    node.plan()
    node.policy(policy(many_rules(299)))
    again = restarted(node, node.world)
    again.tables.capacity = again.tables.recipes._capacity = Capacity(ports=100)
    plan = again.plan()
    assert [problem.kind for problem in plan.problems] == [ProblemKind.TOO_LARGE]
    assert again.verdict(packet(port=1)) is Verdict.POLICY_PENDING
