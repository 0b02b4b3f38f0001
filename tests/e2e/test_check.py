"""``fast-ctl check`` on a whole cluster: each fault made on purpose is named, with what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.running import running
from fast_playground.cluster.node_programs import AGENT


@pytest.fixture(scope="module")
def cluster():
    """The agents repair nothing on their own for an hour: what a test breaks stays broken for check to find."""
    with running(nodes=2, agent_args=("--verify-interval-seconds", "3600")) as found:
        found.make_pool("default-ips", "10.244.50.0-10.244.50.99")
        yield found


@pytest.fixture
def pod(cluster):
    """A pod on n1: its network namespace and its host device."""
    cluster.make_pod("a")
    cluster.wait_running("a")
    yield Pod(cluster)
    cluster.delete_pods()


class Pod:
    def __init__(self, cluster):
        self.node = cluster.playground.node("n1")
        self.netns = cluster.playground.sandbox("default", "a").sandbox.netns
        (endpoint,) = json.loads(self.node.run("fast-ctl", "lips", "list", "-o", "json").stdout)
        self.address, self.device = endpoint["ip"], endpoint["device"]

    def run(self, command):
        """Run a command where IN stands for the pod, DEV for its host device, and IP for its address."""
        command = command.replace("IN ", f"nsenter --net={self.netns} ")
        command = command.replace("DEV", self.device).replace("IP", self.address)
        done = self.node.run("sh", "-c", command)
        assert done.returncode == 0, done.stderr


def check(cluster, *arguments, node="n1"):
    done = cluster.playground.node(node).run("fast-ctl", "check", *arguments, "-o", "json")
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


def test_a_sound_pod_is_ok_by_name_and_by_all(cluster, pod):
    for argument in ("a", "default/a", "--all"):
        status, rows, said = check(cluster, argument)
        assert (status, [row["check"] for row in rows]) == (0, ["OK"]), said
        assert rows[0]["pod"] == "default/a"
        assert rows[0]["addresses"] == [pod.address]


def test_a_pod_is_checked_from_another_machine_too(cluster, pod):
    fast_ctl = Path(sys.executable).with_name("fast-ctl")
    environment = os.environ | {"KUBECONFIG": str(cluster.playground.directory.kubeconfig)}
    command = [fast_ctl, "check", "a", "--node", "n1", "-o", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    (row,) = json.loads(done.stdout)
    assert (done.returncode, row["node"], row["check"]) == (0, "n1", "OK"), done.stderr
    pod.run("IN ip route delete default")
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("fault", "cause", "remedy"),
    [
        ("IN ip route delete default", "no default route via 169.254.1.1", "delete the pod"),
        (
            "IN ip neighbour delete 169.254.1.1 dev eth0",
            "no neighbour entry for 169.254.1.1",
            "delete the pod",
        ),
        ("IN ip address flush dev eth0", "lacks the address", "delete the pod"),
        ("IN ip link set eth0 down", "eth0 in the pod is down", "delete the pod"),
        ("IN ip link set eth0 mtu 9000", "the pod's MTU is 9000 bytes", "delete the pod"),
        ("IN ip link set eth0 mtu 1000", "the pod's MTU is 1000 bytes", "delete the pod"),
        (
            "IN ip link set eth0 mtu 9000; ip link set DEV mtu 9000",
            "the underlay's MTU shrank",
            "agent repairs",
        ),
        ("fast-ctl lips delete IP", "map", "agent repairs"),
        ("ip route delete IP dev DEV", "no route to", "agent repairs"),
        ("tc qdisc delete dev DEV clsact", "program", "agent repairs"),
    ],
)
def test_what_is_broken_is_named_with_what_to_do(cluster, pod, fault, cause, remedy):
    pod.run(fault)
    status, (row,), _ = check(cluster, "a")
    assert (status, row["check"]) == (1, "BAD")
    assert cause in "; ".join(row["problems"])
    assert remedy in row["do"]


def test_a_pod_that_is_not_on_this_node_is_told_how_to_find(cluster, pod):
    done = cluster.playground.node("n2").run("fast-ctl", "check", "a")
    assert done.returncode == 1
    assert "name that one with --node" in done.stderr


def test_names_or_all_must_be_given_but_not_both(cluster):
    for arguments in ((), ("a", "--all")):
        done = cluster.playground.node("n1").run("fast-ctl", "check", *arguments)
        assert (done.returncode, "--all" in done.stderr) == (2, True)


def test_what_cannot_be_told_is_no_all_clear(cluster, pod):
    control = pod.node.control
    control.kill(AGENT)
    try:
        # the playground starts it again in a moment; until then nothing can be told
        status, rows, _ = check(cluster, "--all", "--socket", "/run/fast/nobody.sock")
        assert (status, [row["check"] for row in rows]) == (3, ["?"])
    finally:
        cluster.until(lambda: check(cluster, "--all")[0] == 0, "the agent")
