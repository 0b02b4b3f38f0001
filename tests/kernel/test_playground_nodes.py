"""Nodes of a playground without a cluster: namespaces, mounts, underlay, power cuts; nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.init_client import Control, InitGone, ProgramFailed
from fast_playground.cluster.lifecycle import Playground, fresh_name
from fast_playground.cluster.node import Node
from fast_playground.cluster.processes import VARIABLE, find_processes, kill_processes
from fast_playground.cluster.underlay import OUTSIDE, ensure_bridge
from kernel.lab import eventually


class Machines:
    """The lower half of a playground: its init, the underlay and two nodes, without any program of Kubernetes."""

    def __init__(self):
        self.playground = Playground(fresh_name("nodes"))
        directory = self.playground.directory
        directory.make()
        self.playground._start_root()
        self.root, self.underlay = self.playground.root, self.playground.underlay
        self.underlay.boot(self.root)
        ensure_bridge(self.underlay.namespace, 1500)
        self.nodes = [Node(directory, number) for number in (1, 2)]
        for node in self.nodes:
            node.boot(self.root, self.underlay, 1500)

    def close(self):
        kill_processes(self.playground.name)
        self.playground.directory.remove()


@pytest.fixture(scope="module")
def machines():
    made = Machines()
    yield made
    made.close()


@pytest.fixture
def node(machines):
    return machines.nodes[0]


def ping(node, address):
    return node.run("ping", "-c1", "-W2", str(address)).returncode == 0


def test_nodes_reach_each_other_and_the_outside_over_the_underlay(machines, node):
    assert ping(node, machines.nodes[1].address)
    assert ping(node, OUTSIDE)


def test_the_mtu_of_the_underlay_is_that_of_both_ends(node):
    assert "mtu 1500" in node.run("ip", "link", "show", "eth0").stdout


def test_a_node_has_a_run_bpf_filesystem_and_disk_of_its_own_that_the_machine_does_not_see(machines, node):
    script = "touch /run/mark /etc/mark /opt/mark /var/mark; mkdir /sys/fs/bpf/mark"
    assert node.run("sh", "-c", script).returncode == 0
    other = machines.nodes[1]
    for path in ("/run/mark", "/etc/mark", "/opt/mark", "/var/mark", "/sys/fs/bpf/mark"):
        assert not Path(path).exists()
        assert not other.path(path).exists()
        assert node.path(path).exists()


def test_the_machine_has_no_mount_or_named_namespace_of_the_playground(machines):
    assert "fast-" not in Path("/proc/self/mounts").read_text()
    assert not any(entry.name.startswith("cni-") for entry in Path("/run").glob("netns/*"))


def test_the_network_devices_in_sys_are_those_of_the_node(node):
    assert set(node.run("ls", "/sys/class/net").stdout.split()) == {"eth0", "lo"}


def test_a_command_on_a_node_passes_on_output_and_exit_status(node):
    done = node.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_a_power_cut_ends_every_process_and_leaves_the_disk_but_a_new_boot_id_and_an_empty_run(
    machines, node
):
    machines.root.status()
    log = machines.playground.directory.log("sleep")
    node.control.start("sleep", ["sleep", "600"], log=log)
    node.run("sh", "-c", "echo kept > /var/kept; touch /run/gone; ip link add dummy0 type veth")
    before = node.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    node.crash(machines.root)
    assert not node.running
    node.boot(machines.root, machines.underlay, 1500)
    assert node.run("cat", "/var/kept").stdout == "kept\n"
    assert not node.path("/run/gone").exists()
    assert node.run("cat", "/proc/sys/kernel/random/boot_id").stdout not in (before, "")
    assert node.control.status() == {}
    assert ping(node, machines.nodes[1].address)


def test_a_command_on_a_node_starts_where_its_caller_is_or_in_the_root_where_the_node_lacks_that(
    node, monkeypatch
):
    monkeypatch.chdir("/usr/lib")
    assert node.run("pwd").stdout == "/usr/lib\n"
    monkeypatch.chdir("/run/fast-playground")
    assert node.run("pwd").stdout == "/\n"


def test_init_starts_a_program_again_that_was_killed_and_not_one_that_was_stopped(machines, node):
    log = machines.playground.directory.log("program")
    node.control.start("program", ["sleep", "600"], log=log)
    node.control.kill("program")
    eventually(lambda: node.control.status()["program"].starts == 2)
    assert node.control.stop("program") == -signal.SIGTERM
    state = node.control.status()["program"]
    assert (state.pid, state.restarts) == (None, False)


def test_a_program_that_does_not_exist_cannot_be_started_and_a_running_one_not_twice(machines, node):
    log = machines.playground.directory.log("bad")
    with pytest.raises(ProgramFailed, match="nosuch"):
        node.control.start("bad", ["/nosuch"], log=log)
    node.control.start("good", ["sleep", "600"], log=log)
    with pytest.raises(ProgramFailed, match="runs already"):
        node.control.start("good", ["sleep", "600"], log=log)
    node.control.stop("good")


def test_init_collects_the_orphans_of_its_node(node):
    node.run("sh", "-c", "sh -c 'sleep 0.1 & exec true' &")
    eventually(lambda: " Z" not in node.run("ps", "-eo", "stat=,comm=").stdout)


def test_passed_descriptors_are_numbered_in_the_command(machines, node):
    log = machines.playground.directory.log("fd")
    reading, writing = os.pipe()
    node.control.start(
        "fd", ["bash", "-c", "echo through >&{fd1}"], log=log, restarts=False, descriptors=[writing]
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.readline() == "through\n"


def test_an_init_that_is_not_there_is_said_to_be_gone(tmp_path):
    with pytest.raises(InitGone, match="nothing answers"):
        Control(tmp_path / "no.sock").status()


def test_only_processes_that_carry_the_name_are_found_and_killed():
    name = fresh_name("kill")
    own = subprocess.Popen(["sleep", "600"], env=os.environ | {VARIABLE: name})
    others = subprocess.Popen(["sleep", "600"], env=os.environ | {VARIABLE: f"{name}-2"})
    try:
        eventually(lambda: find_processes(name) == [own.pid])
        kill_processes(name)
        assert find_processes(name) == []
        assert others.poll() is None
    finally:
        others.kill()
        others.wait()
        own.wait()


def test_killing_the_first_process_of_a_playground_ends_all_of_it():
    made = Machines()
    try:
        first = made.root.init_pid()
        namespaces = {os.readlink(node.namespace) for node in made.nodes}
        os.kill(first, signal.SIGKILL)
        eventually(lambda: find_processes(made.playground.name) == [])
        assert not namespaces & set(_all_namespaces())
    finally:
        made.close()
    assert not made.playground.exists


def _all_namespaces():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield os.readlink(entry / "ns" / "net")
            except OSError:
                continue


def test_commands_of_the_machine_with_their_libraries_run_on_a_node(node):
    done = node.run(sys.executable, "-c", "import fast, os; print(os.environ['NODE_NAME'])")
    assert done.stdout == f"{node.name}\n"


def test_an_init_whose_mounts_fail_is_reported_with_its_log(machines):
    broken = Node(machines.playground.directory, 9)
    disk = StateDirectory(machines.playground.name).disks / broken.name
    machines.root.start(
        "file", ["touch", str(disk)], log=machines.playground.directory.log("x"), restarts=False
    )
    eventually(lambda: machines.root.status()["file"].exit_status == 0)
    began = time.monotonic()
    with pytest.raises(InitGone, match="n9 did not start"):
        broken.boot(machines.root, machines.underlay, 1500)
    assert time.monotonic() - began < 10
