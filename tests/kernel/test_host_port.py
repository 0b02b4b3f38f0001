"""Host ports through the ``portmap`` plugin behind Fast in a chain, as the runtime calls it, with real traffic."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel import traffic
from kernel.fastlab import Cluster, Node, Pod, attach_pods, cluster, counted, ip_of
from kernel.lab import Machine
from kernel.traffic import every_way

PORTMAP = Path("/usr/lib/cni/portmap")
HOST_PORT = 30080
POD_PORT = 8080


@dataclass
class Scene:
    """Two nodes, two pods each; the first pod has a port of its node."""

    made: Cluster
    here: Node
    a: Pod
    b: Pod
    c: Pod


def portmap(command: str, pod: Pod) -> None:
    """Call the plugin on the pod's node with the result that Fast gave before."""
    endpoint, addresses = pod.endpoint, pod.spec.addresses
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": endpoint.host_device, "mac": str(endpoint.host_mac)},
            {"name": pod.spec.ifname, "mac": str(endpoint.pod_mac), "sandbox": pod.sandbox.path},
        ],
        "ips": [{"address": f"{a}/{a.max_prefixlen}", "interface": 1} for a in addresses],
    }
    mapped = {"hostPort": HOST_PORT, "containerPort": POD_PORT}
    call = {
        "cniVersion": "1.0.0",
        "name": "fast",
        "type": "portmap",
        "capabilities": {"portMappings": True},
        "runtimeConfig": {"portMappings": [mapped | {"protocol": protocol} for protocol in ("tcp", "udp")]},
        "prevResult": previous,
    }
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.spec.container_id,
        "CNI_NETNS": pod.sandbox.path,
        "CNI_IFNAME": pod.spec.ifname,
        "CNI_PATH": str(PORTMAP.parent),
    }
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    pod.node.run(f"{words} {PORTMAP}", stdin=json.dumps(call))


def filter_strictly(machine: Machine) -> None:
    """Filter by reverse path as some distributions do; what a device is set to only counts where it is more."""
    machine.run("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1")


@pytest.fixture(scope="module", params=["vxlan", "native"])
def scene(request):
    with cluster(routing=request.param, prepare=filter_strictly) as made, contextlib.ExitStack() as servers:
        a, b, c, _ = attach_pods(made, 2)
        portmap("ADD", a)
        servers.enter_context(traffic.server(a, POD_PORT))
        yield Scene(made, made.nodes[0], a, b, c)


both = pytest.mark.parametrize("version", [4, 6])


def reach(scene, source, seen, version):
    """Every kind of traffic to the host port, which shows the pod the given address."""
    every_way(source, ip_of(scene.here, version), seen, HOST_PORT, icmp=False)


@both
def test_somebody_outside_reaches_the_pod_and_is_seen_as_himself(scene, version):
    client = scene.made.outside_ip if version == 4 else scene.here.ip6 + 99
    reach(scene, scene.made.outside, client, version)


@both
def test_a_pod_of_the_same_node_reaches_it(scene, version):
    reach(scene, scene.b, ip_of(scene.b, version), version)


@both
def test_a_pod_of_another_node_reaches_it(scene, version):
    reach(scene, scene.c, ip_of(scene.c, version), version)


@both
def test_the_pod_reaches_itself_by_its_nodes_port(scene, version):
    reach(scene, scene.a, ip_of(scene.here, version), version)


@both
def test_the_node_itself_and_another_one_reach_it(scene, version):
    for node in scene.made.nodes:
        reach(scene, node, ip_of(node, version), version)


@both
def test_a_direct_connection_to_the_pod_still_takes_the_short_cut(scene, version):
    target = ip_of(scene.a, version)
    for client in (scene.b, scene.c):
        every_way(client, target, ip_of(client, version), POD_PORT)
        for probe in (traffic.tcp, traffic.udp):
            found = [
                reason
                for grown in counted(scene.made.nodes, probe, client, target, POD_PORT)
                for reason, _ in grown
            ]
            assert found
            assert all(reason.name.startswith("FORWARD_") for reason in found), found


def test_after_the_plugins_del_the_port_is_closed_and_the_pod_still_reached():
    with cluster() as made:
        (a, c) = attach_pods(made, 1)
        portmap("ADD", a)
        with traffic.server(a, POD_PORT):
            assert traffic.tcp(c, a.node.ip, HOST_PORT) == str(c.ip)
            portmap("DEL", a)
            with pytest.raises(ConnectionRefusedError):
                traffic.tcp(c, a.node.ip, HOST_PORT)
            assert traffic.tcp(c, a.ip, POD_PORT) == str(c.ip)
