"""Running pods do not notice what happens to their nodes' agents: pings every 2 ms, none lost; TCP streams unbroken."""

import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECONDS = 8
PORT = 9001
STREAMING = Path(__file__).with_name("streaming.py")
STATEFUL_SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 1
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      nodeName: n1
      containers: [{name: main, image: busybox, command: [sleep, infinity]}]
"""
#: Sent when ping ended, and not answered yet.
UNDER_WAY = 10


class Pings:
    """A ping every 2 ms from a pod, for some seconds."""

    def __init__(self, sandbox, address, log):
        command = sandbox.command(["ping", "-D", "-n", "-i", "0.002", "-w", str(SECONDS), address])
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(command, stdout=output, env=sandbox.node.environment())

    @property
    def running(self):
        """Whether it still pings."""
        return self._process.poll() is None

    def finish(self):
        """Give how many were sent, and which were lost."""
        self._process.wait(SECONDS + 20)
        log = self._log.read_text()
        sent = int(re.search(r"(\d+) packets transmitted", log)[1])
        answers = re.findall(r"^\[([\d.]+)\] .*icmp_seq=(\d+) ttl", log, re.MULTILINE)
        self.answered_at = [float(when) for when, _ in answers]
        answered = {int(number) for _, number in answers}
        last = max(answered, default=0)
        assert sent - last <= UNDER_WAY, f"nothing came back after packet {last} of {sent}"
        return sent, [number for number in range(1, last) if number not in answered]


class Stream:
    """A TCP connection that sends all the while, from one pod to another."""

    def __init__(self, source, target, address):
        self._receiver = self._run(target, "receive", address, PORT)
        assert self._receiver.stdout.readline() == "listening\n"
        self._sender = self._run(source, "send", address, PORT, SECONDS)

    @staticmethod
    def _run(sandbox, *arguments):
        command = sandbox.command([sys.executable, "-I", str(STREAMING), *map(str, arguments)])
        environment = sandbox.node.environment()
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    @property
    def running(self):
        """Whether it still sends."""
        return self._sender.poll() is None

    def finish(self):
        """Give how many bytes were sent and how many came."""
        counts = []
        for process in (self._sender, self._receiver):
            output, _ = process.communicate(timeout=SECONDS + 20)
            assert process.returncode == 0, "the connection broke"
            counts.append(int(output))
        return counts


@pytest.fixture(scope="module")
def pods(playground):
    playground.make_pool("default-ips", "10.244.10.0-10.244.10.9")
    for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
        playground.make_pod(name, node)
    return dict(zip("abc", playground.wait_running("a", "b", "c"), strict=True))


def kill(playground, node):
    """As a crash: init starts it again."""
    before = node.control.status()["agent"].pid
    node.control.kill("agent")
    playground.until(lambda: node.control.status()["agent"].pid not in (None, before), "another agent")


def restart(playground, node):
    """As an upgrade: ended in order, away for a moment, started."""
    node.control.stop("agent")
    playground.playground.start_agent(node)


@pytest.mark.parametrize("harm", [kill, restart])
def test_nothing_is_lost_or_broken_while_the_agents_of_both_nodes_end_and_start(
    playground, pods, tmp_path, harm
):
    inside = {name: playground.playground.sandbox("default", name) for name in pods}
    pings = [Pings(inside["a"], pods[name], tmp_path / name) for name in "bc"]
    streams = [Stream(inside["a"], inside[name], pods[name]) for name in "bc"]
    harmed = 0
    for node in itertools.cycle(playground.playground.nodes()):
        harm(playground, node)
        if not any(traffic.running for traffic in (*pings, *streams)):
            break
        harmed += 1
    assert harmed >= 2
    for ping in pings:
        sent, lost = ping.finish()
        assert sent > 100
        assert not lost
    for stream in streams:
        sent, received = stream.finish()
        assert received == sent > 1_000_000


def test_a_sticky_pod_that_moves_to_another_node_is_reached_there_as_soon_as_it_is_ready(
    playground, pods, tmp_path
):
    def on(node):
        return json.dumps({"spec": {"template": {"spec": {"nodeName": node}}}})

    check = playground.kubectl.check
    check("create", "-f", "-", stdin=STATEFUL_SET.encode())
    (address,) = playground.wait_running("web-0")
    pings = {
        name: Pings(playground.playground.sandbox("default", name), address, tmp_path / f"moving-{name}")
        for name in ("a", "c")
    }
    before = playground.get("pod", "web-0")["metadata"]["uid"]
    check("patch", "statefulset", "web", "-p", on("n2"))
    check("delete", "pod", "web-0", "--ignore-not-found", "--wait=false")

    def moved():
        found = [item for item in playground.items("pods") if item["metadata"]["name"] == "web-0"]
        return found and found[0]["metadata"]["uid"] != before

    playground.until(moved, "the pod to be created again")
    assert playground.wait_running("web-0") == [address]
    ready = time.time()
    assert playground.get("pod", "web-0")["spec"]["nodeName"] == "n2"
    assert all(ping.running for ping in pings.values()), "the move took longer than the pings"
    for name, ping in pings.items():
        sent, lost = ping.finish()
        gaps = [after - before for before, after in itertools.pairwise(ping.answered_at)]
        back = ping.answered_at[gaps.index(max(gaps)) + 1]
        print(
            f"from {name}: {len(lost)} of {sent} pings lost, away for {max(gaps) * 1e3:.0f} ms, "
            f"back {(back - ready) * 1e3:.0f} ms after the pod was seen to be ready"
        )
        assert lost, "it did not move"
        assert back < ready + 0.2
    check("delete", "statefulset", "web", "--wait", "--timeout=30s")


def test_from_an_ipsec_policy_on_pods_packets_pass_the_tunnel_device_at_once(playground, pods):
    node = playground.playground.node("n1")

    def skipped():
        tunnel = next(row for row in playground.ctl("n1", "local-dev", "list") if row["role"] == "tunnel")
        return tunnel["flags"] == ["MAY_BE_SKIPPED"]

    def xfrm(*arguments):
        command = node.command(["ip", "xfrm", "policy", *arguments])
        subprocess.run(command, check=True, env=node.environment())

    assert skipped()
    xfrm("add", "src", "10.1.0.0/16", "dst", "10.2.0.0/16", "dir", "out", "action", "allow")
    # Much sooner than the next verification, every 10 s, would be.
    playground.until(lambda: not skipped(), "the tunnel device not to be skipped", seconds=3)
    xfrm("flush")
    restart(playground, node)
    playground.until(skipped, "the tunnel device to be skipped again")
