"""The traffic matrix: every way a packet can go through a cluster; TCP, UDP and ICMP; small, bulk and in fragments."""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass

import pytest

from fast.datapath.bpf.reasons import PacketDirection, Reason
from kernel import traffic
from kernel.fastlab import Cluster, Node, Pod, attach_pods, cluster, counted, ip_of
from kernel.lab import eventually
from kernel.services import Service, install, vip
from kernel.traffic import every_way


@dataclass
class Scene:
    """Two nodes, two pods each, servers on every pod, node and outside."""

    made: Cluster
    here: Node
    there: Node
    a: Pod
    b: Pod  # beside a
    c: Pod  # on the other node


@pytest.fixture(scope="module", params=["vxlan", "native"])
def scene(request):
    with cluster(routing=request.param) as made, contextlib.ExitStack() as servers:
        a, b, c, _d = attach_pods(made, 2)
        for place in (*made.pods, *made.nodes, made.outside):
            servers.enter_context(traffic.server(place))
        yield Scene(made, made.nodes[0], made.nodes[1], a, b, c)


def outside_ip(made, version):
    return made.outside_ip if version == 4 else made.nodes[0].ip6 + 99


both = pytest.mark.parametrize("version", [4, 6])


@both
def test_a_pod_reaches_another_one_on_its_node(scene, version):
    every_way(scene.a, ip_of(scene.b, version), ip_of(scene.a, version))


@both
def test_a_pod_reaches_a_pod_on_another_node(scene, version):
    every_way(scene.a, ip_of(scene.c, version), ip_of(scene.a, version))


@both
def test_a_pod_reaches_itself(scene, version):
    every_way(scene.a, ip_of(scene.a, version), ip_of(scene.a, version))


@both
def test_a_pod_reaches_its_own_node_and_is_seen_as_itself(scene, version):
    every_way(scene.a, ip_of(scene.here, version), ip_of(scene.a, version))


@both
def test_a_pod_reaches_another_node_and_is_seen_as_itself(scene, version):
    every_way(scene.a, ip_of(scene.there, version), ip_of(scene.a, version))


@both
def test_a_node_reaches_its_own_pods(scene, version):
    every_way(scene.here, ip_of(scene.a, version), ip_of(scene.here, version))


@both
def test_a_node_reaches_pods_of_another_node(scene, version):
    every_way(scene.here, ip_of(scene.c, version), ip_of(scene.here, version))


@both
def test_a_pod_reaches_outside_with_its_nodes_address(scene, version):
    every_way(scene.a, outside_ip(scene.made, version), ip_of(scene.here, version))


@pytest.mark.parametrize("client", ["a", "here"])
def test_a_packet_in_the_tunnel_carries_the_nodes_addresses_its_port_and_the_networks_identifier(
    scene, client
):
    """Written by a program for a pod's, and by the device for the node's own, from the key that a program gave it."""
    here, there = scene.here, scene.there
    with there.call(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as wire:
        wire.settimeout(5)
        wire.bind(("u0", 0x0800))
        traffic.ping(getattr(scene, client), scene.c.ip6, count=1)
        inner = ip_of(getattr(scene, client), 6).packed + scene.c.ip6.packed
        while inner not in (packet := wire.recv(1 << 12)):
            continue
    source, target, _, port, _, _, flags, vni = struct.unpack_from("!12x4s4sHHHHII", packet)
    assert (source, target) == (here.ip.packed, there.ip.packed)
    assert (port, flags, vni) == (here.config.tunnel_port, 1 << 27, here.config.vni << 8)


@both
@pytest.mark.parametrize("client", ["b", "c", "here", "there"])
def test_a_pod_whose_neighbour_entry_its_node_lost_is_asked_and_answers(scene, version, client):
    a, source = scene.a, getattr(scene, client)
    address, device = ip_of(a, version), a.endpoint.host_device
    traffic.learn_path_mtu(source, address)
    scene.here.run(f"ip neigh del {address} dev {device}")
    try:
        traffic.ping(source, address, count=1)
        # Over the stack, which has to ask.
        traffic.ping(source, address, traffic.FRAGMENTED_BYTES, count=1)
        shown = scene.here.run(f"ip neigh show {address} dev {device}")
        assert str(a.endpoint.pod_mac) in shown
        assert "PERMANENT" not in shown
    finally:
        scene.here.run(f"ip neigh replace {address} lladdr {a.endpoint.pod_mac} dev {device}")


@both
@pytest.mark.parametrize(
    "probe", [traffic.tcp, traffic.udp, traffic.udp_segments], ids=lambda probe: probe.__name__
)
def test_between_pods_every_packet_takes_the_short_cut_and_none_the_stack(scene, version, probe):
    a, b, c = scene.a, scene.b, scene.c
    traffic.learn_path_mtu(a, ip_of(c, version))
    natively = scene.here.config.routing == "native" and version == 4
    out = (Reason.FORWARD_NATIVE if natively else Reason.FORWARD_TUNNEL), PacketDirection.FROM_POD
    came = PacketDirection.FROM_UNDERLAY if natively else PacketDirection.FROM_OVERLAY
    size = {"size": traffic.LARGE_BYTES} if probe is traffic.tcp else {}

    (here,) = counted([scene.here], probe, a, ip_of(b, version), **size)
    assert here.keys() == {(Reason.FORWARD_LOCAL_POD, PacketDirection.FROM_POD)}
    here, there = counted(scene.made.nodes, probe, a, ip_of(c, version), **size)
    arrived = (Reason.FORWARD_LOCAL_POD, came)
    assert here.keys() == there.keys() == {out, arrived}
    assert (here[out], there[out]) == (there[arrived], here[arrived])


def test_natively_routed_the_first_packet_of_a_node_to_a_pod_elsewhere_is_not_lost_to_an_unknown_mac():
    with cluster(routing="native") as made:
        _, c = attach_pods(made, 1)
        here, there = made.nodes
        eventually(lambda: "lladdr" in here.run(f"ip neigh show {there.ip} dev u0"))
        traffic.ping(here, c.ip, count=1)


@pytest.fixture(scope="module", params=["nft", "iptables"])
def services(request, scene):
    listed = []
    for version in (4, 6):
        a, b, c, d = (ip_of(pod, version) for pod in scene.made.pods)
        listed += [
            Service(vip(1, version), a, 30001),
            Service(vip(2, version), b, 30002, keeps_source=True),
            Service(vip(3, version), c, 30003),
            Service(vip(4, version), b, backend_port=9),
            Service(vip(5, version), c, backend_port=9),
            Service(vip(6, version), c, 30006, keeps_source=True),
            Service(vip(7, version), d, 30007, keeps_source=True),
        ]
    for node in scene.made.nodes:
        install(node, listed, request.param)
    yield scene
    for node in scene.made.nodes:
        install(node, [], request.param)


@both
def test_a_service_with_its_backend_on_the_clients_node(services, version):
    every_way(services.a, vip(2, version), ip_of(services.a, version), 80, icmp=False)


@both
def test_a_service_with_its_backend_on_another_node(services, version):
    every_way(services.a, vip(3, version), ip_of(services.a, version), 80, icmp=False)


@both
def test_a_service_whose_backend_is_the_client_itself(services, version):
    every_way(services.a, vip(1, version), ip_of(services.here, version), 80, icmp=False)


@both
def test_a_node_reaches_a_service_with_its_backend_here(services, version):
    every_way(services.here, vip(1, version), ip_of(services.here, version), 80, icmp=False)


@both
def test_a_node_reaches_a_service_with_its_backend_elsewhere(services, version):
    every_way(services.here, vip(3, version), ip_of(services.here, version), 80, icmp=False)


@both
def test_a_node_port_from_outside_with_its_backend_there(services, version):
    every_way(
        services.made.outside, ip_of(services.here, version), ip_of(services.here, version), 30001, icmp=False
    )


@both
def test_a_node_port_from_outside_that_keeps_the_clients_address(services, version):
    client = outside_ip(services.made, version)
    every_way(services.made.outside, ip_of(services.here, version), client, 30002, icmp=False)


@both
def test_a_node_port_from_outside_with_its_backend_on_another_node(services, version):
    every_way(
        services.made.outside, ip_of(services.here, version), ip_of(services.here, version), 30003, icmp=False
    )


@both
def test_a_node_port_that_keeps_the_clients_address_shows_the_nodes_where_the_backend_is_on_another_one(
    services, version
):
    """A packet from outside may not come out of the tunnel; kube-proxy itself never sends it that way."""
    node = ip_of(services.here, version)
    every_way(services.made.outside, node, node, 30006, icmp=False)


@both
def test_a_node_port_of_the_clients_own_node_with_its_backend_here_there_and_in_the_client(services, version):
    node = ip_of(services.here, version)
    every_way(services.b, node, node, 30001, icmp=False)
    every_way(services.a, node, node, 30001, icmp=False)
    every_way(services.a, node, node, 30003, icmp=False)


@both
def test_a_node_port_of_another_node_from_a_node_itself(services, version):
    here, there = (ip_of(node, version) for node in services.made.nodes)
    every_way(services.there, here, there, 30002, icmp=False)
    every_way(services.there, here, here, 30001, icmp=False)
    every_way(services.there, here, here, 30003, icmp=False)


@both
def test_a_pods_packet_that_another_node_would_send_on_to_a_third_is_refused_and_counted(services, version):
    here = services.here
    natively = here.config.routing == "native" and version == 4
    reason = Reason.DROP_SOURCE_ELSEWHERE if natively else Reason.DROP_TUNNEL_TO_TUNNEL
    before = here.count(reason)
    with pytest.raises(TimeoutError):
        traffic.udp(services.c, ip_of(here, version), 30007, attempts=1, seconds=0.3)
    assert here.count(reason) == before + 1


@both
def test_a_node_port_from_a_pod_through_another_node_and_back_to_its_own(services, version):
    every_way(services.a, ip_of(services.there, version), ip_of(services.there, version), 30001, icmp=False)


@both
def test_a_direct_connection_beside_a_service_connection_to_the_same_backend(services, version):
    address = ip_of(services.c, version)
    assert traffic.tcp(services.a, vip(3, version), 80) == str(ip_of(services.a, version))
    assert traffic.tcp(services.a, address) == str(ip_of(services.a, version))


@both
@pytest.mark.parametrize("number", [4, 5])
def test_a_udp_service_whose_backend_refuses_tells_the_client_so(services, version, number):
    with pytest.raises(ConnectionRefusedError):
        traffic.udp(services.a, vip(number, version), 80, attempts=1)
