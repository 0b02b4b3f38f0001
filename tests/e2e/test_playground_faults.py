"""Each fault of the table is there after ``break`` and gone after ``mend``; programs and nodes stop and come back."""

import json

import pytest

from fast.errors import FastError
from fast_playground.cluster.training.breaking import Breaker
from fast_playground.cluster.training.fault_cases import CASES
from fast_playground.cluster.training.journal import Journal
from fast_playground.cluster.training.steering import Steering

#: How each fault is seen: a command on n1, in the pod one, or of kubectl; it succeeds while the fault is there.
SEEN = {
    "agent-dead": ("n1", "! pgrep -f [b]in/fast-agent"),
    "agent-hung": ("n1", "grep -q '^State:.T' /proc/$(pgrep -of [b]in/fast-agent)/status"),
    "api-hung": ("kubectl", ["get", "--raw", "/readyz", "--request-timeout=1s"], False),
    "api-unreachable": ("n1", "! timeout 2 bash -c '</dev/tcp/192.168.77.254/6443'"),
    "underlay-mtu": ("n1", "! ping -c1 -W1 -M do -s 1400 192.168.77.2"),
    "tunnel-port": ("n1", "nft list table inet broken_tunnel | grep -q 'udp dport 8479'"),
    "forward-policy": ("n1", "nft list table inet broken_policy | grep -q 'policy drop'"),
    "forward-rule": ("n1", "nft list table inet broken_forward | grep -q 'tcp drop'"),
    "conflist-first": ("n1", "ls /etc/cni/net.d | head -1 | grep -q 05-other"),
    "tombstone-disk": (
        "n1",
        "! sh -c 'echo x > /var/lib/fast/tombstones/.probe'; r=$?; rm -f /var/lib/fast/tombstones/.probe; exit $r",
    ),
    "map-entry": None,  # the agent repairs it in its own time
    "pod-mtu": ("pod", "ip link show eth0 | grep -q 'mtu 9000'"),
    "pod-route": ("pod", "! ip -4 route | grep -q ^default"),
    "pod-neighbour": ("pod", "! ip -4 neigh show nud permanent | grep -q ."),
    "spoofing-pod": (
        "pod",
        "ip addr show dev lo | grep -q 10.244.255.250 && pgrep -f '[p]ing -i 0.2 -I 10.244.255.250'",
    ),
    "pool-exhausted": (
        "kubectl",
        ["wait", "--for=condition=Exhausted", "ips/broken-tiny", "--timeout=20s"],
        True,
    ),
    "annotation-value": ("kubectl", ["get", "pod", "broken-value"], True),
    "annotation-key": ("kubectl", ["get", "pod", "broken-key"], True),
    "bad-pool": (
        "kubectl",
        ["get", "ips", "broken-pool"],
        True,
    ),
    "pools-overlap": ("kubectl", ["get", "ips", "broken-overlap"], True),
    "record-without-pod": ("kubectl", ["get", "ipe", "10.244.200.250"], True),
    "service-without-backend": ("kubectl", ["get", "service", "broken-service"], True),
    "policy-denies": ("kubectl", ["get", "networkpolicy", "broken-policy"], True),
}


@pytest.fixture(scope="module")
def cluster(start_module):
    return start_module


@pytest.fixture(scope="module")
def start_module(playground):
    playground.make_pool("default-ips", "10.244.100.0-10.244.200.250")
    playground.make_pod("one", "n1")
    playground.make_pod("two", "n2")
    playground.wait_running("one", "two")
    return playground


def seen(cluster, name):
    """Whether a fault is there, by other means than those that made it."""
    how, command, *wanted = SEEN[name]
    if how == "kubectl":
        return (cluster.kubectl(*command).returncode == 0) == wanted[0]
    if how == "pod":
        placed = cluster.playground.sandbox("default", "one")
        return cluster.playground.node("n1").run("sh", "-c", command, network=placed.network).returncode == 0
    return cluster.playground.node(how).run("sh", "-c", command).returncode == 0


def test_each_case_has_a_way_to_see_it():
    assert set(SEEN) == set(CASES)


@pytest.mark.parametrize("name", [name for name, how in SEEN.items() if how])
def test_a_fault_is_there_after_break_and_gone_after_mend(cluster, name):
    breaker = Breaker(cluster.playground)
    assert not seen(cluster, name)
    broken = breaker.break_(name, "one" if CASES[name].at == "pod" else "")
    try:
        cluster.until(lambda: seen(cluster, name), f"{name} to be seen")
        assert [item.case for item in breaker.journal.read()] == [name]
        with pytest.raises(FastError, match="already"):
            breaker.break_(name, "one" if CASES[name].at == "pod" else "")
    finally:
        assert breaker.mend() == [broken]
    cluster.until(lambda: not seen(cluster, name), f"{name} to be gone")
    assert breaker.journal.read() == []


def test_a_deleted_map_entry_is_the_agents_to_repair(cluster):
    def pods():
        return {row["ip"] for row in cluster.ctl("n1", "cluster-ips", "list") if row["kind"] == "pod"}

    before = pods()
    cluster.playground.node("n1").control.kill("agent", 19)  # SIGSTOP, so that the gap can be seen
    Breaker(cluster.playground).break_("map-entry")
    assert len(before - pods()) == 1
    Breaker(cluster.playground).mend()
    cluster.playground.node("n1").control.kill("agent", 18)
    cluster.playground.node("n1").control.kill("agent", 9)
    cluster.until(lambda: pods() == before, "the agent's repair")


def test_a_program_that_was_stopped_or_hung_goes_on_after_start(cluster):
    steering, node = Steering(cluster.playground), cluster.playground.node("n2")
    steering.stop("n2/agent")
    assert node.control.status()["agent"].pid is None
    steering.start("n2/agent")
    assert node.control.status()["agent"].pid is not None
    steering.hang("controller")
    steering.start("controller")
    steering.crash("n2/kubelet")
    cluster.until(lambda: node.control.status()["kubelet"].starts > 1, "a restart")
    cluster.playground.wait_ready()
    with pytest.raises(FastError, match="n1/agent"):
        steering.stop("n2/agnet")


def test_a_node_that_is_cut_off_is_reached_again_after_mend(cluster):
    breaker, node = Breaker(cluster.playground), cluster.playground.node("n1")

    def reached():
        return node.run("ping", "-c1", "-W1", "192.168.77.2").returncode == 0

    breaker.cut("n2")
    assert not reached()
    breaker.mend("cut")
    cluster.until(reached, "the node")


def test_a_node_that_was_stopped_comes_back_with_its_pods(cluster):
    steering, node = Steering(cluster.playground), cluster.playground.node("n2")
    steering.stop("n2")
    assert not node.running
    steering.start("n2")
    cluster.playground.wait_ready()
    cluster.wait_running("two")


def test_what_can_no_longer_be_undone_is_forgotten(cluster):
    cluster.make_pod("brief", "n1")
    cluster.wait_running("brief")
    breaker = Breaker(cluster.playground)
    breaker.break_("pod-mtu", "brief")
    cluster.kubectl.check("delete", "pod", "brief", "--wait", "--timeout=30s")
    assert [item.case for item in breaker.mend()] == ["pod-mtu"]
    assert Journal(cluster.playground.directory.path).read() == []
    assert json.loads((cluster.playground.directory.path / "broken.json").read_text()) == []
