"""What a pod of a playground sees, and how its processes are started and left."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.running import Running
from fast_playground.cluster.lifecycle import Playground, fresh_name

CTL = str(Path(sys.executable).with_name("fast-ctl"))
ARGS_ONLY = """
apiVersion: v1
kind: Pod
metadata: {name: told}
spec:
  containers: [{name: main, image: busybox, args: [sh, -c, "echo said > /tmp/said; sleep 1000"]}]
"""


@pytest.fixture(scope="module")
def cluster():
    """A playground with the default pool, started as a script's background job starts it: SIGINT is ignored."""
    name = fresh_name("test")
    ignored = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    try:
        started = subprocess.run(
            [CTL, "playground", "up", "--nodes", "1", "--name", name, "--two-addresses"],
            preexec_fn=ignored,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert started.returncode == 0, started.stderr
        found = Running(Playground(name))
        found.make_pod("box", "n1")
        found.wait_running("box")
        yield found
    finally:
        Playground(name).down()


def test_pods_run_at_once_for_there_is_a_default_pool(cluster):
    assert cluster.wait_running("box") == ["10.244.100.0"]


def test_what_a_pod_removes_and_writes_is_its_own(cluster, tmp_path):
    (tmp_path / "precious").touch()
    on_node = cluster.playground.node("n1").path("/etc/precious")
    on_node.touch()
    wiped = f"rm -rf {tmp_path} /etc/* /root /var /home /usr/bin/env; echo x > /usr/x; touch /tmp/own /own"
    cluster.kubectl("exec", "box", "--", "sh", "-c", wiped)
    assert (tmp_path / "precious").exists()
    assert on_node.exists()
    assert Path("/usr/bin/env").exists()
    assert not Path("/usr/x").exists()
    assert not Path("/own").exists()
    assert cluster.kubectl.check("exec", "box", "--", "ls", "/own", "/tmp/own").split() == [
        "/own",
        "/tmp/own",
    ]


def test_kubectl_logs_shows_what_a_container_wrote(cluster):
    command = [
        "run",
        "teller",
        "--image=busybox",
        "--command",
        "--",
        "sh",
        "-c",
        "echo told; exec sleep 1000",
    ]
    cluster.kubectl.check(*command)
    cluster.kubectl.check("wait", "--for=condition=Ready", "pod/teller", "--timeout=30s")
    assert cluster.kubectl.check("logs", "teller") == "told\n"
    cluster.kubectl.check("delete", "pod", "teller", "--now")


def test_a_pod_sees_the_devices_of_its_own_network(cluster):
    assert cluster.kubectl.check("exec", "box", "--", "ls", "/sys/class/net").split() == ["eth0", "lo"]


def test_a_root_outlives_a_restart_of_the_kubelet_and_ends_with_its_pod(cluster):
    cluster.make_pod("brief", "n1")
    cluster.wait_running("brief")
    cluster.kubectl.check("exec", "brief", "--", "touch", "/mine")
    node = cluster.playground.node("n1")
    node.control.kill("kubelet")
    cluster.until(lambda: node.control.status()["kubelet"].pid, "the kubelet")
    assert cluster.kubectl.check("exec", "brief", "--", "ls", "/mine") == "/mine\n"
    held = cluster.playground.sandbox("default", "brief").sandbox.pause.pid
    assert node.path(f"/proc/{held}/ns/mnt").readlink() != node.path("/proc/1/ns/mnt").readlink()
    cluster.kubectl.check("delete", "pod", "brief", "--wait", "--timeout=30s")
    cluster.until(lambda: not node.path(f"/proc/{held}").exists(), "the root to go")


def test_many_roots_at_once_are_made_without_a_retry(cluster):
    names = [f"crowd-{number}" for number in range(12)]
    for name in names:
        cluster.make_pod(name, "n1")
    cluster.wait_running(*names)
    assert "cannot" not in cluster.playground.directory.log("n1-kubelet").read_text()


def test_a_node_can_have_two_internal_addresses(cluster):
    addresses = cluster.get("node", "n1")["status"]["addresses"]
    assert [item["address"] for item in addresses if item["type"] == "InternalIP"] == [
        "192.168.77.1",
        "192.168.78.1",
    ]
    assert "192.168.78.1/24" in cluster.playground.node("n1").run("ip", "-4", "addr", "show", "eth0").stdout


def test_args_without_a_command_are_the_command(cluster):
    cluster.kubectl.check("create", "-f", "-", stdin=ARGS_ONLY.encode())
    cluster.wait_running("told")
    cluster.until(
        lambda: cluster.kubectl("exec", "told", "--", "cat", "/tmp/said").stdout == b"said\n", "the file"
    )


def test_a_pods_commands_have_the_signals_at_their_defaults(cluster):
    for pid in ("self", "1"):
        script = f"grep -E '^Sig(Ign|Blk)' /proc/{pid}/status"
        for line in cluster.kubectl.check("exec", "box", "--", "sh", "-c", script).splitlines():
            mask = int(line.split()[1], 16)
            assert not mask >> (signal.SIGINT - 1) & 1, line


@pytest.mark.parametrize("keys", [b"exit\n", b"\x04"])
def test_an_interactive_shell_ends_without_an_error(cluster, keys):
    pid, terminal = pty.fork()
    if pid == 0:
        kubectl = cluster.kubectl
        os.execve(kubectl.path, ["kubectl", "exec", "-it", "box", "--", "sh"], kubectl.env)
    written = b""
    try:
        deadline = time.monotonic() + 20
        while not written.endswith(b"# ") and time.monotonic() < deadline:
            written += os.read(terminal, 4096)
        os.write(terminal, keys)
        while chunk := os.read(terminal, 4096):
            written += chunk
    except OSError:  # EIO: the command has ended
        pass
    finally:
        os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert (status, b"error" in written or b"terminated" in written) == (0, False), written


def test_logs_and_list_name_what_there_is(cluster):
    def ctl(*arguments):
        return subprocess.run(
            [CTL, "playground", *arguments], capture_output=True, text=True, timeout=30, check=False
        )

    name = cluster.playground.name
    assert '"event"' in ctl("logs", "--name", name, "n1/agent").stdout
    wrong = ctl("logs", "--name", name, "n7")
    assert wrong.returncode == 1
    assert "n1/agent" in wrong.stderr
    assert f"{name} " in ctl("list").stdout
