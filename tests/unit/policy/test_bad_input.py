"""Bad policies become problems that name them; they stop nobody else, and nothing is raised."""

from __future__ import annotations

import string
from ipaddress import ip_address

import msgspec
import pytest

from fast.api.clusternetworkpolicy import ClusterNetworkPolicy
from fast.api.networkpolicy import NetworkPolicy
from fast.policy import Capacity, NamedPort, Packet, PodFlag, ProblemKind, SetPod
from fast.policy.judge import Verdict
from unit.policy.node import SECOND, Node
from unit.policy.worlds import deny_all


def policy(spec: dict, name: str = "p", namespace: str = "x") -> NetworkPolicy:
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, NetworkPolicy)


def cluster_policy(spec: dict, name: str = "c") -> ClusterNetworkPolicy:
    subject = {"subject": {"namespaces": {}}, "tier": "Admin", "priority": 1}
    return msgspec.convert({"metadata": {"name": name}, "spec": subject | spec}, ClusterNetworkPolicy)


def a_node(capacity: Capacity | None = None) -> Node:
    node = Node(capacity)
    for name in ("x", "y"):
        node.namespace(name, {"ns": name})
    node.local("server", "x", {"app": "server"}, ("10.0.0.1",), (NamedPort("http", 6, 80),))
    node.remote("10.0.1.1", "x", {"app": "client"})
    node.remote("10.0.1.2", "y", {"app": "other"})
    return node


def packet(source: str = "10.0.1.1", port: int = 80, protocol: int = 6) -> Packet:
    return Packet(ip_address(source), ip_address("10.0.0.1"), protocol, port)


CLIENTS = {"podSelector": {"matchLabels": {"app": "client"}}}
BAD_RULES = {
    "an unknown operator": {
        "from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}]
    },
    "In without values": {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]},
    "an empty peer": {"from": [{}]},
    "a block and a selector": {"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]},
    "no CIDR": {"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]},
    "a prefix too long": {"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]},
    "a hole that is no CIDR": {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["all"]}}]},
    "IPv4 spelled as IPv6": {"from": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}]},
    "port 0": {"ports": [{"port": 0}]},
    "port 65536": {"ports": [{"port": 65536}]},
    "a negative port": {"ports": [{"port": -80}]},
    "a range upside down": {"ports": [{"port": 90, "endPort": 80}]},
    "a range that begins with a name": {"ports": [{"port": "http", "endPort": 90}]},
    "a range without a beginning": {"ports": [{"endPort": 90}]},
    "an unknown protocol": {"ports": [{"protocol": "ICMP", "port": 80}]},
    "an empty port name": {"ports": [{"port": ""}]},
}


@pytest.mark.parametrize("what", BAD_RULES)
def test_a_part_that_cannot_be_read_matches_nothing_and_is_told(what):
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [BAD_RULES[what]]}))
    plan = node.plan()
    assert [(problem.kind, str(problem.policy)) for problem in plan.problems] == [
        (ProblemKind.INVALID, "x/p")
    ]
    assert plan.problems[0].path in {"spec.ingress[0].from[0]", "spec.ingress[0].ports[0]"}
    assert node.verdict(packet()) is Verdict.POLICY_INGRESS
    node.check([packet(), packet(port=0), packet(port=65535), packet("10.0.1.2")])


@pytest.mark.parametrize("what", BAD_RULES)
def test_a_bad_policy_does_not_stop_the_others(what):
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [BAD_RULES[what]]}, "bad"))
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [CLIENTS]}]}, "good"))
    node.plan()
    assert node.verdict(packet()) is Verdict.PASS
    assert node.verdict(packet("10.0.1.2")) is Verdict.POLICY_INGRESS


def test_a_policy_whose_subject_cannot_be_read_selects_nobody_and_is_told():
    node = a_node()
    selector = {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["1"]}]}
    node.policy(policy({"podSelector": selector, "policyTypes": ["Ingress"]}))
    (problem,) = node.plan().problems
    assert (problem.kind, problem.path) == (ProblemKind.INVALID, "spec.podSelector")
    assert node.verdict(packet()) is Verdict.PASS


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("Accept", Verdict.PASS), ("Deny", Verdict.POLICY_INGRESS), ("Pass", Verdict.POLICY_INGRESS)],
)
def test_a_peer_of_a_later_version_fails_closed(action, verdict):
    node = a_node()
    node.policy(cluster_policy({"ingress": [{"action": action, "from": [{"galaxies": {}}]}]}))
    plan = node.plan()
    assert [str(problem.policy) for problem in plan.problems] == ["c"]
    assert node.verdict(packet()) is verdict
    node.check([packet()])


def test_domain_names_are_told_to_be_unsupported():
    node = a_node()
    rule = {"action": "Accept", "to": [{"domainNames": ["example.org"]}]}
    node.policy(cluster_policy({"egress": [rule]}))
    assert [problem.kind for problem in node.plan().problems] == [ProblemKind.UNSUPPORTED]


def test_ports_0_and_65535_are_ports_like_others_in_packets():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"ports": [{"port": 1, "endPort": 65535}]}]}))
    node.plan()
    assert node.verdict(packet(port=65535)) is Verdict.PASS
    assert node.verdict(packet(port=1)) is Verdict.PASS
    assert node.verdict(packet(port=0)) is Verdict.POLICY_INGRESS


def test_a_protocol_without_a_port_means_port_0_as_well():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP"}]}]}))
    node.plan()
    assert node.verdict(packet(port=0, protocol=17)) is Verdict.PASS
    assert node.verdict(packet(port=0, protocol=6)) is Verdict.POLICY_INGRESS


def test_labels_of_every_legal_character_are_told_apart():
    legal = string.ascii_letters + string.digits + "-_."
    node = a_node()
    label = {f"a.b-c_d/{legal[:20]}": f"x{legal[26:]}x"}
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": label}}]}]}))
    node.remote("10.0.1.3", "x", label)
    node.remote("10.0.1.4", "x", {key: value.lower() for key, value in label.items()})
    node.plan()
    assert node.verdict(packet("10.0.1.3")) is Verdict.PASS
    assert node.verdict(packet("10.0.1.4")) is Verdict.POLICY_INGRESS


def test_a_namespace_that_is_deleted_while_its_pods_end_counts_with_its_last_labels():
    node = a_node()
    from_y = {"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}
    node.policy(policy({"podSelector": {}, "ingress": [from_y]}))
    node.plan()
    node.tables.remove_namespace("y")
    node.remote("10.0.1.7", "y", {"app": "late"})
    node.plan()
    assert node.verdict(packet("10.0.1.2")) is Verdict.PASS
    assert node.verdict(packet("10.0.1.7")) is Verdict.PASS
    for address in ("10.0.1.2", "10.0.1.7"):
        node.remote_gone(address)
    node.plan()
    node.remote("10.0.1.8", "y", {"app": "of another namespace of that name"})
    node.plan()
    assert node.verdict(packet("10.0.1.8")) is Verdict.POLICY_INGRESS


def test_a_local_pod_of_an_unknown_namespace_waits_if_the_cluster_has_policies_by_namespace():
    node = a_node()
    rule = {"action": "Deny", "from": [{"namespaces": {}}]}
    subject = {"namespaces": {"matchLabels": {"ns": "new"}}}
    node.policy(cluster_policy({"subject": subject, "ingress": [rule]}))
    node.local("early", "new", {}, ("10.0.0.5",))
    node.plan()
    early = Packet(ip_address("10.0.1.1"), ip_address("10.0.0.5"), 6, 80)
    assert node.verdict(early) is Verdict.POLICY_PENDING
    node.namespace("new", {"ns": "new"})
    node.plan()
    assert node.verdict(early) is Verdict.POLICY_INGRESS


def test_overlapping_blocks_with_holes_add_up():
    node = a_node()
    rules = [
        {
            "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.1.0/24", "10.0.2.0/24"]}}],
            "ports": [{"port": 80}],
        },
        {"from": [{"ipBlock": {"cidr": "10.0.1.0/24", "except": ["10.0.1.2/32"]}}], "ports": [{"port": 81}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.0/16"]}}], "ports": [{"port": 82}]},
    ]
    node.policy(policy({"podSelector": {}, "ingress": rules}))
    node.plan()
    node.check(
        [
            packet(source, port)
            for source in ("10.0.1.1", "10.0.1.2", "10.0.2.9", "10.9.9.9", "11.0.0.1")
            for port in (80, 81, 82)
        ]
    )
    assert node.verdict(packet("10.0.1.1", 81)) is Verdict.PASS
    assert node.verdict(packet("10.0.1.2", 81)) is Verdict.POLICY_INGRESS
    assert node.verdict(packet("10.9.9.9", 80)) is Verdict.PASS


def test_policies_that_contradict_each_other_are_both_obeyed():
    node = a_node()
    node.policy(deny_all("x"))
    node.policy(policy({"podSelector": {}, "ingress": [{}]}, "allow-all"))
    node.plan()
    assert node.verdict(packet()) is Verdict.PASS
    for name, action in (("a-deny", "Deny"), ("b-accept", "Accept")):
        node.policy(cluster_policy({"ingress": [{"action": action, "from": [{"namespaces": {}}]}]}, name))
    node.plan()
    assert (
        node.verdict(packet()) is Verdict.POLICY_INGRESS
    )  # same tier and priority: the name decides, on every node


def test_a_thousand_peers_are_one_rule_group():
    node = a_node()
    peers = [{"podSelector": {"matchLabels": {"app": f"app-{number}"}}} for number in range(1_000)]
    peers += [
        {"ipBlock": {"cidr": f"172.16.{number % 256}.{number // 256 * 16}/28"}} for number in range(1_000)
    ]
    node.policy(policy({"podSelector": {}, "ingress": [{"from": peers, "ports": [{"port": 80}]}]}))
    node.remote("10.0.1.9", "x", {"app": "app-999"})
    plan = node.plan()
    assert not plan.problems
    (rule_set,) = node.maps.rule_sets.values()
    assert rule_set.accept == 1
    assert node.verdict(packet("10.0.1.9")) is Verdict.PASS
    assert node.verdict(packet("172.16.5.1")) is Verdict.PASS
    assert node.verdict(packet("10.0.1.1")) is Verdict.POLICY_INGRESS


def test_a_named_port_that_no_pod_has_is_told_and_matches_nothing():
    node = a_node()
    rules = {
        "ingress": [{"ports": [{"port": "metrics"}, {"port": "http"}]}],
        "egress": [{"ports": [{"port": "web"}]}],
    }
    node.policy(policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} | rules))
    plan = node.plan()
    assert {(problem.kind, problem.path) for problem in plan.problems} == {
        (ProblemKind.UNKNOWN_NAMED_PORT, "spec.ingress[0]"),
        (ProblemKind.UNKNOWN_NAMED_PORT, "spec.egress[0]"),
    }
    assert node.verdict(packet()) is Verdict.PASS
    node.remote("10.0.1.9", "x", {}, [NamedPort("web", 6, 8080)])
    assert {problem.path for problem in node.plan().problems} == {"spec.ingress[0]"}
    assert node.verdict(Packet(ip_address("10.0.0.1"), ip_address("10.0.1.9"), 6, 8080)) is Verdict.PASS


def many_rules(count: int) -> dict:
    """Rules with distinct ports, so that each is a group."""
    return {"podSelector": {}, "ingress": [{"ports": [{"port": number + 1}]} for number in range(count)]}


def test_more_than_256_groups_take_further_pages():
    node = a_node()
    node.policy(policy(many_rules(700)))
    node.policy(
        cluster_policy({"tier": "Baseline", "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]})
    )
    node.plan()
    assert len(node.maps.rule_sets) == 3
    node.check([packet(port=port) for port in (1, 256, 257, 512, 513, 700, 701)])
    assert node.verdict(packet(port=700)) is Verdict.PASS
    assert node.verdict(packet(port=701)) is Verdict.POLICY_INGRESS


def test_a_policy_that_is_too_large_is_named_and_the_old_rules_stay():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [CLIENTS]}]}, "small"))
    node.plan()
    node.policy(policy(many_rules(5_000), "huge"))
    plan = node.plan()
    assert [(item.kind, str(item.policy)) for item in plan.problems] == [(ProblemKind.TOO_LARGE, "x/huge")]
    assert not list(plan)
    assert node.verdict(packet(port=4_999)) is Verdict.PASS
    assert node.verdict(packet("10.0.1.2", 1)) is Verdict.POLICY_INGRESS


def test_a_new_pod_whose_rules_do_not_fit_is_refused_until_there_is_room():
    node = a_node(Capacity(ports=600))
    node.policy(policy(many_rules(500), "first"))
    node.plan()
    node.policy(policy(many_rules(400), namespace="y"))
    node.local("late", "y", {}, ("10.0.0.7",))
    node.plan()
    late = Packet(ip_address("10.0.1.1"), ip_address("10.0.0.7"), 6, 3)
    assert node.verdict(late) is Verdict.POLICY_PENDING
    assert [str(problem.policy) for problem in node.tables.problems_of("uid of y late")] == ["y/p"]
    node.unpolicy(policy({}, "first"))
    node.plan()
    node.quiesce()
    assert node.verdict(late) is Verdict.PASS
    assert not node.tables.problems_of("uid of y late")


def test_peers_that_do_not_fit_are_counted_before_anything_is_written():
    node = a_node(Capacity(peers=20))
    for number in range(30):
        node.remote(f"10.0.2.{number}", "x", {"app": "client", "name": f"n{number}"})
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [CLIENTS]}]}, "small"))
    node.plan()
    before = {item: node.verdict(packet(item)) for item in ("10.0.1.1", "10.0.1.2", "10.0.2.7")}
    rules = [{"from": [{"podSelector": {"matchLabels": {"name": f"n{number}"}}}]} for number in range(30)]
    node.policy(policy({"podSelector": {}, "ingress": rules}, "wide"))
    plan = node.plan()
    assert [(item.kind, str(item.policy)) for item in plan.problems] == [(ProblemKind.TOO_LARGE, "x/wide")]
    assert {item: node.verdict(packet(item)) for item in before} == before
    assert len(node.maps.peer_bits) <= 20
    node.unpolicy(policy({}, "wide"))
    node.plan()
    node.quiesce()
    assert not node.plan().problems


def test_a_policy_with_an_audit_annotation_is_told_of_and_never_enforced():
    node = a_node()
    item = deny_all("x")
    item.metadata.annotations["fast.io/policy-mode"] = "audit"
    node.policy(item)
    plan = node.plan()
    (write,) = [write for write in plan if isinstance(write, SetPod)]
    assert write.policy.flags == PodFlag.AUDIT
    assert node.verdict(packet()) is Verdict.PASS
    node.check([packet()])
    del item.metadata.annotations["fast.io/policy-mode"]
    node.tables.set_policy(msgspec.structs.replace(item))
    node.plan(after=SECOND)
    assert node.verdict(packet()) is Verdict.POLICY_INGRESS
