"""Faults made on purpose, each named by one command: the table is the list of faults that an operator may meet.

The agents repair nothing on their own for an hour, so that what a test breaks stays broken.
"""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from e2e.running import running

FIREWALL = (
    "table inet fw {{\nchain c {{\ntype filter hook {hook} priority 0; policy {policy};\n{rule}\n}}\n}}\n"
)


@pytest.fixture(scope="module")
def cluster():
    with running(nodes=2, agent_args=("--verify-interval-seconds", "3600")) as found:
        found.make_pool("default-ips", "10.244.50.0-10.244.50.99")
        for name, node in (("a", "n1"), ("b", "n2"), ("c", "n1")):
            found.make_pod(name, node)
        found.wait_running("a", "b", "c")
        yield found


def ctl(cluster, *arguments):
    """``fast-ctl`` on the administrator's machine; gives exit status and what it said."""
    kubeconfig = str(cluster.playground.directory.kubeconfig)
    command = [sys.executable, "-m", "fast.ctl.fast_ctl", *arguments, "--kubeconfig", kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def address(cluster, pod):
    return cluster.get("pod", pod)["status"]["podIP"]


def on_node(cluster, node, command, stdin=""):
    done = cluster.playground.node(node).run("sh", "-c", command, input=stdin)
    assert done.returncode == 0, done.stderr


@contextmanager
def firewall(cluster, node, hook, rule="", policy="accept"):
    on_node(cluster, node, "nft -f -", FIREWALL.format(hook=hook, rule=rule, policy=policy))
    try:
        yield
    finally:
        on_node(cluster, node, "nft delete table inet fw")


@contextmanager
def in_pod(cluster, pod, command, undo):
    cluster.kubectl.check("exec", pod, "--", "sh", "-c", command)
    try:
        yield
    finally:
        cluster.kubectl.check("exec", pod, "--", "sh", "-c", undo)


@contextmanager
def without_neighbour(cluster):
    (entry,) = [row for row in cluster.ctl("n1", "lips", "list") if row["ip"] == address(cluster, "a")]
    again = f"ip neigh replace 169.254.1.1 lladdr {entry['hostMAC']} nud permanent dev eth0"
    with in_pod(cluster, "a", "ip neigh del 169.254.1.1 dev eth0", again):
        yield


@contextmanager
def without_local_entry(cluster):
    node, ip = cluster.playground.node("n1"), address(cluster, "a")
    (entry,) = [row for row in cluster.ctl("n1", "lips", "list") if row["ip"] == ip]
    on_node(cluster, "n1", f"fast-ctl lips delete {ip}")
    try:
        yield
    finally:
        node.run(
            "fast-ctl", "lips", "set", ip, "--device", entry["device"], "--pod-mac", entry["podMAC"],
            "--host-mac", entry["hostMAC"],
        )  # fmt: skip


@contextmanager
def without_cluster_entry(cluster):
    ip, node_ip = address(cluster, "b"), cluster.playground.node("n2").address
    on_node(cluster, "n1", f"fast-ctl cips delete {ip}")
    try:
        yield
    finally:
        on_node(cluster, "n1", f"fast-ctl cips set {ip} --node-ip {node_ip}")


@contextmanager
def with_pod(cluster, name, pool):
    cluster.make_pod(name, "n1", fast_io_ips=pool)
    try:
        cluster.until(
            lambda: [
                e
                for e in cluster.items("events")
                if e["involvedObject"]["name"] == name and e["type"] == "Warning"
            ],
            "the Event",
        )
        yield
    finally:
        cluster.kubectl.check("delete", "pod", name, "--wait")


@contextmanager
def exhausted(cluster):
    cluster.make_pool("tiny", "10.244.60.1")
    cluster.make_pod("first", "n1", fast_io_ips="tiny")
    cluster.wait_running("first")
    try:
        with with_pod(cluster, "second", "tiny"):
            yield
    finally:
        cluster.kubectl.check("delete", "pod", "first", "--wait")


@dataclass(frozen=True)
class Fault:
    """What is broken, the command that names it, and words that its last lines have to contain."""

    break_it: object
    command: tuple[str, ...]
    words: tuple[str, ...]


TRACE = ("trace", "a", "b")
FAULTS = {
    "tunnel port dropped on one node": Fault(
        lambda c: firewall(c, "n2", "input", 'udp dport 8472-8480 drop comment "corp hardening"'),
        TRACE,
        ("n2, nftables", "inet fw c rule udp dport", "corp hardening"),
    ),
    "FORWARD drop rule": Fault(
        lambda c: firewall(c, "n1", "forward", "ip daddr 192.168.77.250 drop"),
        ("trace", "a", "192.168.77.250"),
        ("n1, nftables", "inet fw c rule ip daddr 192.168.77.250 drop"),
    ),
    "FORWARD policy drop": Fault(
        lambda c: firewall(c, "n1", "forward", policy="drop"),
        ("trace", "a", "192.168.77.250"),
        ("n1, nftables", "inet fw c policy drop"),
    ),
    "pod's route deleted": Fault(
        lambda c: in_pod(
            c, "a", "ip route del default", "ip route add default via 169.254.1.1 dev eth0 onlink"
        ),
        TRACE,
        ("default/a", "route"),
    ),
    "pod's neighbour deleted": Fault(without_neighbour, TRACE, ("default/a", "169.254.1.1")),
    "pod MTU wrong": Fault(
        lambda c: in_pod(c, "a", "ip link set eth0 mtu 1300", "ip link set eth0 mtu 1450"),
        TRACE,
        ("default/a", "the pod's MTU is 1300 bytes"),
    ),
    "map entry of the pod deleted": Fault(
        without_local_entry, TRACE, ("default/a", "the map of local pods has no entry for")
    ),
    "map entry of the other pod deleted": Fault(
        without_cluster_entry, TRACE, ("n1 does not know", "map of the cluster")
    ),
    "pool exhausted": Fault(exhausted, ("trace", "second", "b"), ("default/second has no address", "tiny")),
    "annotation value typo": Fault(
        lambda c: with_pod(c, "typo", "nosuch"),
        ("trace", "typo", "b"),
        ("default/typo has no address", "nosuch"),
    ),
}


def test_packets_that_are_answered_are_exit_status_0_on_one_node_and_across(cluster):
    for destination in ("b", "c", "default/b", address(cluster, "b")):
        status, said = ctl(cluster, "trace", "a", destination)
        assert status == 0, said
        assert "3 of 3 packets were answered" in said
        assert "get through" in said


def test_a_port_that_nobody_listens_on_is_said(cluster):
    status, said = ctl(cluster, "trace", "a", "b", "--port", "81")
    assert status == 0, said
    assert "nothing listens on the port" in said


def test_a_pod_that_is_not_there_is_said(cluster):
    status, said = ctl(cluster, "trace", "a", "nosuch")
    assert status == 1
    assert "cause: there is no pod default/nosuch" in said


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_by_one_command(cluster, name):
    fault = FAULTS[name]
    with fault.break_it(cluster):
        status, said = ctl(cluster, *fault.command)
    assert status == 1, said
    last = said[said.index("cause: ") :]
    assert all(word in last for word in fault.words), said
    assert "\ndo:    " in last


def test_the_cluster_is_left_as_it_was_and_the_trace_table_is_gone(cluster):
    status, said = ctl(cluster, *TRACE, "-o", "json")
    assert status == 0, said
    assert json.loads(said)["delivered"] is True
    for node in ("n1", "n2"):
        assert "fast_trace" not in cluster.playground.node(node).run("nft", "list", "tables").stdout
