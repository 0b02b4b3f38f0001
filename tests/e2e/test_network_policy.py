"""NetworkPolicy on whole clusters: real pods, real agents, real packets. The recipes are those of the docs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from e2e.running import Running, running

POOL = "10.244.0.1/16=10.244.10.0-10.244.90.0"
#: Connects once: prints yes, or why not.
CONNECT = (
    "import socket,sys\ns=socket.socket(socket.AF_INET, socket.SOCK_{kind})\ns.settimeout(1.0)\n"
    "s.connect(('{address}',{port}))\n{talk}\nprint('yes')"
)
SERVER = """
import socket, threading
def tcp(port):
    s = socket.create_server(('', port))
    while True:
        c, _ = s.accept()
        threading.Thread(target=lambda c=c: [c.sendall(d) for d in iter(lambda: c.recv(64), b'')], daemon=True).start()
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('', port))
    while True:
        d, a = s.recvfrom(65535)
        s.sendto(d, a)
for port in (80, 81): threading.Thread(target=tcp, args=(port,)).start()
threading.Thread(target=udp, args=(53,)).start()
"""


def pod(name: str, node: str, labels: dict[str, str], command: list[str], namespace: str = "default"):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "python", "command": command}],
        },
    }


def policy(name: str, spec: dict, namespace: str = "default"):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


DENY_ALL = policy("deny-all", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
DENY_INGRESS = policy("deny-ingress", {"podSelector": {}, "policyTypes": ["Ingress"]})


class Policed:
    """A playground that enforces policies, with servers and clients on both nodes."""

    def __init__(self, cluster: Running) -> None:
        self.cluster = cluster
        self.addresses: dict[str, str] = {}

    def create(self, *objects) -> None:
        text = "\n---\n".join(json.dumps(item) for item in objects)
        self.cluster.kubectl.check("apply", "-f", "-", stdin=text.encode())

    def start(self) -> None:
        sleep = ["sleep", "infinity"]
        self.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other", "labels": {"team": "b"}}}
        )
        self.create(
            pod("server", "n1", {"app": "server"}, ["python3", "-c", SERVER]),
            pod("near", "n1", {"app": "client"}, sleep),
            pod("far", "n2", {"app": "client"}, sleep),
            pod("stranger", "n2", {"app": "stranger"}, sleep),
            pod("guest", "n2", {"app": "client"}, sleep, "other"),
        )
        names = ("server", "near", "far", "stranger")
        self.addresses = dict(zip(names, self.cluster.wait_running(*names), strict=True))
        self.cluster.kubectl.check(
            "wait", "-n", "other", "--for=condition=Ready", "--timeout=30s", "pod/guest"
        )
        self.cluster.until(lambda: self.reaches("near"), "the server to listen")

    def clear(self) -> None:
        self.cluster.kubectl.check("delete", "networkpolicies", "--all", "-n", "default")
        self.cluster.until(lambda: self.reaches("stranger"), "policies to go")

    def reaches(
        self, client: str, port: int = 80, kind: str = "STREAM", namespace: str = "default", to="server"
    ):
        talk = "s.send(b'x'); assert s.recv(9) == b'x'"
        code = CONNECT.format(kind=kind, address=self.addresses[to], port=port, talk=talk)
        done = self.cluster.kubectl("exec", "-n", namespace, client, "--", "python3", "-c", code)
        return done.returncode == 0 and b"yes" in _bytes(done.stdout)

    def settles(self, expected: dict[str, bool], **how) -> None:
        """Policies are in force some milliseconds after they are written; then it stays so."""
        self.cluster.until(
            lambda: {name: self.reaches(name, **how) for name in expected} == expected, f"{expected}", 20
        )
        assert {name: self.reaches(name, **how) for name in expected} == expected


def _bytes(text) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@pytest.fixture(scope="module")
def shared() -> Iterator[Policed]:
    with running(nodes=2, pool=POOL, agent_args=("--network-policy",)) as cluster:
        made = Policed(cluster)
        made.start()
        yield made


@pytest.fixture
def policed(shared) -> Iterator[Policed]:
    yield shared
    shared.clear()


def test_default_deny_lets_nothing_in_and_an_allowed_label_gets_through(policed):
    policed.create(DENY_ALL)
    policed.settles({"near": False, "far": False, "stranger": False})
    allow_in = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 80}]}],
    }
    allow_out = {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [{}]}
    policed.create(policy("allow-in", allow_in), policy("allow-out", allow_out))
    policed.settles({"near": True, "far": True, "stranger": False})
    policed.settles({"near": False, "far": False}, port=81)


def test_a_datagram_port_like_dns_can_be_allowed_alone(policed):
    spec = {
        "podSelector": {"matchLabels": {"app": "stranger"}},
        "policyTypes": ["Egress"],
        "egress": [{"ports": [{"protocol": "UDP", "port": 53}]}],
    }
    policed.create(policy("dns-only", spec))
    policed.settles({"stranger": False})
    policed.settles({"stranger": True}, port=53, kind="DGRAM")


def test_a_namespace_is_selected_by_its_labels(policed):
    spec = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}],
    }
    policed.create(policy("from-team-b", spec))
    policed.settles({"near": False, "far": False})
    policed.settles({"guest": True}, namespace="other")


def test_a_block_with_a_hole_matches_pods_by_their_addresses(policed):
    hole = f"{policed.addresses['far']}/32"
    spec = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": [hole]}}]}],
    }
    policed.create(policy("but-far", spec))
    policed.settles({"near": True, "stranger": True, "far": False})


def test_labels_that_change_count_at_once_on_both_nodes(policed):
    spec = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"trusted": "yes"}}}]}],
    }
    policed.create(policy("trusted", spec))
    policed.settles({"far": False, "near": False})
    policed.cluster.kubectl.check("label", "pod", "far", "near", "trusted=yes")
    policed.settles({"far": True, "near": True, "stranger": False})
    policed.cluster.kubectl.check("label", "pod", "far", "near", "trusted-")
    policed.settles({"far": False, "near": False})


def test_the_own_node_reaches_its_pods_whatever_policies_say(policed):
    policed.create(DENY_ALL)
    policed.settles({"near": False})
    code = CONNECT.format(kind="STREAM", address=policed.addresses["server"], port=80, talk="")
    for node, reached in (("n1", True), ("n2", False)):
        done = policed.cluster.playground.node(node).run("python3", "-c", code)
        assert ("yes" in done.stdout) is reached, (node, done.stderr)


def test_a_bad_policy_says_so_and_does_not_stop_the_others(policed):
    spec = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"ports": [{"port": "nobody-has-it"}]}],
    }
    policed.create(policy("odd", spec), DENY_INGRESS)
    policed.settles({"near": False, "far": False})
    policed.cluster.until(lambda: policed.cluster.events("NamedPortUnknown", "odd"), "an event on the policy")


def test_no_pod_runs_before_its_rules(policed):
    """Containers whose first instruction connects."""
    policed.create(DENY_ALL)
    policed.settles({"near": False})
    code = CONNECT.format(kind="STREAM", address=policed.addresses["server"], port=80, talk="")
    many = 20
    names = [f"eager{i}" for i in range(many)]
    eager = ["python3", "-c", code]
    policed.create(*(pod(name, f"n{i % 2 + 1}", {"app": "client"}, eager) for i, name in enumerate(names)))

    def ended():
        return [
            item
            for item in policed.cluster.items("pods")
            if item["metadata"]["name"] in names and item["status"].get("phase") in ("Succeeded", "Failed")
        ]

    policed.cluster.until(lambda: len(ended()) == many, "every container to end", 60)
    assert {item["status"]["phase"] for item in ended()} == {"Failed"}
    policed.cluster.kubectl.check("delete", "pods", "--wait", "--timeout=60s", *names)


def test_killed_agents_neither_open_nor_close_anything(policed):
    allow = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
    }
    policed.create(policy("allow", allow))
    policed.settles({"far": True, "stranger": False})
    for round_ in range(3):
        for node in ("n1", "n2"):
            policed.cluster.playground.node(node).control.kill("agent")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert not policed.reaches("stranger"), round_
            assert policed.reaches("far"), round_
    policed.create(DENY_INGRESS)
    policed.cluster.kubectl.check("delete", "networkpolicy", "allow")
    policed.settles({"far": False, "near": False, "stranger": False})
