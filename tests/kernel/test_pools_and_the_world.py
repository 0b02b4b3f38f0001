"""Pools laid over what a node needs: its LAN, its gateway, machines behind it. Nothing of it is cut off."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from fast.datapath.bpf.layout import ClusterPod, Kind
from kernel import traffic
from kernel.fastlab import POD_SUBNETS, attach_pods, cluster

BEHIND = ip_address("10.200.0.1")  # an API server's load balancer, reached by the default route


@pytest.fixture(scope="module")
def made():
    with cluster() as made:
        attach_pods(made, 1)
        made.outside.run(f"ip addr add {BEHIND}/32 dev lo")
        for node in made.nodes:
            node.run(f"ip route replace default via {made.outside_ip}")
        yield made


@pytest.fixture
def pools(made):
    """Sets the pods' networks on every node, beside those of the cluster's own pools."""

    def set_networks(*networks):
        for node in made.nodes:
            node.call(node.datapath.set_pod_subnets, [*POD_SUBNETS, *map(ip_network, networks)])

    yield set_networks
    set_networks()


def test_a_pool_that_is_the_nodes_lan_takes_neither_routes_nor_connections_between_nodes(made, pools):
    here, there = made.nodes
    pools("192.168.77.0/24")
    assert "192.168.77.0/24" not in here.run(
        "ip rule; ip route show dev fast_vxlan; nft list set inet fast pods4"
    )
    there.call(
        there.datapath.sync_cluster, {}
    )  # knows no other node: what comes by the tunnel is refused there
    with traffic.server(there, 9000):
        traffic.tcp(here, there.ip, 9000)
    traffic.ping(here, made.outside_ip)
    restore(made)


def restore(made):
    entries = {node.ip: ClusterPod(node.ip, Kind.NODE) for node in made.nodes}
    entries |= {
        address: ClusterPod(node.ip, Kind.POD)
        for node in made.nodes
        for pod in node.pods
        for address in pod.spec.addresses
    }
    for node in made.nodes:
        node.call(node.datapath.sync_cluster, entries)


def test_a_pool_around_the_lan_leaves_router_and_nodes_to_every_pod(made, pools):
    here, there = made.nodes
    pools("192.168.0.0/16")
    (pod,) = here.pods
    for place in (here, pod):
        traffic.ping(place, made.outside_ip)
        traffic.ping(place, there.ip)
        traffic.ping(place, there.pods[0].ip)
    assert "dev u0" in here.run(f"ip route get {made.outside_ip}")


def test_a_narrow_range_of_a_wide_subnet_leaves_what_is_behind_the_gateway(made, pools):
    here, _ = made.nodes
    pools("10.9.0.0/29")  # what a pool {subnet: 10.0.0.0/8, ips: [10.9.0.0-10.9.0.7]} owns
    for place in (here, here.pods[0]):
        traffic.ping(place, BEHIND)


def test_a_pod_with_an_address_of_the_lan_is_routed_to_alone(made, pools):
    here, there = made.nodes
    lan_pod = ip_address("192.168.77.50")
    here.call(here.datapath.upsert_cluster, [(lan_pod, ClusterPod(there.ip, Kind.POD))])
    try:
        pools("192.168.77.0/24")
        assert " dev fast_vxlan " in here.run(f"ip route get {lan_pod}")
        assert "dev u0" in here.run("ip route get 192.168.77.51")
        assert f"from {lan_pod} lookup" in here.run("ip rule")
    finally:
        here.call(here.datapath.remove_cluster, [lan_pod])


def test_another_bridges_network_inside_a_pool_stays_the_bridges(made, pools):
    here, _ = made.nodes
    here.run("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up")
    try:
        pools("172.16.0.0/12")
        assert "dev docker0" in here.run("ip route get 172.17.0.9")
        assert "172.17.0.0" not in here.run("nft list set inet fast pods4; ip rule")
        assert "dev fast_vxlan" in here.run("ip route get 172.20.0.9")
    finally:
        here.run("ip link del docker0")
