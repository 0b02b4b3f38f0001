"""An API server that throttles, refuses the token and comes and goes: pods that run never notice, the others wait.

The agent of n1 reads its token from a file and reaches the server through a proxy; the one of n2 reaches it directly.
What makes informers back off longest comes last, so that no test waits for what the one before it did.
"""

import json
import signal
import time
from contextlib import contextmanager

import pytest
import yaml

from e2e.agreement import disagreements, twice_given
from e2e.pinging import unbroken_ping
from e2e.running import running
from e2e.throttling_proxy import throttling_proxy
from fast_playground.cluster import node_programs
from fast_playground.cluster.node_programs import AGENT, AGENT_KUBECONFIG, API_SERVER
from fast_playground.cluster.underlay import OUTSIDE, listen

PROXY_PORT = 7443
TOKEN = "/etc/fast/agent.token"
CONFIG = "/etc/fast/agent.yaml"
CLAIMS = "^POST .*/ipendpoints"


@pytest.fixture(scope="module")
def trouble():
    """A cluster with a pod on each node, and the proxy in front of n1's agent."""
    with running(nodes=2, agent_args=("--gc-interval-seconds", "5")) as cluster:
        cluster.make_pool("default-ips", "10.244.50.0-10.244.50.99")
        node, underlay = cluster.playground.node("n1"), cluster.playground.underlay.namespace
        with (
            listen(underlay, PROXY_PORT) as listener,
            throttling_proxy(listener, cluster.playground.directory.kubeconfig) as proxy,
        ):
            go_through_the_proxy(node)
            node.control.stop(AGENT)
            node.path(CONFIG).write_text("log-level: info\n")
            start_with_file(cluster.playground, node)
            cluster.make_pod("a", node="n1")
            cluster.make_pod("b", node="n2")
            cluster.wait_running("a", "b")
            yield cluster, proxy


def start_with_file(playground, node):
    """Start a node's agent with a configuration file."""
    command = node_programs.agent_command(playground.directory_settings)
    environment = node_programs.agent_environment(node) | {"FAST_AGENT_CONFIG": CONFIG}
    node.control.start(AGENT, command, log=playground.directory.log("n1-agent"), environment=environment)


def go_through_the_proxy(node):
    """Rewrite the kubeconfig of a node's agent."""
    config = yaml.safe_load(node.path(AGENT_KUBECONFIG).read_text())
    node.path(TOKEN).write_text(config["users"][0]["user"]["token"])
    config["users"][0]["user"] = {"tokenFile": TOKEN}
    config["clusters"][0]["cluster"] = {"server": f"http://{OUTSIDE}:{PROXY_PORT}"}
    node.path(AGENT_KUBECONFIG).write_text(yaml.safe_dump(config))


@contextmanager
def pods_keep_running(cluster):
    """Ping from pod a to pod b, unbroken; at the end every pod runs, and all agree on who has which address."""
    pod = cluster.playground.sandbox("default", "a").sandbox
    other = cluster.get("pod", "b")["status"]["podIP"]
    ping = ["ping", "-q", "-i", "0.05", "-W", "2", other]
    with unbroken_ping(cluster, "ping-in-trouble", "nsenter", f"--net={pod.netns}", *ping):
        yield
        agree(cluster)
    assert not twice_given(cluster)
    for node in cluster.playground.nodes():
        audit = node.run("fast-ctl", "ipam", "audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr


def agree(cluster):
    """Wait until all agree; a claim whose answer was lost is freed by two sights of the agent's GC, 30 s apart."""
    deadline = time.monotonic() + 50
    while said := disagreements(cluster):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def refusal(cluster, pod, *words):
    """Wait until the kubelet tells that the pod's ADD was refused with these words."""

    def told():
        return [
            text for text in cluster.events("FailedCreatePodSandBox", pod) if all(w in text for w in words)
        ]

    return cluster.until(told, f"an event of {pod} with {words}")


def test_sighup_applies_what_can_be_applied_and_the_log_names_what_needs_a_restart(trouble):
    cluster, _ = trouble
    node = cluster.playground.node("n1")
    log = cluster.playground.directory.log("n1-agent")
    before = node.control.status()[AGENT]
    node.path(CONFIG).write_text("log-level: warning\ntunnel-port: 9999\n")
    node.control.kill(AGENT, signal.SIGHUP)
    cluster.until(
        lambda: '"settings":["tunnel-port"],"event":"changed settings that need a restart' in log.read_text(),
        "the agent to name tunnel-port",
        seconds=30,
    )
    node.path(CONFIG).write_text("log-level: info\n")  # found without a signal
    cluster.until(
        lambda: '"applied":["log-level"],"event":"configuration read again"' in log.read_text(),
        "the agent to find the changed file",
        seconds=30,
    )
    assert node.control.status()[AGENT] == before


def test_a_crash_of_the_api_server_under_claims_loses_and_doubles_nothing(trouble):
    cluster, _ = trouble
    names = [f"crash-{node}-{number}" for node in ("n1", "n2") for number in range(2)]
    with pods_keep_running(cluster):
        for name in names:
            cluster.make_pod(name, node=name.split("-")[1])
        cluster.playground.root.kill(API_SERVER)
        cluster.until(lambda: cluster.kubectl("get", "nodes").returncode == 0, "the API server")
        cluster.wait_running(*names)


def test_a_token_that_expired_is_read_again_from_its_file(trouble):
    cluster, proxy = trouble
    node = cluster.playground.node("n1")
    old = node.path(TOKEN).read_text()
    with pods_keep_running(cluster):
        replace_token(cluster, old, "the-next-token")
        proxy.cut()
        cluster.make_pod("locked-out", node="n1")
        refusal(cluster, "locked-out")
        fresh = node.path(f"{TOKEN}.new")
        fresh.write_text("the-next-token")
        fresh.rename(node.path(TOKEN))
        cluster.wait_running("locked-out")


def replace_token(cluster, old, new):
    """Let the API server know another token in place of one."""
    path = cluster.playground.directory.api_data / "tokens.json"
    identities = json.loads(path.read_text())
    assert [item for item in identities if item["token"] == old]
    for item in identities:
        item["token"] = new if item["token"] == old else item["token"]
    path.with_suffix(".test").write_text(json.dumps(identities))
    path.with_suffix(".test").rename(path)


def test_an_add_that_would_have_to_wait_too_long_is_refused_and_works_once_the_server_takes_claims(trouble):
    cluster, proxy = trouble
    with pods_keep_running(cluster):
        with proxy.throttling(retry_after_seconds=120, only=CLAIMS):
            cluster.make_pod("refused", node="n1")
            refusal(cluster, "refused", "too many requests")
            assert not [
                item for item in cluster.items("ipendpoints") if item["spec"]["pod"]["name"] == "refused"
            ]
        cluster.wait_running("refused")


def test_a_429_of_seconds_is_waited_out_and_the_server_is_not_pressed(trouble):
    cluster, proxy = trouble
    proxy.refused.clear()
    with pods_keep_running(cluster):
        began = time.monotonic()
        with proxy.throttling(retry_after_seconds=1):
            cluster.make_pod("patient", node="n1")
            cluster.until(lambda: len(proxy.refused) >= 6, "requests to be refused")
        seconds = time.monotonic() - began
        cluster.wait_running("patient")
    most = max(proxy.refused.count(what) for what in proxy.refused)
    assert most <= 3 + seconds, proxy.refused
