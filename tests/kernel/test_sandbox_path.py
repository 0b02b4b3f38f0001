"""Paths of network namespaces as runtimes give them, and where they may lead."""

import os
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from fast.datapath.pod.identity import EndpointSpec
from fast.errors import NetnsGone, NetnsOfNode
from kernel.fastlab import cluster


@pytest.fixture
def node():
    with cluster(nodes=1) as made:
        (found,) = made.nodes
        yield found
        found.call(found.datapath.detach, "c1", "net9")


@pytest.fixture
def spec(node):
    return EndpointSpec("c1", "net9", node.machine.sandbox("p").path, (ip_address("10.244.1.1"),))


def routes(node):
    return sorted(node.run("ip route").splitlines())


@pytest.mark.parametrize("bound", [False, True], ids=["below /proc", "bound to a file"])
def test_a_path_to_the_nodes_own_namespace_is_refused_and_leaves_its_routes_alone(node, spec, bound):
    before, path = routes(node), "/proc/thread-self/ns/net"
    if bound:  # as `ip netns attach` does
        path = "/run/netns/itself"
        node.run(f"mkdir -p /run/netns; touch {path}; mount --bind /proc/self/ns/net {path}")
    try:
        with pytest.raises(NetnsOfNode, match="node's own network namespace"):
            node.call(node.datapath.attach, replace(spec, netns_path=path))
    finally:
        if bound:
            node.run(f"umount {path}; rm {path}")
    assert routes(node) == before
    assert "net9" not in node.run("ip -o link")


def test_a_namespace_is_wired_by_a_descriptor_of_it(node, spec):
    descriptor = node.call(os.open, spec.netns_path, os.O_RDONLY)
    try:
        endpoint = node.call(node.datapath.attach, replace(spec, netns_path=f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)
    assert node.call(node.datapath.check, spec) is None
    assert endpoint.addresses == spec.addresses


def test_what_blocks_when_it_is_opened_is_no_namespace_and_holds_nobody_up(node, spec, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("fifo", "socket", "nowhere", "."):
            with pytest.raises(NetnsGone):
                node.call(node.datapath.attach, replace(spec, netns_path=str(tmp_path / name)))
