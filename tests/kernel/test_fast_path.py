"""The way into the tunnel past its device: taken wherever it is as good, and left where the device can do more."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace

import pytest

from fast.datapath.bpf.layout import DevFlag, Device
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.netlink import Netlink, requests, wire
from fast.datapath.node.node_datapath import NodeDatapath
from kernel import traffic
from kernel.fastlab import Cluster, Node, Pod, attach_pods, cluster, ip_of
from kernel.lab import eventually

_IFLA_GSO_MAX_SIZE, _IFLA_GSO_IPV4_MAX_SIZE = 41, 63
SHORT = Reason.FORWARD_TUNNEL, PacketDirection.FROM_POD
BY_DEVICE = Reason.FORWARD_TUNNEL_DEVICE, PacketDirection.FROM_POD


@dataclass
class Scene:
    """A pod on each of two nodes, with servers."""

    made: Cluster
    here: Node
    there: Node
    a: Pod
    c: Pod


@pytest.fixture(scope="module")
def scene():
    with cluster() as made, contextlib.ExitStack() as servers:
        a, c = attach_pods(made, 1)
        for pod in (a, c):
            servers.enter_context(traffic.server(pod))
        yield Scene(made, *made.nodes, a, c)


both = pytest.mark.parametrize("version", [4, 6])


def grew(node, which, action):
    before = node.count(*which)
    action()
    return node.count(*which) - before


def sent_by_device(node):
    link = json.loads(node.run("ip -j -s link show fast_vxlan"))[0]
    return link["stats64"]["tx"]["packets"]


def tunnel_flags(node):
    return node.call(node.datapath._up().devices.get, Device.TUNNEL).flags


def verify(node):
    node.call(node.datapath.verify)


@both
def test_what_pods_send_to_other_nodes_does_not_pass_the_tunnel_device(scene, version):
    assert tunnel_flags(scene.here) == DevFlag.MAY_BE_SKIPPED
    before = sent_by_device(scene.here)
    assert grew(scene.here, SHORT, lambda: traffic.tcp(scene.a, ip_of(scene.c, version), size=1 << 20)) > 10
    assert sent_by_device(scene.here) == before


def test_with_the_option_off_it_passes_the_device(scene):
    here = scene.here
    config = here.config
    here.datapath = NodeDatapath(replace(config, skip_tunnel_device=False))
    here.call(here.datapath.ensure)
    try:
        scene.made.sync()
        assert grew(here, SHORT, lambda: traffic.ping(scene.a, scene.c.ip)) == 0
        assert grew(here, BY_DEVICE, lambda: traffic.tcp(scene.a, scene.c.ip, size=1 << 20)) > 10
    finally:
        here.restart()
        scene.made.sync()
    assert grew(here, SHORT, lambda: traffic.ping(scene.a, scene.c.ip)) > 0


@contextlib.contextmanager
def undone(node, command):
    """Undo by the command what the block does, and restart the node, as it would otherwise remember."""
    try:
        yield
    finally:
        node.run(command)
        node.restart()
    assert tunnel_flags(node) == DevFlag.MAY_BE_SKIPPED


def test_an_ipsec_policy_for_the_tunnels_packets_is_honoured_and_remembered(scene):
    here, there = scene.here, scene.there
    policy = f"src {here.ip} dst {there.ip} proto udp dir out"
    with undone(here, "ip xfrm policy flush"):
        here.run(f"ip xfrm policy add {policy} action block")
        verify(here)
        assert tunnel_flags(here) == DevFlag.NONE
        assert not traffic.reaches(traffic.ping, scene.a, scene.c.ip)
        here.run(f"ip xfrm policy update {policy} action allow")
        assert grew(here, BY_DEVICE, lambda: traffic.ping(scene.a, scene.c.ip)) > 0
        here.run("ip xfrm policy flush")  # as a daemon does that puts others in their place
        verify(here)
        assert tunnel_flags(here) == DevFlag.NONE
    assert grew(here, SHORT, lambda: traffic.ping(scene.a, scene.c.ip)) > 0


def test_ipsec_that_blocks_whatever_no_policy_allows_is_honoured(scene):
    here = scene.here
    with undone(here, "ip xfrm policy setdefault in accept fwd accept out accept"):
        here.run("ip xfrm policy setdefault out block")
        verify(here)
        assert not traffic.reaches(traffic.ping, scene.a, scene.c.ip)


@pytest.mark.parametrize("table", ["", "table 50"])
def test_a_route_with_a_small_mtu_of_its_own_is_honoured_in_whichever_table_it_is(scene, table):
    here, there = scene.here, scene.there
    here.run(f"ip route add {there.ip}/32 dev u0 mtu 1300 {table}")
    if table:
        here.run(f"ip rule add to {there.ip} lookup 50")
    try:
        verify(here)
        assert grew(here, BY_DEVICE, lambda: traffic.tcp(scene.a, scene.c.ip, size=1 << 20)) > 10
    finally:
        here.run(f"ip route del {there.ip}/32 dev u0 {table}; ip rule del to {there.ip} lookup 50 || true")
        verify(here)
    assert grew(here, SHORT, lambda: traffic.ping(scene.a, scene.c.ip)) > 0


def test_a_route_that_changes_is_followed_at_once(scene):
    here, there, gateway = scene.here, scene.there, scene.made.outside
    gateway.run(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.u0.send_redirects=0"
    )
    counter = "nft -j list counter ip watch passed"
    gateway.run(
        "nft -f -",
        stdin="table ip watch { counter passed {}\nchain f { type filter hook forward priority 0;\n"
        "udp dport 8479 counter name passed\n}\n}\n",
    )

    def passed():
        found = json.loads(gateway.run(counter))["nftables"]
        return next(item["counter"]["packets"] for item in found if "counter" in item)

    try:
        traffic.ping(scene.a, scene.c.ip)
        assert passed() == 0
        here.run(f"ip route add {there.ip}/32 via {scene.made.outside_ip} dev u0")
        # No packet is lost; all but those of the first milliseconds go by the gateway.
        assert grew(here, SHORT, lambda: traffic.ping(scene.a, scene.c.ip, count=20)) >= 20
        assert passed() >= 18
    finally:
        here.run(f"ip route del {there.ip}/32", check=False)
        gateway.run("nft delete table ip watch; sysctl -qw net.ipv4.ip_forward=0")


def test_a_node_whose_mac_is_not_known_yet_gets_the_first_packet(scene):
    for _ in range(5):
        scene.here.run("ip neigh flush dev u0")
        traffic.ping(scene.a, scene.c.ip, count=1)


def test_a_node_whose_mac_changes_unannounced_is_found_again(scene):
    here, there = scene.here, scene.there
    here.run(
        "sysctl -qw net.ipv4.neigh.u0.base_reachable_time_ms=500 net.ipv4.neigh.u0.delay_first_probe_time=1\n"
        "ip neigh flush dev u0"
    )
    traffic.ping(scene.a, scene.c.ip)
    old = json.loads(there.run("ip -j link show u0"))[0]["address"]
    # Nothing from there tells of it: what it says itself would teach the new MAC.
    there.run("sysctl -qw net.ipv4.conf.u0.arp_notify=0; ip link set u0 address 02:00:00:00:77:66")
    try:
        here.run(f"ip neigh replace {there.ip} lladdr {old} dev u0 nud stale")
        eventually(lambda: traffic.reaches(traffic.ping, scene.a, scene.c.ip), 15)
    finally:
        there.run(f"ip link set u0 address {old}")
        for node in scene.made.nodes:
            node.run("ip neigh flush dev u0")
    eventually(lambda: traffic.reaches(traffic.ping, scene.a, scene.c.ip), 15)


@both
def test_datagrams_sent_as_segments_of_one_packet_go_as_one_and_arrive_each(scene, version):
    target = ip_of(scene.c, version)
    assert 0 < grew(scene.here, SHORT, lambda: traffic.udp_segments(scene.a, target)) < 30


def received(node):
    return json.loads(node.run("ip -j -s link show u0"))[0]["stats64"]["rx"]


@both
@pytest.mark.parametrize("lacking", ["tx-udp_tnl-segmentation off", "tso off gso off", "tx off"])
def test_a_nic_that_cannot_cut_segments_or_sum_up_behind_outer_headers_gets_them_cut_and_summed_up(
    scene, version, lacking
):
    here, there, target = scene.here, scene.there, ip_of(scene.c, version)
    here.run(f"ethtool -K u0 {lacking}")
    try:
        before = received(there)
        assert grew(here, SHORT, lambda: traffic.tcp(scene.a, target, size=traffic.LARGE_BYTES)) > 10
        traffic.udp_segments(scene.a, target)
        after = received(there)
        if lacking != "tx off":  # which leaves the cutting to the NIC
            assert (after["bytes"] - before["bytes"]) / (after["packets"] - before["packets"]) <= 1514
    finally:
        here.run("ethtool -K u0 tx on; ethtool -K u0 tso on gso on tx-udp_tnl-segmentation on")
    assert traffic.tcp(scene.a, target, size=traffic.LARGE_BYTES) == str(ip_of(scene.a, version))


def test_pods_that_make_tunnels_of_their_own_get_bulk_data_through_them(scene):
    ends = ((scene.a, scene.c, 1), (scene.c, scene.a, 2))
    for pod, other, number in ends:
        pod.run(
            f"ip link add own type vxlan id 5 dstport 4789 remote {other.ip} local {pod.ip} dev eth0\n"
            f"ip addr add 10.99.0.{number}/24 dev own; ip link set own mtu 1400 up"
        )
    try:
        inside = type(scene.a.ip)("10.99.0.2")
        assert grew(scene.here, BY_DEVICE, lambda: traffic.tcp(scene.a, inside, size=traffic.LARGE_BYTES))
    finally:
        for pod, _, _ in ends:
            pod.run("ip link del own")


def allow_packets_of(size):
    """Let eth0 hand on what is to be cut into segments in pieces of that size: more than an IP header can say."""
    with Netlink() as netlink:
        link = netlink.find_link("eth0")
        request = requests.set_link(link.index)
        sizes = wire.u32(_IFLA_GSO_MAX_SIZE, size) + wire.u32(_IFLA_GSO_IPV4_MAX_SIZE, size)
        netlink.execute(replace(request, body=request.body + sizes))


@both
def test_packets_larger_than_an_ip_header_can_say_arrive(scene, version):
    target = ip_of(scene.c, version)
    scene.a.call(allow_packets_of, 196608)
    try:
        assert grew(scene.here, BY_DEVICE, lambda: traffic.tcp(scene.a, target, size=4 * traffic.LARGE_BYTES))
    finally:
        scene.a.call(allow_packets_of, 65536)
