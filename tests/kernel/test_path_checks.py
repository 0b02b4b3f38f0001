"""Whether the underlay carries what pods cause, seen from a node: real packets between two nodes."""

import pytest

from fast.agent.node import path_checks
from fast.agent.node.node_checks import NodeFacts, examine
from fast.agent.node.path_checks import PATH_CHECKS
from kernel.fastlab import cluster


@pytest.fixture(scope="module")
def nodes():
    with cluster(nodes=2) as made:
        yield made.nodes


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(path_checks, "_ANSWER_SECONDS", 0.3)


def look(nodes, **facts):
    here, there = nodes
    facts = NodeFacts(node_ip=here.ip, peers=lambda: [("n2", there.ip)], **facts)
    return here.call(examine, facts, {"underlay-path": PATH_CHECKS["underlay-path"]})


def drop(node, rule):
    node.run(
        "nft add table ip lossy; nft add chain ip lossy in '{ type filter hook prerouting priority -500; }'"
    )
    node.run(f"nft add rule ip lossy in '{rule}' drop")


@pytest.fixture
def lossy(nodes):
    yield lambda rule: drop(nodes[1], rule)
    nodes[1].run("nft delete table ip lossy")


def test_an_underlay_that_carries_the_tunnels_packets_is_no_problem(nodes):
    assert look(nodes) == []


def test_an_underlay_that_loses_large_packets_is_told_with_node_and_size(nodes, lossy):
    lossy("meta length > 1450")
    (problem,) = look(nodes)
    assert problem.severity == "error"
    assert "node n2 (192.168.77.2) loses packets of 1500 bytes" in problem.problem
    assert "--pod-mtu" in problem.remedy


def test_a_smaller_mtu_of_pods_makes_do_with_a_smaller_underlay(nodes, lossy):
    lossy("meta length > 1450")
    assert look(nodes, pod_mtu=1400) == []


def test_a_node_that_answers_no_ping_at_all_is_no_evidence(nodes, lossy):
    lossy("icmp type echo-request")
    assert look(nodes) == []
