"""An agent that starts while the API server is away: what runs goes on, and the runtime is told."""

import json
import signal
from contextlib import contextmanager

import pytest

from e2e.pinging import unbroken_ping
from e2e.running import running
from fast_playground.cluster.node_programs import AGENT, API_SERVER

STATUS = (
    'echo \'{"cniVersion":"1.1.0","name":"fast","type":"fast-cni"}\' | '
    "CNI_COMMAND=STATUS CNI_PATH=/opt/cni/bin /opt/cni/bin/fast-cni || true"
)


@pytest.fixture(scope="module")
def cluster():
    with running(nodes=2) as found:
        found.make_pool("default-ips", "10.244.40.0-10.244.40.99")
        found.make_pod("a", node="n1")
        found.make_pod("b", node="n2")
        found.wait_running("a", "b")
        yield found


@contextmanager
def frozen_api_server(cluster):
    """The API server takes connections and never answers; what is worse than one that refuses them."""
    cluster.playground.root.kill(API_SERVER, signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.playground.root.kill(API_SERVER, signal.SIGCONT)


def ask(node):
    """CNI STATUS as a runtime asks; gives the code, 0 where the plugin says that all is well."""
    output = node.run("sh", "-c", STATUS).stdout
    return json.loads(output)["code"] if output.strip() else 0


def network(node):
    return node.run("sh", "-c", "ip route; ip rule; nft -s list ruleset").stdout


def test_an_agent_that_starts_without_the_api_server_disturbs_nobody_and_says_50(cluster):
    playground = cluster.playground
    node = playground.node("n1")
    ping = ["ping", "-q", "-i", "0.02", "-W", "2", cluster.get("pod", "b")["status"]["podIP"]]
    before = network(node)
    assert "dev fast_vxlan proto 117" in before
    pod = playground.sandbox("default", "a").sandbox
    from_pod = unbroken_ping(
        cluster, "ping-from-pod", "nsenter", f"--net={pod.netns}", *ping
    )  # by eBPF alone
    from_node = unbroken_ping(cluster, "ping-from-node", *ping)  # over the node's routes
    with from_pod, from_node:
        with frozen_api_server(cluster):
            node.control.stop(AGENT)
            playground.start_agent(node)
            cluster.until(lambda: "datapath is up" in _log(cluster), "the datapath to be adopted")
            assert ask(node) == 50
            assert network(node) == before  # although it cannot know the pools yet
        cluster.until(lambda: ask(node) == 0, "the agent to be ready once the API server answers", seconds=60)
    assert network(node) == before


def _log(cluster):
    """What the agent of n1 has logged since its last start."""
    text = cluster.playground.directory.log("n1-agent").read_text()
    return text[text.rindex("fast-agent starts") :]
