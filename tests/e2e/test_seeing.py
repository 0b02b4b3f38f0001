"""What an operator sees of lost packets: by command, by Event and by metric, with the names of the pods."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

SPOOFED = "10.244.99.99"
METRICS = "import sys,urllib.request as r; sys.stdout.write(r.urlopen('http://127.0.0.1:9095/metrics').read().decode())"

ONE_ADDRESS = b"""
apiVersion: sample.fast.io/v1alpha1
kind: Ips
metadata: {name: one}
spec: {subnet: 10.244.0.1/16, ips: [10.244.40.1], releaseDelaySeconds: 0}
"""


@pytest.fixture(scope="module")
def cluster(playground):
    playground.make_pool("default-ips", "10.244.30.0-10.244.30.9")
    playground.make_pod("spoofer", "n1")
    playground.make_pod("victim", "n2")
    playground.wait_running("spoofer", "victim")
    return playground


def from_outside(cluster, *arguments):
    """``fast-ctl … -o json`` on the administrator's machine; gives exit status and rows."""
    kubeconfig = str(cluster.playground.directory.kubeconfig)
    command = [
        sys.executable,
        "-m",
        "fast.ctl.fast_ctl",
        *arguments,
        "-o",
        "json",
        "--kubeconfig",
        kubeconfig,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout or "[]")


def spoof(cluster, pod, target, source=SPOOFED):
    """Let a pod ping with an address that is not its own."""
    cluster.kubectl("exec", pod, "--", "ip", "addr", "add", f"{source}/32", "dev", "eth0")
    cluster.kubectl("exec", pod, "--", "ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", source, target)


def test_a_pod_that_spoofs_is_named_by_drops_on_every_node_an_event_and_the_metric(cluster):
    victim = cluster.get("pod", "victim")["status"]["podIP"]
    spoof(cluster, "spoofer", victim)
    status, rows = from_outside(cluster, "drops", "-A", "--reason", "spoofed_address")
    assert status == 0
    (row,) = [row for row in rows if row["source"] == SPOOFED]
    assert (row["node"], row["pod"], row["destinationPod"]) == ("n1", "default/spoofer", "default/victim")
    assert row["from"] == f"default/spoofer as {SPOOFED}"
    assert row["packets"] == 3

    (message,) = cluster.until(lambda: cluster.events("PacketsDropped", "spoofer"), "the Event", 30)
    assert SPOOFED in message
    assert "drop_spoofed_address" in message
    metrics = cluster.playground.node("n1").run("python3", "-c", METRICS).stdout
    (count,) = re.findall(
        r'fast_pod_dropped_packets_total{namespace="default",pod="spoofer",reason="drop_spoofed_address"} (\d+)',
        metrics,
    )
    assert int(count) == 3


def test_an_address_that_changed_hands_is_named_by_who_held_it_then(cluster):
    cluster.kubectl.check("create", "-f", "-", stdin=ONE_ADDRESS)
    cluster.make_pod("first", "n2", fast_io_ips="one")
    (address,) = cluster.wait_running("first")
    spoof(cluster, "spoofer", address, "10.244.99.98")
    cluster.kubectl.check("delete", "pod", "first", "--wait")
    cluster.make_pod("second", "n2", fast_io_ips="one")
    assert cluster.wait_running("second") == [address]
    spoof(cluster, "spoofer", address, "10.244.99.97")
    rows = {row["source"]: row for row in cluster.ctl("n1", "drops")}
    assert rows["10.244.99.98"]["destinationPod"] == "default/first"
    assert rows["10.244.99.97"]["destinationPod"] == "default/second"


def test_the_names_of_a_spoofer_that_is_gone_stay(cluster):
    cluster.make_pod("brief", "n1")
    cluster.wait_running("brief")
    spoof(cluster, "brief", "10.244.30.1", "10.244.99.96")
    cluster.kubectl.check("delete", "pod", "brief", "--wait")
    rows = {row["source"]: row for row in cluster.ctl("n1", "drops")}
    assert rows["10.244.99.96"]["pod"] == "default/brief"


def test_the_socket_comes_back_after_somebody_removed_it(cluster):
    node = cluster.playground.node("n1")
    node.run("sh", "-c", "rm -f /run/fast/traffic.sock")
    cluster.until(lambda: node.run("fast-ctl", "drops").returncode == 0, "the socket", 10)


def test_new_flows_are_told_while_somebody_follows(cluster):
    node, victim = cluster.playground.node("n2"), cluster.get("pod", "victim")["status"]["podIP"]
    command = node.command(["timeout", "6", "fast-ctl", "flows", "-f", "-o", "json", "--pod", "victim"])
    with subprocess.Popen(command, env=node.environment(), stdout=subprocess.PIPE, text=True) as follower:
        time.sleep(2.5)
        # fragments go through the stack
        cluster.kubectl.check("exec", "spoofer", "--", "ping", "-c", "1", "-s", "3000", victim)
        lines = [json.loads(line) for line in follower.stdout]
    flows = [line for line in lines if line["kind"] == "flow"]
    assert {(line["sourcePod"], line["destinationPod"]) for line in flows} >= {
        ("default/spoofer", "default/victim")
    }


def test_the_board_shows_both_nodes_their_pods_and_the_pools(cluster):
    status, board = from_outside(cluster, "status")
    assert status in (0, 1), board
    assert [(row["node"], row["silent"]) for row in board["nodes"]] == [("n1", False), ("n2", False)]
    cluster.until(
        lambda: all(row["pods"] for row in from_outside(cluster, "status")[1]["nodes"]), "counts of pods", 40
    )
    assert "default-ips" in {row["pool"] for row in board["pools"]}


def test_a_node_whose_agent_hangs_is_a_row_and_the_exit_status_is_3(cluster):
    node = cluster.playground.node("n2")
    kubeconfig = str(cluster.playground.directory.kubeconfig)
    command = [sys.executable, "-m", "fast.ctl.fast_ctl", "drops", "-A", "--kubeconfig", kubeconfig]
    node.control.kill("agent", signal.SIGSTOP)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    finally:
        node.control.kill("agent", signal.SIGCONT)
    assert done.returncode == 3
    assert re.search(
        r"^n2 +unreachable: (fast-agent does not answer .*it hangs|no answer in 5 s)", done.stdout, re.M
    )
