"""Debian's containerd and runc on two nodes: pods and plain containers, through the runtime's own CNI code."""

import subprocess
import uuid
from dataclasses import replace

import pytest

from e2e.containerd import Containerd, CriError, Pod, remove_cgroups
from e2e.running import running
from fast_playground.cluster.node_programs import AGENT, KUBELET

CONFLIST = "/etc/cni/net.d/10-fast.conflist"


class Machines:
    """Two nodes with a containerd each; the test plays kubelet."""

    def __init__(self, cluster, cgroup):
        self.cluster = cluster
        self.nodes = [cluster.playground.node(name) for name in ("n1", "n2")]
        logs = cluster.playground.directory
        self.runtimes = [Containerd(node, cgroup, logs.log(f"{node.name}-containerd")) for node in self.nodes]

    def start(self):
        for node, runtime in zip(self.nodes, self.runtimes, strict=True):
            node.control.stop(KUBELET)
            # on a real node the package kubernetes-cni brings these; containerd calls loopback for every pod
            brought = [f"/usr/lib/cni/{name}" for name in ("loopback", "portmap", "bandwidth")]
            node.run("cp", *brought, "/opt/cni/bin/", check=True)
            # the agent looks for plugins to put behind Fast when it starts
            node.control.stop(AGENT)
            node.path(CONFLIST).unlink()
            self.cluster.playground.start_agent(node)
            runtime.start()
        self.cluster.until(lambda: all(item.network_ready() for item in self.runtimes), "the networks")

    def make_pod(self, name, number):
        """Create a pod of a node in the API, for the runtime of that node."""
        self.cluster.make_pod(name, node=f"n{number + 1}", fast_io_ips="pods")
        return Pod("default", name, self.cluster.get("pod", name)["metadata"]["uid"])

    def run(self, name, number):
        """Run a pod wholly; gives pod, sandbox, container, address."""
        pod, runtime = self.make_pod(name, number), self.runtimes[number]
        sandbox = runtime.run_sandbox(pod)
        return pod, sandbox, runtime.start_container(pod, sandbox), runtime.address(sandbox)

    def held(self):
        """The addresses that are taken, with whom they belong to."""
        return {
            item["metadata"]["name"]: item["spec"]["pod"]["name"] if item["spec"].get("pod") else ""
            for item in self.cluster.items("ipendpoints")
        }

    def clean(self):
        for runtime in self.runtimes:
            for sandbox in runtime.sandboxes():
                runtime.remove_sandbox(sandbox)
        delete = ("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
        self.cluster.kubectl.check(*delete)


@pytest.fixture(scope="module")
def machines():
    cgroup = f"fast-test-{uuid.uuid4().hex[:8]}"
    try:
        with running(nodes=2) as cluster:
            cluster.make_pool("pods", "10.244.20.0-10.244.20.99")
            cluster.make_pool("default-ips", "10.244.30.0-10.244.30.99")
            made = Machines(cluster, cgroup)
            made.start()
            yield made
    finally:
        remove_cgroups(cgroup)


@pytest.fixture(autouse=True)
def _clean(machines):
    yield
    machines.clean()


def ping(machines, number, container, address):
    machines.runtimes[number].exec(container, "ping", "-c", "2", "-W", "3", address)


def test_the_runtime_finds_the_network_that_the_agent_installed(machines):
    assert [runtime.network_ready() for runtime in machines.runtimes] == [True, True]


def test_pods_get_addresses_of_their_pool_and_reach_each_other_on_a_node_and_across(machines):
    _, _, first, a = machines.run("a", 0)
    _, _, _, b = machines.run("b", 0)
    _, _, third, c = machines.run("c", 1)
    assert machines.held() == {a: "a", b: "b", c: "c"}
    assert {a, b, c} == {"10.244.20.0", "10.244.20.1", "10.244.20.2"}
    for address in (b, c):
        ping(machines, 0, first, address)
    ping(machines, 1, third, a)


def test_exec_sees_the_interface_as_cni_made_it(machines):
    _, _, container, address = machines.run("a", 0)
    shown = machines.runtimes[0].exec(container, "ip", "address", "show", "eth0")
    assert f"inet {address}/32" in shown
    assert "default via 169.254.1.1" in machines.runtimes[0].exec(container, "ip", "route")


def test_a_deleted_sandbox_gives_its_address_back_and_deleting_it_twice_is_fine(machines):
    _, sandbox, _, address = machines.run("a", 0)
    assert address in machines.held()
    runtime = machines.runtimes[0]
    runtime.call("StopPodSandbox", {1: sandbox})
    runtime.remove_sandbox(sandbox)
    assert machines.held() == {}
    assert machines.cluster.ctl("n1", "local-ips", "list") == []


def test_a_pod_of_an_unknown_pool_fails_with_fasts_reason_and_leaves_nothing(machines):
    machines.cluster.make_pod("lost", fast_io_ips="nowhere")
    pod = Pod("default", "lost", machines.cluster.get("pod", "lost")["metadata"]["uid"])
    with pytest.raises(CriError, match="nowhere"):
        machines.runtimes[0].run_sandbox(pod)
    assert machines.held() == {}
    assert machines.cluster.ctl("n1", "local-ips", "list") == []


def test_a_host_port_and_a_limit_of_bandwidth_are_made_by_the_plugins_behind_fast(machines):
    limit = {"kubernetes.io/ingress-bandwidth": "8M"}
    pod = replace(machines.make_pod("a", 0), ports={8080: 80}, annotations=limit)
    runtime, node = machines.runtimes[0], machines.nodes[0]
    sandbox = runtime.run_sandbox(pod)
    runtime.start_container(pod, sandbox, "nc", "-ll", "-p", "80", "-e", "echo", "hi")
    client = ("busybox", "nc", "-w", "2", str(node.address), "8080")
    outside = machines.cluster.playground.underlay
    machines.cluster.until(lambda: outside.run(*client).stdout == "hi\n", "an answer")
    assert "tbf" in node.run("tc", "qdisc", "show").stdout
    runtime.remove_sandbox(sandbox)
    assert "tbf" not in node.run("tc", "qdisc", "show").stdout
    assert outside.run(*client).stdout == ""


def test_a_killed_containerd_disturbs_no_pod_and_deletes_what_it_made_before(machines):
    _, sandbox, first, _ = machines.run("a", 0)
    _, _, _, b = machines.run("b", 1)
    (netns,) = machines.nodes[0].run("ls", "/run/netns").stdout.split()
    inside = machines.nodes[0].path(f"/run/netns/{netns}")
    pinging = machines.nodes[0].command(
        ["ping", "-q", "-i", "0.05", "-c", "40", "-W", "2", b], network=inside
    )
    with subprocess.Popen(pinging, stdout=subprocess.PIPE, text=True) as process:
        machines.runtimes[0].crash()
        output, _ = process.communicate(timeout=30)
    assert " 0% packet loss" in output
    ping(machines, 0, first, b)
    machines.runtimes[0].remove_sandbox(sandbox)
    assert set(machines.held()) == {b}


def test_a_sandbox_that_is_deleted_while_the_agent_is_away_gives_its_address_back_later(machines):
    _, sandbox, _, address = machines.run("a", 0)
    node = machines.nodes[0]
    node.control.stop(AGENT)
    machines.runtimes[0].remove_sandbox(sandbox)
    assert address in machines.held()
    machines.cluster.playground.start_agent(node)
    machines.cluster.until(lambda: not machines.held(), "a free address")


def test_after_a_reboot_of_the_node_its_pods_run_again_and_the_others_reach_them(machines):
    pod, old, _, _ = machines.run("a", 0)
    _, _, other, b = machines.run("b", 1)
    playground, node, runtime = machines.cluster.playground, machines.nodes[0], machines.runtimes[0]
    node.crash(playground.root)
    node.boot(playground.root, playground.underlay, playground.settings.mtu)
    playground.start_agent(node)
    runtime.start()
    machines.cluster.until(runtime.network_ready, "a network")
    assert runtime.sandboxes() == [old]
    runtime.remove_sandbox(old)
    machines.cluster.until(lambda: machines.held() == {b: "b"}, "the address of before the reboot")
    sandbox = runtime.run_sandbox(pod, attempt=1)
    container = runtime.start_container(pod, sandbox, attempt=1)
    ping(machines, 0, container, b)
    ping(machines, 1, other, runtime.address(sandbox))


def test_a_plain_container_of_ctr_gets_an_address_of_the_default_pool_and_reaches_pods(machines):
    _, _, _, address = machines.run("a", 1)
    shown = machines.runtimes[0].run("plain", "sh", "-c", f"ip address show eth0; ping -c 2 -W 3 {address}")
    assert "inet 10.244.30." in shown
    assert " 0% packet loss" in shown
    assert set(machines.held()) == {address}
