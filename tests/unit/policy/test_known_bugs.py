"""What other implementations got wrong, by the number of the issue: the lines of design §2 that are about meaning."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.policy import NamedPort, Packet, SetClass, SetPod, Step
from fast.policy.judge import Verdict
from unit.policy.node import Node
from unit.policy.test_bad_input import a_node, cluster_policy, packet, policy
from unit.policy.worlds import deny_all

TO = "10.0.0.1"


def egress(destination: str, port: int = 80, protocol: int = 6) -> Packet:
    return Packet(ip_address(TO), ip_address(destination), protocol, port)


def test_cilium_9209_12277_35212_a_block_matches_pods_and_nodes():
    node = a_node()
    node.node("192.168.0.5", "n5", {})
    blocks = [{"ipBlock": {"cidr": "10.0.1.0/24"}}, {"ipBlock": {"cidr": "192.168.0.0/24"}}]
    node.policy(policy({"podSelector": {}, "egress": [{"to": blocks}], "policyTypes": ["Egress"]}))
    node.plan()
    for destination in ("10.0.1.1", "192.168.0.5", "192.168.0.77"):
        assert node.verdict(egress(destination)) is Verdict.PASS
    assert node.verdict(egress("10.0.2.1")) is Verdict.POLICY_EGRESS


def test_kube_ovn_6536_ports_of_blocks_that_contain_each_other_are_joined_and_holes_stay_holes():
    node = a_node()
    rules = [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]},
        {"to": [{"ipBlock": {"cidr": "1.2.0.0/16"}}], "ports": [{"port": 80}]},
        {"to": [{"ipBlock": {"cidr": "1.2.3.4/32"}}], "ports": [{"port": 22}]},
    ]
    node.policy(policy({"podSelector": {}, "egress": rules, "policyTypes": ["Egress"]}))
    node.plan()
    allowed = {port for port in (22, 80, 443) if node.verdict(egress("1.2.3.4", port)) is Verdict.PASS}
    assert allowed == {22, 80, 443}
    assert node.verdict(egress("10.1.1.1", 443)) is Verdict.POLICY_EGRESS


def test_cilium_30003_24779_a_named_port_is_each_destinations_own_number():
    node = a_node()
    node.remote("10.0.1.3", "x", {"app": "web"}, [NamedPort("http", 6, 8080)])
    node.remote("10.0.1.4", "x", {"app": "web"}, [NamedPort("http", 6, 9090), NamedPort("http", 17, 53)])
    rule = {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]}
    node.policy(policy({"podSelector": {}, "egress": [rule], "policyTypes": ["Egress"]}))
    node.plan()
    for destination, port, verdict in (
        ("10.0.1.3", 8080, Verdict.PASS),
        ("10.0.1.3", 9090, Verdict.POLICY_EGRESS),
        ("10.0.1.4", 9090, Verdict.PASS),
        ("10.0.1.4", 8080, Verdict.POLICY_EGRESS),
    ):
        assert node.verdict(egress(destination, port)) is verdict
    assert node.verdict(egress("10.0.1.4", 53, 17)) is Verdict.POLICY_EGRESS  # the protocol is TCP by default


def test_tuist_12662_a_pod_that_comes_later_brings_its_number_for_a_named_port():
    node = a_node()
    rule = {"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}
    node.policy(policy({"podSelector": {}, "egress": [rule], "policyTypes": ["Egress"]}))
    node.plan()
    node.remote("10.0.1.9", "x", {}, [NamedPort("http", 6, 7777)])
    node.plan()
    assert node.verdict(egress("10.0.1.9", 7777)) is Verdict.PASS


def test_aws_list_of_24_thirty_prefixes_are_the_most_a_range_needs():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"ports": [{"port": 1, "endPort": 65534}]}]}))
    node.plan()
    assert len(node.maps.port_bits) == 30
    node.check([packet(port=port) for port in (0, 1, 2, 32767, 32768, 65534, 65535)])


ODD = (
    "host",
    "reserved:host",
    "k8s:app=client",
    "app",
    "any",
    "pods",
    "0",
    "x/app",
    "kubernetes.io/metadata.name",
)


@pytest.mark.parametrize("key", ODD)
def test_cilium_48027_labels_that_look_like_internals_are_labels(key):
    node = a_node()
    node.policy(deny_all("x"))
    node.remote("10.0.1.3", "x", {key: "", f"{key}=client": "x"})
    node.local("odd", "x", {key: "", "app": "server"}, ("10.0.0.2",))
    node.policy(policy({"podSelector": {"matchLabels": {key: "x"}}, "ingress": [{}]}, "other"))
    node.plan()
    assert node.verdict(packet("10.0.1.3")) is Verdict.POLICY_INGRESS
    into_odd = Packet(ip_address("10.0.1.3"), ip_address("10.0.0.2"), 6, 80)
    assert node.verdict(into_odd) is Verdict.POLICY_INGRESS


texts = st.text("ab=:/,|.", max_size=3)


@given(
    st.dictionaries(texts, texts, max_size=3), st.dictionaries(texts, texts, min_size=1, max_size=2), texts
)
def test_cilium_48027_no_two_labels_are_mixed_up_however_they_are_written(labels, wanted, namespace):
    node = Node()
    node.namespace("x")
    node.namespace(namespace)
    node.local("server", "x", {}, (TO,))
    node.remote("10.0.1.1", namespace, labels)
    peer = {"podSelector": {"matchLabels": wanted}, "namespaceSelector": {}}
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [peer]}]}))
    node.plan()
    node.check([packet()])
    assert (node.verdict(packet()) is Verdict.PASS) == (wanted.items() <= labels.items())


def test_cilium_27709_network_policy_api_343_a_hairpin_passes_network_policies_but_not_the_clusters():
    node = a_node()
    node.policy(deny_all("x"))
    node.plan()
    hairpin = Packet(ip_address(TO), ip_address(TO), 6, 80)
    assert node.verdict(hairpin) is Verdict.PASS
    node.policy(cluster_policy({"ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}))
    node.plan()
    assert node.verdict(hairpin) is Verdict.POLICY_INGRESS
    node.check([hairpin])


def test_aws_56_305_the_own_nodes_packets_pass_network_policies_by_where_they_come_from_not_by_address():
    node = a_node()
    node.node("192.168.0.1", "here", {})
    node.policy(deny_all("x"))
    node.plan()
    probe = Packet(ip_address("192.168.0.1"), ip_address(TO), 6, 80, from_own_node=True)
    masqueraded = Packet(ip_address("192.168.0.1"), ip_address(TO), 6, 80)
    assert node.verdict(probe) is Verdict.PASS
    assert node.verdict(masqueraded) is Verdict.POLICY_INGRESS
    node.check([probe, masqueraded])


def test_egress_from_a_pod_to_its_own_node_is_judged():
    node = a_node()
    node.node("192.168.0.1", "here", {})
    node.policy(deny_all("x"))
    node.plan()
    assert node.verdict(egress("192.168.0.1")) is Verdict.POLICY_EGRESS


def test_cilium_34512_32576_pods_that_no_rule_here_tells_apart_have_one_class():
    node = a_node()
    node.policy(
        policy(
            {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}
        )
    )
    for number in range(200):
        node.remote(f"10.0.3.{number}", "x", {"app": "client", "hash": f"h{number}"})
    node.plan()
    assert len(set(node.maps.classes.values())) == 2
    assert len(node.maps.peer_bits) == 1


def test_cilium_38998_44855_nothing_is_edited_in_place():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}))
    node.plan()
    before = dict(node.maps.rule_sets), dict(node.maps.port_bits)
    node.policy(policy({"podSelector": {}, "ingress": [{"ports": [{"port": 81}]}]}))
    plan = node.plan()
    assert not plan.steps[Step.REMOVE]
    assert before[0].items() <= node.maps.rule_sets.items()
    assert before[1].items() <= node.maps.port_bits.items()


def test_kube_router_873_aws_189_a_new_pods_first_entry_has_its_rules_in_it():
    node = a_node()
    node.policy(deny_all("x"))
    node.plan()
    node.local("new", "x", {}, ("10.0.0.8",))
    plan = node.plan()
    (write,) = [write for write in plan if isinstance(write, SetPod)]
    assert write.policy.ingress_rules
    assert write.policy.egress_rules
    assert not write.policy.isolated_since_ns  # nothing was open before, so there is nothing to let live on


def test_calico_6399_cilium_2569_what_is_revoked_is_judged_again_and_what_is_added_is_not():
    node = a_node()
    node.plan()

    def epoch() -> int:
        node.plan()
        return node.tables.pod_policy(ip_address(TO)).epoch

    client = {"podSelector": {"matchLabels": {"app": "client"}}}
    start = epoch()
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [client], "ports": [{"port": 80}]}]}))
    isolated = epoch()
    assert isolated == start + 1
    rules = [
        {"from": [client], "ports": [{"port": 80, "endPort": 90}]},
        {"from": [{"namespaceSelector": {}}]},
    ]
    node.policy(policy({"podSelector": {}, "ingress": rules}))
    node.remote("10.0.1.50", "x", {"app": "client"})
    assert epoch() == isolated
    node.policy(policy({"podSelector": {}, "ingress": rules[:1]}))
    assert epoch() == isolated + 1
    node.remote("10.0.1.50", "x", {"app": "former client"})
    assert epoch() == isolated + 2
    node.remote_gone("10.0.1.1")
    assert epoch() == isolated + 3
    node.remote_gone("10.0.1.2")
    assert epoch() == isolated + 3
    node.unpolicy(policy({}))
    assert epoch() == isolated + 3


def test_an_address_that_is_not_known_is_no_pod_but_may_be_in_a_block():
    node = a_node()
    rules = [{"from": [{"namespaceSelector": {}}]}, {"from": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}]
    node.policy(policy({"podSelector": {}, "ingress": rules}))
    node.plan()
    assert node.verdict(packet("10.0.1.2")) is Verdict.PASS
    assert node.verdict(packet("10.8.1.2")) is Verdict.POLICY_INGRESS
    assert node.verdict(packet("10.9.1.2")) is Verdict.PASS


def test_all_ipv6_addresses_are_no_ipv4_addresses():
    node = a_node()
    node.policy(policy({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}))
    node.plan()
    assert node.verdict(packet("1.2.3.4")) is Verdict.POLICY_INGRESS
    node.check([packet("1.2.3.4")])


def test_a_cluster_policy_reaches_nodes_by_label_and_networks_with_their_pods():
    node = a_node()
    node.node("192.168.0.1", "a", {"zone": "a"})
    node.node("192.168.0.2", "b", {"zone": "b"})
    rules = [
        {"action": "Accept", "to": [{"nodes": {"matchLabels": {"zone": "a"}}}]},
        {"action": "Deny", "to": [{"nodes": {}}, {"networks": ["10.0.1.0/31"]}]},
    ]
    node.policy(cluster_policy({"egress": rules}))
    node.plan()
    assert node.verdict(egress("192.168.0.1")) is Verdict.PASS
    assert node.verdict(egress("192.168.0.2")) is Verdict.POLICY_EGRESS
    assert node.verdict(egress("10.0.1.1")) is Verdict.POLICY_EGRESS
    assert node.verdict(egress("10.0.1.2")) is Verdict.PASS


def test_tiers_are_asked_in_order_and_pass_goes_to_the_next():
    node = a_node()
    everybody = [{"namespaces": {}}]
    admin = {
        "ingress": [
            {"action": "Pass", "from": everybody, "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}
        ]
    }
    admin["ingress"].append({"action": "Deny", "from": everybody})
    node.policy(cluster_policy(admin, "admin"))
    node.policy(
        cluster_policy({"tier": "Baseline", "ingress": [{"action": "Deny", "from": everybody}]}, "baseline")
    )
    node.plan()
    assert node.verdict(packet(port=80)) is Verdict.POLICY_INGRESS  # passed on to Baseline
    node.policy(policy({"podSelector": {}, "ingress": [{}]}))
    node.plan()
    assert node.verdict(packet(port=80)) is Verdict.PASS  # NetworkPolicy is final, Baseline is not asked
    assert node.verdict(packet(port=81)) is Verdict.POLICY_INGRESS  # denied by Admin


def test_a_relabelled_address_is_one_write():
    node = a_node()
    node.policy(
        policy(
            {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}
        )
    )
    node.plan()
    node.remote("10.0.1.2", "x", {"app": "client"})
    plan = node.plan()
    writes = [write for step in (Step.PREPARE, Step.CLASSES, Step.RULE_SETS) for write in plan.steps[step]]
    assert len(writes) == 1
    assert isinstance(writes[0], SetClass)


def test_labels_that_begin_to_matter_tell_pods_apart_whichever_are_more():
    node = a_node()
    for number in range(3):
        node.remote(f"10.0.4.{number}", "y", {"new": "key"})
    node.remote("10.0.4.9", "y", {})
    rule = {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"new": "key"}}}]}
    node.policy(policy({"podSelector": {}, "ingress": [rule]}))
    node.plan()
    assert node.verdict(packet("10.0.4.1")) is Verdict.PASS
    assert node.verdict(packet("10.0.4.9")) is Verdict.POLICY_INGRESS
