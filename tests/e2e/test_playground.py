"""``fast-ctl playground``: what its commands promise, from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.kubectl import Kubectl
from fast_playground.cluster.lifecycle import Playground, fresh_name
from fast_playground.cluster.processes import find_processes
from fast_playground.cluster.traces import find_traces

CTL = str(Path(sys.executable).with_name("fast-ctl"))


def ctl(*arguments, **options):
    """``fast-ctl playground …`` to its end."""
    return subprocess.run(
        [CTL, "playground", *arguments], capture_output=True, text=True, timeout=90, check=False, **options
    )


@pytest.fixture
def name():
    made = fresh_name("test")
    yield made
    Playground(made).down()


def wait_gone(traces, seconds=15):
    deadline = time.monotonic() + seconds
    while (left := traces.remaining()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_down_leaves_no_process_namespace_mount_pin_or_file_of_running_pods(start_playground):
    found = start_playground(nodes=2)
    found.make_pool("default-ips", "10.244.100.0-10.244.100.9")
    found.make_pod("one", "n1")
    found.make_pod("two", "n2")
    found.wait_running("one", "two")
    traces = find_traces(found.playground.name)
    assert traces.remaining()
    assert ctl("down", "--name", found.playground.name).returncode == 0
    wait_gone(traces)


def test_a_playground_without_nodes_is_the_api_server_alone(name):
    assert ctl("up", "--name", name, "--nodes", "0").returncode == 0
    path = ctl("kubeconfig", "--name", name).stdout.strip()
    kubectl = Kubectl(Path(path))
    assert json.loads(kubectl.check("get", "nodes", "-o", "json"))["items"] == []
    assert "ipses.sample.fast.io" in kubectl.check("get", "crds", "-o", "name")


def test_two_playgrounds_live_side_by_side_and_go_one_by_one(start_playground):
    one, other = start_playground(nodes=1), start_playground(nodes=1)
    for found in (one, other):
        found.make_pool("default-ips", "10.244.100.0-10.244.100.9")
        found.make_pod("same", "n1")
        assert found.wait_running("same") == ["10.244.100.0"]
    one.playground.down()
    done = ctl("exec", "--name", other.playground.name, "same", "--", "ping", "-c1", "-W2", "192.168.77.1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_exec_and_node_pass_on_output_errors_and_exit_status(start_playground):
    found = start_playground(nodes=1)
    found.make_pool("default-ips", "10.244.100.0-10.244.100.9")
    found.make_pod("here", "n1")
    found.wait_running("here")
    script = ["--", "sh", "-c", "ip -o -4 addr show eth0; echo to stderr >&2; exit 7"]
    inside = ctl("exec", "--name", found.playground.name, "here", *script)
    assert "10.244.100.0/32" in inside.stdout
    on_node = ctl("node", "--name", found.playground.name, "n1", *script)
    assert "192.168.77.1/24" in on_node.stdout
    for done in (inside, on_node):
        assert (done.stderr, done.returncode) == ("to stderr\n", 7)


def test_an_unknown_pod_node_or_playground_is_named_with_what_to_do(start_playground):
    found = start_playground(nodes=1)
    done = ctl("node", "--name", found.playground.name, "n9", "--", "true")
    assert done.returncode == 1
    assert "no node 'n9' (its nodes: n1)" in done.stderr
    done = ctl("exec", "--name", found.playground.name, "nobody", "--", "true")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    done = ctl("kubeconfig", "--name", "never-made")
    assert done.returncode == 1
    assert "fast-ctl playground up --name never-made" in done.stderr


@pytest.mark.parametrize("after_seconds", [0.3, 0.9, 1.3])
def test_what_a_killed_up_left_is_removed_by_the_next_down(name, after_seconds):
    started = subprocess.Popen(
        [CTL, "playground", "up", "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(after_seconds)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    traces = find_traces(name)
    assert ctl("down", "--name", name).returncode == 0
    wait_gone(traces)
    assert not find_processes(name)


def test_what_a_killed_up_left_is_no_hindrance_to_the_next_up(name):
    started = subprocess.Popen(
        [CTL, "playground", "up", "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(0.9)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert ctl("up", "--name", name, "--nodes", "1").returncode == 0
    assert ctl("status", "--name", name).returncode == 0


def test_status_tells_of_a_program_that_does_not_run(start_playground):
    found = start_playground(nodes=1)
    assert ctl("status", "--name", found.playground.name).returncode == 0
    found.playground.node("n1").control.stop("agent")
    done = ctl("status", "--name", found.playground.name)
    assert done.returncode == 1
    assert "ended" in done.stdout


def test_pods_of_a_rebooted_node_come_back_and_reach_the_others(start_playground):
    found = start_playground(nodes=2)
    found.make_pool("default-ips", "10.244.100.0-10.244.100.9")
    for pod, node in (("one", "n1"), ("two", "n2")):
        found.make_pod(pod, node)
    _, there = found.wait_running("one", "two")
    found.playground.reboot(found.playground.node("n1"))
    found.playground.wait_ready()

    def reaches():
        return (
            ctl("exec", "--name", found.playground.name, "one", "--", "ping", "-c1", "-W1", there).returncode
            == 0
        )

    found.until(reaches, "a ping from the rebooted node's pod")
    records = {item["spec"]["pod"]["name"]: item["metadata"]["name"] for item in found.items("ipendpoints")}
    assert records == {"one": found.wait_running("one")[0], "two": there}
