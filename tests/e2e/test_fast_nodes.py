"""FastNodes on whole clusters: what a node says of itself, and that other nodes follow it, and nothing else."""

import json

import pytest

from e2e.running import running
from fast_playground.cluster import node_programs
from fast_playground.cluster.node_programs import AGENT, KUBELET

MOVED = "192.168.77.22"
RECORD = """
apiVersion: sample.fast.io/v1alpha1
kind: IpEndpoint
metadata: {{name: "{address}"}}
spec: {{pool: default-ips, node: n2, containerID: evil, interface: eth0, bootID: x}}
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
status: {{addresses: [{{type: InternalIP, address: {address}}}]}}
"""


@pytest.fixture(scope="module")
def cluster():
    with running(nodes=2) as found:
        found.make_pool("default-ips", "10.244.40.0-10.244.40.99")
        for name, node in (("a", "n1"), ("b", "n2")):
            found.make_pod(name, node=node)
        found.wait_running("a", "b")
        yield found


def known(cluster, node="n1"):
    """The node's map of the cluster: the node's address by address."""
    return {row["ip"]: row["nodeIP"] for row in cluster.ctl(node, "cluster-ips", "list")}


def reaches(cluster, pod, address):
    command = ["ping", "-q", "-c", "2", "-i", "0.2", "-W", "1", address]
    sandbox = cluster.playground.sandbox("default", pod).sandbox
    node = cluster.get("pod", pod)["spec"]["nodeName"]
    return (
        not cluster.playground.node(node)
        .run("nsenter", f"--net={sandbox.netns}", *command, check=False)
        .returncode
    )


def test_kubectl_shows_every_node_with_its_address_pods_and_readiness(cluster):
    def rows():
        lines = cluster.kubectl.check("get", "fn").splitlines()
        assert lines[0].split() == ["NAME", "READY", "ADDRESS", "PODS", "VERSION", "PROBLEMS", "AGE"]
        return [line.split()[:4] for line in lines[1:]]

    cluster.until(
        lambda: rows() == [["n1", "True", "192.168.77.1", "1"], ["n2", "True", "192.168.77.2", "1"]],
        "kubectl get fn",
        seconds=90,
    )


def test_each_node_renews_a_lease_of_its_own(cluster):
    leases = {item["metadata"]["name"]: item["spec"] for item in cluster.items("leases", "-n", "fast-system")}
    for node in ("n1", "n2"):
        assert leases[f"fast-node-{node}"]["holderIdentity"].startswith(f"{node}/")
        assert leases[f"fast-node-{node}"]["leaseDurationSeconds"] == 60


@pytest.mark.parametrize("address", ["10.96.0.1", "8.8.8.8", "169.254.169.254"])
def test_a_record_outside_its_pool_is_in_no_map_and_is_named(cluster, address):
    cluster.kubectl.check("create", "-f", "-", stdin=RECORD.format(address=address).encode())
    try:
        cluster.until(lambda: address in refused(cluster), "the refusal in the metrics")
        assert address not in known(cluster)
        assert all(item["status"]["conditions"][0]["status"] == "True" for item in cluster.items("fn"))
    finally:
        cluster.kubectl.check("delete", "ipe", address, "--ignore-not-found", "--wait=false")


def refused(cluster):
    log = cluster.playground.directory.log("n1-agent").read_text()
    lines = [json.loads(line) for line in log.splitlines() if "addresses do not count" in line]
    return {address for line in lines for address in line.get("examples", ())}


def test_a_node_without_an_agent_is_no_tunnel_endpoint(cluster):
    cluster.kubectl.check(
        "create", "-f", "-", stdin=NODE.format(name="cp", address="192.168.77.254").encode()
    )
    cluster.kubectl.check(
        "patch", "node", "cp", "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.254"}]}}),
    )  # fmt: skip
    try:
        assert reaches(cluster, "a", "192.168.77.254")
        assert "192.168.77.254" not in known(cluster)
    finally:
        cluster.kubectl.check("delete", "node", "cp")


def test_a_nodes_changed_address_keeps_its_pods_connected_and_leaves_no_trace(cluster):
    a, b = (cluster.get("pod", name)["status"]["podIP"] for name in ("a", "b"))
    assert reaches(cluster, "a", b)
    node = cluster.playground.node("n2")
    node.control.stop(AGENT)
    node.run("sh", "-c", f"ip addr del 192.168.77.2/24 dev eth0; ip addr add {MOVED}/24 dev eth0")
    environment = node_programs.agent_environment(node) | {"FAST_NODE_IP": MOVED}
    settings = cluster.playground.directory_settings
    log = cluster.playground.directory.log("n2-agent")
    node.control.start(AGENT, node_programs.agent_command(settings), log=log, environment=environment)
    cluster.until(
        lambda: cluster.get("fn", "n2")["spec"]["addresses"][0] == MOVED, "n2 to say its new address"
    )
    cluster.until(lambda: known(cluster).get(b) == MOVED, "n1 to follow", seconds=1)
    assert "192.168.77.2" not in known(cluster)
    assert reaches(cluster, "a", b)
    assert reaches(cluster, "b", a)
    assert "192.168.77.2/" not in node.run("ip", "-4", "addr").stdout


def test_a_running_agent_follows_its_nodes_address(cluster):
    a, b = (cluster.get("pod", name)["status"]["podIP"] for name in ("a", "b"))
    node, moved = cluster.playground.node("n1"), "192.168.77.21"
    node.control.stop(KUBELET)  # the real one takes the new address by itself
    node.run("sh", "-c", f"ip addr del 192.168.77.1/24 dev eth0; ip addr add {moved}/24 dev eth0")
    addresses = {"status": {"addresses": [{"type": "InternalIP", "address": moved}]}}
    cluster.kubectl.check(
        "patch", "node", "n1", "--subresource=status", "--type=merge", "-p", json.dumps(addresses)
    )
    cluster.until(
        lambda: cluster.get("fn", "n1")["spec"]["addresses"][0] == moved, "n1 to say its new address"
    )
    cluster.until(lambda: known(cluster, "n2").get(a) == moved, "n2 to follow", seconds=1)
    assert reaches(cluster, "a", b)
    assert reaches(cluster, "b", a)
