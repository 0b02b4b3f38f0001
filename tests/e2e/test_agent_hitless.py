"""Running pods do not notice what happens to their nodes' agents: pings every 2 ms, none lost; TCP streams unbroken."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 8
PORT = 9001
STREAMING = Path(__file__).with_name("streaming.py")
#: Sent when ping ended, and not answered yet.
UNDER_WAY = 10


class Pings:
    """A ping every 2 ms from a pod, for some seconds."""

    def __init__(self, sandbox, address, log):
        command = sandbox.command(["ping", "-n", "-i", "0.002", "-w", str(SECONDS), address])
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
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", log)}
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
