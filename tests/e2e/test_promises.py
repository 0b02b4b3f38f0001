"""What readiness promises is tested, what can be put back is put back, and paths by process work as deployed."""

import json
import signal
import time

import pytest

from e2e.running import running
from fast_playground.cluster import node_programs
from fast_playground.cluster.node_programs import AGENT, API_SERVER

CONFLIST, PLUGIN = "/etc/cni/net.d/10-fast.conflist", "/opt/cni/bin/fast-cni"


@pytest.fixture(scope="module")
def cluster():
    with running(nodes=1) as found:
        found.make_pool("default-ips", "10.244.50.0-10.244.50.99")
        yield found


@pytest.fixture
def node(cluster):
    found = cluster.playground.node("n1")
    cluster.until(lambda: readyz(found) == "ok", "a ready agent")
    return found


def readyz(node):
    return node.run("curl", "-s", "-m", "5", "http://127.0.0.1:9095/readyz").stdout.strip()


def call(node, command, container, netns, extra=""):
    config = '{"cniVersion":"1.1.0","name":"fast","type":"fast-cni"' + extra + "}"
    sandbox = f"CNI_CONTAINERID={container} CNI_IFNAME=eth0 CNI_NETNS={netns}"
    environment = f"CNI_COMMAND={command} {sandbox} CNI_PATH=/opt/cni/bin"
    done = node.run("sh", "-c", f"printf '%s' '{config}' | env {environment} {PLUGIN}")
    return done.returncode, json.loads(done.stdout or "null")


def test_a_wiped_run_directory_gets_its_socket_again_and_pods_start(cluster, node):
    node.run("rm", "-rf", "/run/fast", check=True)
    cluster.until(lambda: node.path("/run/fast/agent.sock").exists(), "the socket", seconds=10)
    cluster.make_pod("after-wipe")
    cluster.wait_running("after-wipe")
    cluster.until(lambda: cluster.events("SocketRestored", "n1"), "an Event on the Node")
    cluster.delete_pods()


@pytest.mark.parametrize("path", [CONFLIST, PLUGIN])
def test_files_for_the_runtime_that_somebody_removes_are_put_back_and_told(cluster, node, path):
    before = node.path(path).read_bytes()
    node.path(path).unlink()
    cluster.until(
        lambda: node.path(path).exists() and node.path(path).read_bytes() == before, path, seconds=15
    )
    name = path.rpartition("/")[2]
    cluster.until(
        lambda: any(name in text for text in cluster.events("InstallationRestored", "n1")),
        "an Event on the Node",
    )


def test_another_configuration_that_sorts_first_is_told_by_readiness_status_doctor_and_an_event(
    cluster, node
):
    other = node.path("/etc/cni/net.d/05-other.conflist")
    other.write_text("{}")
    try:
        said = cluster.until(lambda: (text := readyz(node)) != "ok" and text, "readiness to end", seconds=15)
        assert "05-other.conflist comes before 10-fast.conflist" in said
        status, answer = call(node, "STATUS", "x", "/x")
        assert (status, answer["code"]) == (1, 50)
        assert node.run("fast-ctl", "doctor").returncode == 1
    finally:
        other.unlink()
    cluster.until(lambda: readyz(node) == "ok", "a ready agent", seconds=15)


def test_an_api_server_that_hangs_is_told_within_fifteen_seconds_and_forgotten_afterwards(cluster, node):
    cluster.playground.root.kill(API_SERVER, signal.SIGSTOP)
    began = time.monotonic()
    try:
        said = cluster.until(lambda: (text := readyz(node)) != "ok" and text, "readiness to end", seconds=15)
        assert "api-server" in said
        assert time.monotonic() - began < 15
    finally:
        cluster.playground.root.kill(API_SERVER, signal.SIGCONT)
    cluster.until(lambda: readyz(node) == "ok", "a ready agent")


def test_an_agent_that_hangs_is_told_by_status_within_five_seconds_and_by_doctor(cluster, node):
    node.control.kill(AGENT, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, answer = call(node, "STATUS", "x", "/x")
        assert (status, answer["code"]) == (1, 50)
        assert time.monotonic() - began < 8
        done = node.run("fast-ctl", "doctor")
        assert (done.returncode, "it hangs" in done.stdout) == (1, True)
    finally:
        node.control.kill(AGENT, signal.SIGCONT)


def test_a_read_only_state_directory_is_told_and_holds_up_no_del(cluster, node):
    cluster.make_pod("goes")
    cluster.wait_running("goes")
    directory = "/var/lib/fast/tombstones"
    node.run("sh", "-c", f"mkdir -p {directory}; mount -t tmpfs -o ro none {directory}", check=True)
    try:
        said = cluster.until(lambda: (text := readyz(node)) != "ok" and text, "readiness to end", seconds=15)
        assert "state-directory" in said
        assert "Read-only file system" in said
        cluster.delete_pods()
    finally:
        node.run("umount", directory, check=True)
    cluster.until(lambda: readyz(node) == "ok", "a ready agent", seconds=15)


def in_own_pid_namespace(cluster, node):
    """Restart the agent as its DaemonSet runs it: without hostPID."""
    command = node_programs.agent_command(cluster.playground.directory_settings)
    own = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--", *command]
    node.control.stop(AGENT)
    node.control.start(
        AGENT,
        own,
        log=cluster.playground.directory.log("n1-agent"),
        environment=node_programs.agent_environment(node),
    )
    cluster.until(lambda: readyz(node) == "ok", "a ready agent")


def test_a_path_by_process_works_for_an_agent_in_a_pid_namespace_of_its_own(cluster, node):
    in_own_pid_namespace(cluster, node)
    script = f"""
        unshare --net sleep 60 & sleep 0.5
        printf '%s' '{{"cniVersion":"1.1.0","name":"fast","type":"fast-cni"}}' > /tmp/conf-by-pid
        export CNI_CONTAINERID=bypid CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin CNI_NETNS=/proc/$!/ns/net
        CNI_COMMAND=ADD {PLUGIN} < /tmp/conf-by-pid; echo; nsenter --net=$CNI_NETNS ip -o address show eth0
        CNI_COMMAND=DEL {PLUGIN} < /tmp/conf-by-pid; rm /tmp/conf-by-pid; kill $!
    """
    printed, shown = node.run("sh", "-c", script).stdout.split("\n\n")
    result = json.loads(printed)
    assert result["ips"][0]["address"] in shown
    assert result["interfaces"][1]["sandbox"].startswith("/proc/")
    cluster.until(lambda: not cluster.items("ipendpoints"), "free addresses")


def test_a_path_to_the_nodes_own_namespace_is_refused_and_its_routes_stay(cluster, node):
    before = node.run("ip", "route").stdout
    status, answer = call(node, "ADD", "gone12", "/proc/1/ns/net")
    assert (status, answer["code"]) == (1, 4)
    assert "node's own network namespace" in answer["msg"]
    assert node.run("ip", "route").stdout == before
    assert call(node, "DEL", "gone12", "/proc/1/ns/net")[0] == 0
    assert not cluster.items("ipendpoints")


@pytest.mark.parametrize(
    "extra", ['"dns":null', '"runtimeConfig":{"ips":null}', '"prevResult":null', '"args":null']
)
def test_null_of_a_runtime_written_in_go_is_absence(cluster, node, extra):
    node.run("ip", "netns", "add", "odd", check=True)
    try:
        assert call(node, "ADD", "odd", "/run/netns/odd", f",{extra}")[0] == 0
        assert call(node, "DEL", "odd", "/run/netns/odd", f",{extra}") == (0, None)
    finally:
        node.run("ip", "netns", "delete", "odd")
