"""Packets larger than their path: refused with the right size, learnt by the sender, transferred; and hop limits."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from fast.datapath.bpf.reasons import PacketDirection, Reason
from kernel import traffic
from kernel.fastlab import Cluster, Pod, cluster, counted, ip_of
from kernel.lab import Sandbox, eventually
from kernel.services import Service, install, vip

POD_MTU = 9000
UNDERLAY_MTU = 1500
TUNNEL_MTU = 1450
BEYOND_MTU = 1300
LARGE_BYTES = traffic.LARGE_BYTES


@dataclass
class Scene:
    """Pods whose interfaces take more than the underlay carries, and somebody behind a narrow link outside."""

    made: Cluster
    a: Pod
    b: Pod  # beside a
    c: Pod  # on the other node
    beyond: Sandbox

    def path_mtu(self, version: int) -> int:
        """Give what fits between pods of two nodes: IPv6 takes the tunnel whatever the routing."""
        natively = version == 4 and self.made.nodes[0].config.routing == "native"
        return UNDERLAY_MTU if natively else TUNNEL_MTU


def attach_wide(made: Cluster) -> list[Pod]:
    here, there = made.nodes
    places = [(here, 1, 10), (here, 1, 11), (there, 2, 10)]
    pods = [
        node.attach(f"w{n}-{m}", f"10.244.{n}.{m}", f"fd00:244::{n}:{m}", mtu=POD_MTU)
        for node, n, m in places
    ]
    made.sync()
    return pods


def attach_beyond(made: Cluster) -> Sandbox:
    """Put a host behind the outside machine, on a link narrower than everything before it."""
    beyond = made.outside.sandbox("beyond")
    made.outside.run(
        f"ip link add far type veth peer name eth0 netns {beyond.path}\n"
        "ip addr add 192.168.78.1/32 dev far; ip addr add fd78::1/128 dev far nodad; ip link set far up\n"
        # The hosts' own interfaces are as wide as ever, so that they do not agree on small segments by themselves.
        f"ip route add 192.168.78.0/24 dev far mtu lock {BEYOND_MTU}\n"
        f"ip route add fd78::/64 dev far mtu lock {BEYOND_MTU}\n"
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
    )
    beyond.run(
        "ip addr add 192.168.78.2/24 dev eth0; ip addr add fd78::2/64 dev eth0 nodad; ip link set eth0 up\n"
        "ip route add default via 192.168.78.1; ip -6 route add default via fd78::1"
    )
    return beyond


@pytest.fixture(scope="module", params=["vxlan", "native"])
def scene(request):
    with cluster(routing=request.param, mtu=UNDERLAY_MTU) as made, contextlib.ExitStack() as servers:
        a, b, c = attach_wide(made)
        beyond = attach_beyond(made)
        for place in (a, b, c, beyond):
            servers.enter_context(traffic.server(place))
        services = [
            Service(vip(n, v), ip_of(pod, v), 30000 + n) for v in (4, 6) for n, pod in ((2, b), (3, c))
        ]
        for node in made.nodes:
            install(node, services, "nft")
        yield Scene(made, a, b, c, beyond)


@pytest.fixture(autouse=True)
def forgotten(scene):
    """No path's MTU is known yet."""
    for place in (*scene.made.pods, *scene.made.nodes, scene.made.outside, scene.beyond):
        place.run("ip route flush cache; ip -6 route flush cache")


def learnt_mtu(place, address):
    """Give the path's MTU that the place has been told, None where it was told nothing."""
    found = re.search(r" mtu (\d+)", place.run(f"ip route get {address}"))
    return int(found[1]) if found else None


def ping_whole(place, address, mtu, count=1):
    """Ping with packets of exactly that size which may not be fragmented."""
    headers = 28 if address.version == 4 else 48
    return place.run(f"ping -n -c {count} -i 0.05 -W 3 -M do -s {mtu - headers} {address}", check=False)


both = pytest.mark.parametrize("version", [4, 6])


@both
def test_a_packet_too_large_for_the_path_to_another_node_is_answered_with_what_fits(scene, version):
    here, mtu, target = scene.made.nodes[0], scene.path_mtu(version), ip_of(scene.c, version)
    before = here.count(Reason.STACK_TOO_BIG, PacketDirection.FROM_POD)
    assert re.search(rf"mtu ?= ?{mtu}\b", ping_whole(scene.a, target, mtu + 1))
    assert here.count(Reason.STACK_TOO_BIG, PacketDirection.FROM_POD) > before
    assert learnt_mtu(scene.a, target) == mtu
    assert "1 received" in ping_whole(scene.a, target, mtu)


@both
def test_a_transfer_between_pods_that_do_not_know_how_narrow_their_path_is_completes(scene, version):
    target = ip_of(scene.c, version)
    assert traffic.tcp(scene.a, target, size=LARGE_BYTES) == str(ip_of(scene.a, version))
    assert learnt_mtu(scene.a, target) == scene.path_mtu(version)
    # The other end sent as much.
    assert learnt_mtu(scene.c, ip_of(scene.a, version)) == scene.path_mtu(version)


@both
def test_datagrams_larger_than_the_path_arrive_in_fragments_once_its_mtu_is_known(scene, version):
    assert traffic.udp(scene.a, ip_of(scene.c, version), size=8000, attempts=3, seconds=3) == str(
        ip_of(scene.a, version)
    )
    for size in (8000, 3000):
        assert traffic.udp(scene.a, ip_of(scene.c, version), size=size) == str(ip_of(scene.a, version))


def test_a_transfer_that_may_be_fragmented_is_cut_by_the_node_and_nobody_learns_of_it(scene):
    natively = scene.made.nodes[0].config.routing == "native"
    arrived = PacketDirection.FROM_UNDERLAY if natively else PacketDirection.FROM_OVERLAY
    call = {"size": LARGE_BYTES, "may_be_fragmented": True}
    here, there = counted(scene.made.nodes, traffic.tcp, scene.a, scene.c.ip, **call)
    assert here[Reason.STACK_TOO_BIG, PacketDirection.FROM_POD]
    assert there[Reason.STACK_FRAGMENT, arrived] > LARGE_BYTES / UNDERLAY_MTU
    assert learnt_mtu(scene.a, scene.c.ip) is None


@both
def test_between_pods_of_one_node_the_pods_own_mtu_is_the_limit(scene, version):
    target = ip_of(scene.b, version)
    assert "1 received" in ping_whole(scene.a, target, POD_MTU)
    assert traffic.tcp(scene.a, target, size=LARGE_BYTES) == str(ip_of(scene.a, version))


@both
def test_a_transfer_to_a_service_with_its_backend_on_another_node_completes(scene, version):
    target = vip(3, version)
    assert traffic.tcp(scene.a, target, 80, LARGE_BYTES) == str(ip_of(scene.a, version))
    assert learnt_mtu(scene.a, target) == scene.path_mtu(version)


@both
def test_a_transfer_from_outside_through_a_node_port_to_another_node_completes(scene, version):
    node = ip_of(scene.made.nodes[0], version)
    assert traffic.tcp(scene.made.outside, node, 30003, LARGE_BYTES) == str(node)


@both
def test_a_router_outside_that_refuses_a_masqueraded_packet_is_heard_by_the_pod(scene, version):
    target = ip_address("192.168.78.2" if version == 4 else "fd78::2")
    assert traffic.tcp(scene.a, target, size=LARGE_BYTES) == str(ip_of(scene.made.nodes[0], version))
    assert learnt_mtu(scene.a, target) == BEYOND_MTU


@both
def test_a_short_cut_is_no_hop(scene, version):
    for peer in (scene.b, scene.c):
        traffic.ping(scene.a, ip_of(peer, version), options="-t 1")


@both
def test_a_packet_whose_hops_run_out_on_the_node_is_answered_to_the_pod(scene, version):
    target = ip_address("192.168.78.2" if version == 4 else "fd78::2")
    said = scene.a.run(f"ping -n -c 1 -W 3 -t 1 {target}", check=False)
    assert re.search(r"Time to live exceeded|Time exceeded: Hop limit", said), said


@both
@pytest.mark.parametrize("number", [2, 3])
def test_a_services_packet_whose_hops_run_out_tells_the_client_so(scene, version, number):
    """The error quotes a translated packet and has to be translated back."""
    target = vip(number, version)
    level, hops, errors = (
        (socket.IPPROTO_IP, socket.IP_TTL, 11)  # IP_RECVERR
        if version == 4
        else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 25)  # IPV6_RECVERR
    )
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with scene.a.call(socket.socket, family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.setsockopt(level, hops, 1)
        sock.setsockopt(level, errors, 1)
        sock.connect((str(target), 80))
        sock.send(b"x")
        with pytest.raises(OSError, match=r"No route to host") as raised:
            sock.recv(1)
    assert raised.value.errno == errno.EHOSTUNREACH


@pytest.fixture
def narrowed(scene):
    """The first node's underlay carries 100 bytes less, and the agent has seen it; give by how much."""
    node = scene.made.nodes[0]

    def become(mtu):
        node.run(f"ip link set u0 mtu {mtu}")
        assert node.call(node.datapath.verify)

    become(UNDERLAY_MTU - 100)
    yield 100
    become(UNDERLAY_MTU)


@both
def test_an_underlay_that_becomes_narrower_is_followed(scene, narrowed, version):
    target = ip_of(scene.c, version)
    assert traffic.tcp(scene.a, target, size=LARGE_BYTES) == str(ip_of(scene.a, version))
    assert learnt_mtu(scene.a, target) == scene.path_mtu(version) - narrowed


@both
@pytest.mark.parametrize("routing", ["vxlan", "native"])
def test_a_wide_underlay_is_used_to_the_full(routing, version):
    with cluster(routing=routing, mtu=9000) as made:
        here, there = made.nodes
        a = here.attach("a", "10.244.1.10", "fd00:244::1:10")
        c = there.attach("c", "10.244.2.10", "fd00:244::2:10")
        made.sync()
        natively = routing == "native" and version == 4
        assert a.endpoint.mtu == (9000 if routing == "native" else 8950)
        # The kernel takes a moment until it receives for a new IPv6 address, even without duplicate address detection.
        eventually(lambda: "1 received" in ping_whole(a, ip_of(c, version), 9000 if natively else 8950))
        with traffic.server(c):
            assert traffic.tcp(a, ip_of(c, version), size=LARGE_BYTES) == str(ip_of(a, version))
            assert traffic.udp(a, ip_of(c, version), size=20_000) == str(ip_of(a, version))
