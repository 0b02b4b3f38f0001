"""What may be done to a node while its pods talk: pings every 2 ms and TCP streams lose nothing."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pickle
import platform
import random
import signal
import socket
import struct
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from fast.datapath.bpf.install import install
from fast.datapath.bpf.layout import ClusterPod, Config, EventSwitch, LocalPod, Routing
from fast.datapath.bpf.libbpf import ffi, lib
from fast.datapath.bpf.links import AttachMode, Links
from fast.datapath.bpf.maps import RAW, Map
from fast.datapath.bpf.objects import load as load_object
from fast.datapath.bpf.pins import open_pin
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.bpf.spec import DATAPATH, TO_POD, Direction
from fast.datapath.node.node_datapath import NodeDatapath
from fast.datapath.repair import RepairKind
from kernel import traffic
from kernel.bpf.sources import compile_changed
from kernel.fastlab import POD_SUBNETS, attach_pods, cluster, ip_of
from kernel.lab import eventually
from kernel.load import PING_INTERVAL_SECONDS, load
from kernel.services import SERVICE_PORT, Service, vip
from kernel.services import install as install_services

_BPF_LINK_CREATE, _BPF_F_BEFORE = 28, 1 << 3


@pytest.fixture(scope="module", params=["vxlan", "native"])
def made(request):
    with cluster(routing=request.param) as found:
        attach_pods(found, 2)
        services = [Service(vip(1, v), found.pods[2].ip if v == 4 else found.pods[2].ip6) for v in (4, 6)]
        for node in found.nodes:
            install_services(node, services, "nft")
        # Natively routed, what the stack sends is lost until the other node has told its MAC, for which the nodes ask
        # when they get to know each other.
        here, there = found.nodes
        eventually(lambda: traffic.reaches(traffic.ping, here, found.pods[2].ip))
        eventually(lambda: traffic.reaches(traffic.ping, there, found.pods[0].ip))
        yield found


def everything(made):
    """Fast path and stack, same node and across, both families."""
    a, b, c, _ = made.pods
    pings = {
        "ping on the node": (a, b.ip),
        "ping across": (a, c.ip),
        "ping across, IPv6": (a, c.ip6),
        "ping from the node": (made.nodes[0], c.ip),
    }
    streams = {
        "TCP on the node": (a, b, b.ip, 9001, 9001),
        "TCP across": (a, c, c.ip, 9002, 9002),
        "TCP across, IPv6": (a, c, c.ip6, 9003, 9003),
        "TCP through a Service": (a, c, vip(1, 4), 80, 8080),
    }
    return load(pings, streams)


def test_an_agent_that_starts_anew_adopts_what_runs(made):
    with everything(made) as found:
        for _ in range(5):
            for node in made.nodes:
                node.restart()
    found.assert_unharmed()


def test_other_programs_take_over_by_atomic_exchange(made):
    node = made.nodes[0]
    routing = Routing.NATIVE if node.config.routing == "native" else Routing.VXLAN
    config = Config(
        node_ip=node.ip, tunnel_port=node.config.tunnel_port, vni=node.config.vni, routing=routing
    )

    def upgrade(events):
        spec = DATAPATH.configured(dataclasses.replace(config, events=events)).sized(fast_cluster_pods=4096)
        install(spec, node.datapath._pins).close()

    with everything(made) as found:
        for events in (EventSwitch.DROP | EventSwitch.NEW_FLOW, EventSwitch.DROP) * 5:
            node.call(upgrade, events)
    node.restart()
    found.assert_unharmed()


def test_another_map_size_takes_the_entries_along(made):
    node = made.nodes[0]
    before = node.call(node.datapath._up().loaded.cluster_pods.snapshot_raw)
    with everything(made) as found:
        for size in (8192, 2048, 4096):
            node.config = dataclasses.replace(node.config, max_cluster_entries=size)
            node.restart()
            assert node.call(node.datapath._up().loaded.cluster_pods.snapshot_raw) == before
    found.assert_unharmed()


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The object of a version whose entries were laid out otherwise."""
    return compile_changed(
        tmp_path_factory.mktemp("older"),
        (
            "lib/maps.h",
            r"\t__u32 ifindex;\s+/\* the veth's host side \*/",
            "\t__u64 of_before;\n\t__u32 ifindex;",
        ),
        ("lib/maps.h", r"\t__u32 owner; /\*", "\t__u32 pad;\n\t__u32 owner; /*"),
    )


def test_a_version_with_another_layout_takes_over_and_is_taken_over_from(made, older):
    node = made.nodes[0]
    spec = dataclasses.replace(node.datapath._up().loaded.spec, path=older)
    with everything(made) as found:
        for _ in range(2):
            node.call(lambda: install(spec, node.datapath._pins).close())
            assert node.call(value_bytes, "fast_local_pods") > LocalPod.FORMAT.size
            node.restart()
            assert node.call(value_bytes, "fast_local_pods") == LocalPod.FORMAT.size
    found.assert_unharmed()


def value_bytes(name):
    """Give the size of the pinned map's values."""
    with Map(open_pin(Path("/sys/fs/bpf/fast/maps") / name), name, RAW, RAW) as opened:
        return opened.info.value_bytes


def hooks_with_clsact(node):
    """Give where Fast's programs run, each with a clsact qdisc: the kernel drops packets while it puts the first."""
    hooks = [(item.ifindex, item.direction) for item in node.call(node.datapath._up().links.all)]
    for ifindex, _ in hooks:
        assert node.call(lib.fast_clsact_ensure, ifindex) == 0
    return hooks


def test_attachments_turn_into_the_other_kind_and_back(made):
    node = made.nodes[0]
    hooks_with_clsact(node)
    programs = node.datapath._up().loaded.programs
    before = node.call(node.datapath._up().links.all)

    def turn(mode):
        links = Links(node.datapath._pins, mode)
        for direction in (Direction.EGRESS, Direction.INGRESS):
            links.replace(programs, direction)
        assert {item.mode for item in links.all()} == {mode}

    def turn_back():
        for item in before:
            node.datapath._up().links.attach(item.ifindex, programs[item.program], item.mode)

    with everything(made) as found:
        for mode in (AttachMode.CLSACT, AttachMode.TCX, AttachMode.CLSACT):
            node.call(turn, mode)
        node.call(turn_back)
    assert node.call(node.datapath._up().links.all) == before
    found.assert_unharmed()


def first_link(program, ifindex, direction):
    """Attach by a tcx link before all others, which libbpf cannot before 1.3; give its descriptor."""
    attributes = struct.pack("=IIII48x", program.fd, ifindex, direction, _BPF_F_BEFORE)
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    link = libc.syscall(number, _BPF_LINK_CREATE, attributes, len(attributes))
    assert link > 0, os.strerror(ctypes.get_errno())
    return link


@contextlib.contextmanager
def surrounded(hooks, program, other):
    """Run somebody else's programs before and behind Fast's on the devices: two filters, and two tcx links."""
    filters = [
        (ifindex, direction is Direction.EGRESS, priority)
        for ifindex, direction in hooks
        for priority in (1, 90)
    ]
    for ifindex, egress, priority in filters:
        assert lib.fast_filter_replace(ifindex, egress, program.fd, priority, priority) == 0
    links = []
    try:
        for hook in hooks:
            links += [lib.bpf_link_create(program.fd, *hook, ffi.NULL), first_link(other, *hook)]
        assert min(links) > 0
        yield
    finally:
        for link in links:
            os.close(link)
        for ifindex, egress, priority in filters:
            lib.fast_filter_delete(ifindex, egress, priority, priority)


def test_programs_of_others_before_and_behind_ours_come_and_go(made):
    node = made.nodes[0]
    hooks = hooks_with_clsact(node)

    def seen_by_others():
        spec = DATAPATH.sized(fast_cluster_pods=64, fast_flow_table=64)
        with load_object(spec) as theirs, load_object(spec) as others:
            with surrounded(hooks, theirs.programs[TO_POD], others.programs[TO_POD]):
                node.datapath = NodeDatapath(node.config)
                node.datapath.ensure()
                assert node.datapath.verify() == []
            counters = theirs.metrics, others.metrics
            return min(c.get(Reason.STACK_TO_POD, PacketDirection.TO_POD).packets for c in counters)

    with everything(made) as found:
        assert node.call(seen_by_others) > 0
        assert node.call(node.datapath.verify) == []
    found.assert_unharmed()


AGENT = """
import pickle, sys, time
from fast.datapath.node.node_datapath import NodeDatapath
datapath = NodeDatapath(pickle.loads(bytes.fromhex(sys.argv[1])))
print("starting", flush=True)
while True:
    datapath.ensure()
    print("up", flush=True)
"""


def test_an_agent_that_is_killed_at_any_moment_harms_nobody_and_the_next_one_finds_its_way(made):
    node = made.nodes[0]
    random.seed(7)
    with everything(made) as found:
        for attempt in range(6):
            config = dataclasses.replace(node.config, max_cluster_entries=4096 + 1024 * (attempt % 2))
            agent = node.start(sys.executable, "-c", AGENT, pickle.dumps(config).hex())
            assert agent.stdout.readline() == "starting\n"
            time.sleep(random.uniform(0, 0.12))
            agent.send_signal(signal.SIGKILL)
            agent.wait()
        node.restart()
    assert node.call(node.datapath.verify) == []
    found.assert_unharmed()


def test_an_agent_that_stays_away_is_not_missed(made):
    with everything(made) as found:
        for node in made.nodes:
            node.datapath._up().loaded.close()
        time.sleep(0.5)
        for node in made.nodes:
            node.restart()
    found.assert_unharmed()


def test_pods_that_come_and_go_do_not_disturb_the_others(made):
    node = made.nodes[0]
    with everything(made) as found:
        for n in range(20):
            node.detach(node.attach(f"x{n}", f"10.244.7.{n}", f"fd00:244::7:{n}"))
    found.assert_unharmed()


def test_a_full_sync_and_changed_subnets_do_not_disturb_anybody(made):
    node = made.nodes[0]
    many = {node.ip + 0x01000000 + n: ClusterPod(made.nodes[1].ip) for n in range(3000)}
    with everything(made) as found:
        for entries in (made.entries() | many, made.entries()) * 5:
            node.call(node.datapath.sync_cluster, entries)
        node.call(node.datapath.set_pod_subnets, POD_SUBNETS[:1])
        node.call(node.datapath.set_pod_subnets, POD_SUBNETS)
    # Without their subnet the node itself does not know IPv6 pods on other nodes; its pods do.
    found.assert_unharmed()


def test_a_flushed_ruleset_is_put_back_before_a_packet_between_pods_misses_it(made):
    a, b, c, _ = made.pods
    node = made.nodes[0]
    streams = {"TCP on the node": (a, b, b.ip, 9001, 9001), "TCP across": (a, c, c.ip, 9002, 9002)}
    with load({"ping on the node": (a, b.ip), "ping across": (a, c.ip6)}, streams) as found:
        node.run("nft flush ruleset")
        assert [repair.kind for repair in node.call(node.datapath.verify)] == [RepairKind.FIREWALL]
    found.assert_unharmed()
    install_services(node, [Service(vip(1, 4), c.ip), Service(vip(1, 6), c.ip6)], "nft")


def test_a_deleted_tunnel_device_costs_packets_only_until_it_is_back(made):
    a, b, c, _ = made.pods
    node = made.nodes[0]
    streams = {"TCP on the node": (a, b, b.ip, 9001, 9001), "TCP across": (a, c, c.ip, 9002, 9002)}
    with load({"on the node": (a, b.ip), "across": (a, c.ip), "IPv6": (a, c.ip6)}, streams) as found:
        traffic.ping(a, c.ip6)
        node.run("ip link del fast_vxlan")
        started = time.monotonic()
        assert RepairKind.TUNNEL_DEVICE in {repair.kind for repair in node.call(node.datapath.verify)}
        away_seconds = time.monotonic() - started
        traffic.ping(a, c.ip6)
    assert not found.failures
    assert found.lost["on the node"] == found.lost["TCP on the node"] == found.lost["TCP across"] == 0
    # Deleting the device itself takes some of the time.
    assert found.lost["IPv6"] <= (away_seconds + 1.0) / 0.002
    if node.config.routing == "native":
        assert found.lost["across"] == 0, "natively routed, nothing between pods needs the device"


@contextlib.contextmanager
def service_of(made, *addresses):
    """Add a Service for each of the addresses, one of a version, on every node; give their cluster IPs."""
    standing = [Service(vip(1, v), ip_of(made.pods[2], v)) for v in (4, 6)]
    added = [Service(vip(2, address.version), address) for address in addresses]
    for node in made.nodes:
        install_services(node, standing + added, "nft")
    try:
        yield [service.vip for service in added]
    finally:
        for node in made.nodes:
            install_services(node, standing, "nft")


def ask(sock):
    """Have one datagram back over a socket that lives on, whatever becomes of the server."""
    sock.send(b"x")
    assert sock.recv(100).endswith(b"x")


def test_a_pod_that_restarts_with_its_address_is_reached_at_once_by_old_flows_and_new_ones(made):
    """Also what nodes remember of flows to the one before, translated or not, is good for the new one."""
    here, addresses = made.nodes[1], (ip_address("10.244.2.77"), ip_address("fd00:244::2:77"))
    clients = made.pods[0], made.pods[2]  # on another node, and on the same
    with contextlib.ExitStack() as stack:
        vips = stack.enter_context(service_of(made, *addresses))
        targets = [*((a, 8080) for a in addresses), *((v, SERVICE_PORT) for v in vips)]
        lasting = []
        for client in clients:
            for target, port in targets:
                family = socket.AF_INET if target.version == 4 else socket.AF_INET6
                sock = stack.enter_context(client.call(socket.socket, family, socket.SOCK_DGRAM))
                sock.settimeout(5)
                sock.connect((str(target), port))
                lasting.append(sock)
        for n in range(3):
            pod = here.attach(f"again{n}", *map(str, addresses))
            made.sync()
            with traffic.server(pod):
                for sock in lasting:
                    ask(sock)
                for client in clients:
                    for address in addresses:
                        traffic.ping(client, address, count=1)
                    for target, port in targets:
                        assert traffic.tcp(client, target, port) == str(ip_of(client, target.version))
            here.detach(pod)


def test_an_address_that_moves_to_another_node_is_reached_there_as_soon_as_the_map_says_so(made):
    a, c, (here, there) = made.pods[0], made.pods[2], made.nodes
    pod = there.attach("before", "10.244.9.9", "fd00:244::9:9")
    made.sync()
    traffic.ping(a, pod.ip)
    traffic.ping(c, pod.ip6)
    with load({"from its new node": (a, pod.ip), "from its old node, IPv6": (c, pod.ip6)}, {}) as found:
        time.sleep(0.1)
        there.detach(pod)
        gone = time.time()
        moved = here.attach("after", "10.244.9.9", "fd00:244::9:9")
        made.sync()
        wired = time.time()
        time.sleep(0.3)
    for name, answered_at in found.answered_at.items():
        before, after = (max(t for t in answered_at if t <= gone), min(t for t in answered_at if t > gone))
        late_seconds = after - wired
        print(
            f"{made.nodes[0].config.routing}, {name}: {found.lost[name]} of {found.sent[name]} pings lost, "
            f"away for {(after - before) * 1e3:.0f} ms, back {late_seconds * 1e3:.0f} ms after the maps said so"
        )
        assert late_seconds < 0.1
        assert found.lost[name] <= (after - before) / PING_INTERVAL_SECONDS + 1
    here.detach(moved)
    made.sync()


@pytest.mark.parametrize("routing", ["vxlan", "native"])
def test_a_node_that_reboots_comes_back_with_its_pods_and_nobody_elses_traffic_notices(routing):
    with cluster(nodes=3, routing=routing) as made:
        attach_pods(made, 2)
        here, there, rebooted = made.nodes
        a, b, c, _, gone, _ = made.pods
        streams = {"TCP on the node": (a, b, b.ip, 9001, 9001), "TCP across": (a, c, c.ip, 9002, 9002)}
        with load({"ping on the node": (a, b.ip), "ping across": (a, c.ip6)}, streams) as found:
            traffic.ping(a, gone.ip)
            made.reboot(rebooted)
            for client in (a, c, here, there, gone.node.pods[1]):
                eventually(lambda client=client: traffic.reaches(traffic.ping, client, gone.ip))
                eventually(lambda client=client: traffic.reaches(traffic.ping, client, gone.ip6))
        found.assert_unharmed()
        for node in made.nodes:
            assert node.call(node.datapath.verify) == []
