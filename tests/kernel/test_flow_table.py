"""The managed flow table: what fills it, expires, is refused, evicted and seeded again; with real Services and pods."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, replace

import pytest

from fast.datapath.bpf.layout import FLOW_OWNER_INBOUND, Flow, FlowFlag, FlowKey, FlowLimit, Interface
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.node.flow_table import FlowTable
from kernel.fastlab import Cluster, Node, Pod, attach_pods, cluster, ip_of
from kernel.lab import eventually
from kernel.services import SERVICE_PORT, Service, install, vip

TCP, UDP = 6, 17
PORT = 8081
both = pytest.mark.parametrize("version", [4, 6])


@dataclass
class Scene:
    """Pods a and b on one node, c on the other; Services to b and c by both families."""

    made: Cluster
    here: Node
    a: Pod
    b: Pod
    c: Pod


def _echo(connection):
    with connection, contextlib.suppress(OSError):
        while received := connection.recv(100):
            connection.sendall(received)


def _accept(listener):
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_echo, args=(listener.accept()[0],), daemon=True).start()


@contextlib.contextmanager
def echo_server(pod):
    """Answer what comes by TCP, for as long as the client likes."""

    def listen():
        listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        return listener

    listener = pod.call(listen)
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture(scope="module")
def scene():
    with cluster() as made, contextlib.ExitStack() as servers:
        attach_pods(made, 2)
        here, there = made.nodes
        a, b, c = *here.pods, there.pods[0]
        for pod in (a, b, c):
            servers.enter_context(echo_server(pod))
        services = [
            Service(vip(number, version), ip_of(pod, version), backend_port=PORT)
            for number, pod in ((1, b), (2, c))
            for version in (4, 6)
        ]
        for node in made.nodes:
            install(node, services, "nft")
        yield Scene(made, here, a, b, c)


@pytest.fixture(autouse=True)
def _no_flows(scene):
    """No flow of an earlier test, in the table or in conntrack."""
    for node in scene.made.nodes:
        flows = node.datapath._up().loaded.flows
        node.call(lambda flows=flows: flows.delete_many([key for key, _ in flows.items()]))
        node.run("conntrack -F 2>/dev/null")


def flows_of(node):
    with node.datapath._up().loaded.flows as flows:
        return dict(node.call(lambda: list(flows.items())))


def table_of(node) -> FlowTable:
    return node.datapath._up().flow_table


def interface_of(node, pod) -> Interface:
    with node.datapath._up().loaded.interfaces as interfaces:
        return node.call(interfaces.get, pod.endpoint.ifindex)


def limit(node, pod, more):
    """Let the pod open that many flows more."""
    opened = interface_of(node, pod).flows_opened
    with node.datapath._up().loaded.flow_limits as limits:
        node.call(limits.put, pod.endpoint.ifindex, FlowLimit(opened + more, 1 << 40))


def connect(pod, address, port=SERVICE_PORT, source_port=0):
    """Open a TCP connection from the pod; the caller closes it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6

    def run():
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(3)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", source_port))
        try:
            sock.connect((str(address), port))
        except BaseException:
            sock.close()
            raise
        return sock

    return pod.call(run)


def talk(sock):
    """Send something, and read it back."""
    sock.sendall(b"hello")
    assert sock.recv(100) == b"hello"


@both
@pytest.mark.parametrize("number", [1, 2])
def test_a_service_connection_is_one_entry_that_says_who_opened_it_and_that_it_was_answered(
    scene, number, version
):
    backend = ip_of(scene.b if number == 1 else scene.c, version)
    with connect(scene.a, vip(number, version)) as sock:
        source = ip_of(scene.a, version), sock.getsockname()[1]
        talk(sock)
        ((key, flow),) = flows_of(scene.here).items()
    assert key == FlowKey.of(source, (backend, PORT), TCP)
    opener = FlowFlag.OPENED_BY_LOW if (key.low, key.low_port) == source else FlowFlag.OPENED_BY_HIGH
    assert flow.flags == FlowFlag.STACK | FlowFlag.ANSWERED | opener
    assert flow.owner == scene.a.endpoint.ifindex


def closed(node):
    found = list(flows_of(node).values())
    return len(found) == 1 and FlowFlag.FIN_BY_LOW | FlowFlag.FIN_BY_HIGH in found[0].flags


@both
@pytest.mark.parametrize("number", [1, 2])
def test_a_connection_that_both_ends_closed_expires_within_seconds_and_another_stays(scene, number, version):
    with connect(scene.a, vip(number, version)) as sock:
        talk(sock)
    eventually(lambda: closed(scene.here))
    with connect(scene.a, vip(number, version)) as kept:
        talk(kept)
        assert scene.here.call(scene.here.datapath.sweep_flows).expired == 0
        with scene.here.datapath._up().loaded.flows as flows:
            for key, flow in flows_of(scene.here).items():
                scene.here.call(
                    flows.put, key, replace(flow, last_seen_ns=time.monotonic_ns() - 11_000_000_000)
                )
        assert scene.here.call(scene.here.datapath.sweep_flows).expired == 1
        ((_, flow),) = flows_of(scene.here).items()
        assert not closed(scene.here)
        talk(kept)


def test_a_reset_closes_as_well(scene):
    with connect(scene.a, vip(1, 4)) as sock:
        talk(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: closed(scene.here))


def test_the_ports_of_a_closed_connection_may_be_used_again(scene):
    for _ in range(2):
        with connect(scene.a, vip(1, 4), source_port=40_001) as sock:
            talk(sock)
            ((_, flow),) = flows_of(scene.here).items()
            assert not flow.flags & (FlowFlag.FIN_BY_LOW | FlowFlag.FIN_BY_HIGH)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: closed(scene.here))


@both
@pytest.mark.parametrize("number", [1, 2])
def test_a_pod_over_its_limit_opens_no_more_and_disturbs_neither_its_own_nor_others_connections(
    scene, number, version
):
    with connect(scene.a, vip(number, version)) as established:
        talk(established)
        limit(scene.here, scene.a, 0)
        refused = interface_of(scene.here, scene.a).flows_refused
        direction = PacketDirection.TO_POD if number == 1 else PacketDirection.TO_OVERLAY
        dropped = scene.here.count(Reason.DROP_FLOW_LIMIT, direction)
        with pytest.raises(TimeoutError):
            connect(scene.a, vip(number, version))
        assert interface_of(scene.here, scene.a).flows_refused > refused
        assert scene.here.count(Reason.DROP_FLOW_LIMIT, direction) > dropped
        talk(established)
        with connect(scene.b, vip(2, version)) as other:
            talk(other)
        # What needs no entry is not limited.
        with connect(scene.a, ip_of(scene.c, version), PORT) as direct:
            talk(direct)
    scene.here.call(scene.here.datapath.sweep_flows)
    with connect(scene.a, vip(number, version)) as again:
        talk(again)


def test_what_expires_gives_the_pod_room_again(scene):
    scene.here.call(scene.here.datapath.sweep_flows)
    with scene.here.datapath._up().loaded.flow_limits as limits:
        first = scene.here.call(limits.get, scene.a.endpoint.ifindex)
        for _ in range(3):
            with connect(scene.a, vip(1, 4)) as sock:
                talk(sock)
        scene.here.call(scene.here.datapath.sweep_flows)
        assert scene.here.call(limits.get, scene.a.endpoint.ifindex) == first  # three present, three opened
        with scene.here.datapath._up().loaded.flows as flows:
            scene.here.call(lambda: flows.delete_many(list(flows_of(scene.here))))
        scene.here.call(scene.here.datapath.sweep_flows)
        assert scene.here.call(limits.get, scene.a.endpoint.ifindex).flows_opened == first.flows_opened + 3


@both
@pytest.mark.parametrize("number", [1, 2])
def test_a_lost_table_is_seeded_from_conntrack_so_that_idle_connections_go_on(scene, number, version):
    node = scene.here
    with connect(scene.a, vip(number, version)) as idle:
        talk(idle)
        before = flows_of(node)
        with node.datapath._up().loaded.flows as flows:
            node.call(lambda: flows.delete_many(list(before)))
        table_of(node)._seeded = False  # as in an agent that starts
        assert node.call(node.datapath.sweep_flows).seeded == 1
        ((key, flow),) = flows_of(node).items()
        assert {key} == set(before)
        assert flow.flags == before[key].flags | FlowFlag.SEEDED
        assert flow.owner == scene.a.endpoint.ifindex
        talk(idle)
        assert node.call(node.datapath.sweep_flows).seeded == 0


def test_a_full_table_loses_those_of_whoever_has_most_and_an_idle_connection_of_another_pod_goes_on(scene):
    node, table = scene.here, table_of(scene.here)
    capacity = table.capacity
    with connect(scene.a, vip(2, 4)) as idle, node.datapath._up().loaded.flows as flows:
        talk(idle)
        (own,) = flows_of(node)
        now, flags = time.monotonic_ns(), FlowFlag.STACK | FlowFlag.ANSWERED
        hog = Flow(now, flags, owner=scene.b.endpoint.ifindex).pack()
        other = Flow(now - 10**9, flags, owner=scene.a.endpoint.ifindex | FLOW_OWNER_INBOUND).pack()

        def key(number):
            return FlowKey.of((scene.b.ip, number % 60_000), (scene.c.ip, 1 + number // 60_000), UDP).pack()

        few = capacity // 20
        node.call(flows.put_many_raw, {key(i): other for i in range(few)})
        node.call(flows.put_many_raw, {key(i): hog for i in range(few, capacity - 1)})
        with pytest.raises(TimeoutError):  # nothing is pushed out for it
            connect(scene.a, vip(2, 4))
        assert node.count(Reason.DROP_FLOW_TABLE_FULL) > 0
        talk(idle)
        swept = node.call(node.datapath.sweep_flows)
        assert swept.evicted > 0
        assert swept.present <= capacity * 0.8 + 1
        left = flows_of(node)
        owners = [flow.owner for flow in left.values()]
        assert owners.count(scene.a.endpoint.ifindex | FLOW_OWNER_INBOUND) == few
        assert own in left
        talk(idle)
        with connect(scene.a, vip(2, 4)) as fresh:
            talk(fresh)


def test_flows_of_a_pod_that_is_gone_expire_within_seconds(scene):
    node = scene.here
    with connect(scene.a, vip(1, 4)) as sock, node.datapath._up().loaded.flows as flows:
        talk(sock)
        ((key, flow),) = flows_of(node).items()
        old = replace(flow, last_seen_ns=time.monotonic_ns() - 11_000_000_000)
        node.call(flows.put, key, old)
        assert node.call(node.datapath.sweep_flows).expired == 0
        node.call(flows.put, key, replace(old, owner=999_999))
        assert node.call(node.datapath.sweep_flows).expired == 1


def test_a_service_connection_first_and_a_direct_one_from_the_same_port_both_work(scene):
    with connect(scene.a, vip(2, 4), source_port=40_002) as service:
        talk(service)
        with connect(scene.a, scene.c.ip, PORT, source_port=40_002) as direct:
            talk(direct)
            talk(service)
        talk(service)


def test_a_service_connection_from_the_port_of_a_direct_one_ends_the_direct_one(scene):
    """A known limit (docs/develop/datapath.md): conntrack does not see the fast path, so it picks no other port."""
    with connect(scene.a, scene.c.ip, PORT, source_port=40_003) as direct:
        talk(direct)
        with connect(scene.a, vip(2, 4), source_port=40_003) as service:
            talk(service)
            with pytest.raises((ConnectionError, TimeoutError)):
                talk(direct)
            talk(service)
