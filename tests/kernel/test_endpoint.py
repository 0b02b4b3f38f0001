"""Making and unmaking a pod's interface: whole or not at all, by whatever fails, as often as it is asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import struct
from ipaddress import ip_address

import pytest

from fast.cni.cni_errors import Code, code_of
from fast.datapath.bpf.layout import ClusterPod
from fast.datapath.bpf.spec import DATAPATH
from fast.datapath.netlink import Netlink, requests
from fast.datapath.netns import Netns
from fast.datapath.pod.identity import GATEWAY4, EndpointSpec, host_device_name
from fast.datapath.pod.retirement import UNFINISHED_GROUP
from fast.errors import DatapathError, InvalidConfig, MapFull, NetnsGone
from fast.net import Mac
from kernel import traffic
from kernel.fastlab import attach_pods, cluster, ip_of
from kernel.lab import Sandbox, eventually


@pytest.fixture(scope="module")
def made():
    with cluster(nodes=2) as found:
        yield found


@pytest.fixture
def node(made):
    node = made.nodes[0]
    yield node
    for pod in list(node.pods):
        node.detach(pod)
    eventually(lambda: not left_of_pods(node))


def left_of_pods(node):
    """Everything that a pod leaves behind on its node, if anything does."""

    def look():
        with Netlink() as netlink:
            found = [link.name for link in netlink.links("veth") if link.name.startswith("fast")]
        running = node.datapath._up()
        tunnel = running.devices.by_role()[0].ifindex
        found += [str(address) for address, _ in running.loaded.local_pods.items()]
        return found + [str(attached) for attached in running.links.all() if attached.ifindex != tunnel]

    return node.call(look)


def entry_of(node, address):
    return node.call(lambda: node.datapath._up().loaded.local_pods.get(address))


def ip(place, arguments):
    return json.loads(place.run(f"ip -j {arguments}"))


def spec_in(node, name, *addresses, **changes):
    sandbox = node.machine.sandbox(name)
    fields = {"container_id": sandbox.path.rpartition("/")[2], "ifname": "eth0"} | changes
    return EndpointSpec(
        netns_path=sandbox.path, addresses=tuple(map(ip_address, addresses)), **fields
    ), sandbox


def test_a_dual_stack_pod_gets_host_addresses_a_gateway_and_no_need_for_arp(node):
    pod = node.attach("p", "10.244.1.1", "fd00:244::1:1")
    (shown,) = ip(pod, "addr show eth0")
    found = {(a["local"], a["prefixlen"]) for a in shown["addr_info"] if a["scope"] == "global"}
    assert found == {("10.244.1.1", 32), ("fd00:244::1:1", 128)}
    assert (shown["mtu"], shown["operstate"]) == (1450, "UP")
    assert {(r["dst"], r.get("gateway")) for r in ip(pod, "route")} == {
        ("default", str(GATEWAY4)),
        (str(GATEWAY4), None),
    }
    assert ("default", "fe80::1") in {(r["dst"], r.get("gateway")) for r in ip(pod, "-6 route")}
    for place, mac in ((pod, pod.endpoint.host_mac), (node, pod.endpoint.pod_mac)):
        entries = [n for n in ip(place, "neigh") if n["lladdr"] == str(mac)]
        assert len(entries) == 2
        assert all(entry["state"] == ["PERMANENT"] for entry in entries)
    assert node.call(node.datapath.check, pod.spec) is None


def test_an_address_can_be_used_the_moment_attach_returns_without_duplicate_address_detection(node):
    pod = node.attach("p", "fd00:244::1:2")
    assert "tentative" not in pod.run("ip -6 addr show scope global")
    traffic.ping(pod, node.ip6, count=1)


def test_a_sandbox_with_ipv6_switched_off_gets_it_switched_on_for_its_interface(node):
    sandbox = node.machine.sandbox("p")
    sandbox.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
    spec = EndpointSpec("c", "eth0", sandbox.path, (ip_address("fd00:244::1:3"),))
    node.call(node.datapath.attach, spec)
    assert "fd00:244::1:3/128" in sandbox.run("ip -6 addr")
    node.call(node.datapath.detach, "c", "eth0")


def test_the_same_spec_again_changes_nothing(node):
    pod = node.attach("p", "10.244.1.4", "fd00:244::1:4")
    again = node.call(node.datapath.attach, pod.spec)
    assert again == pod.endpoint


def test_the_same_identity_with_another_address_replaces_the_endpoint(node):
    pod = node.attach("p", "10.244.1.5")
    changed = dataclasses.replace(pod.spec, addresses=(ip_address("10.244.1.6"),))
    node.call(node.datapath.attach, changed)
    assert entry_of(node, ip_address("10.244.1.5")) is None
    assert entry_of(node, ip_address("10.244.1.6")) is not None
    assert "10.244.1.5" not in pod.run("ip addr")


def test_detaching_leaves_nothing_and_a_second_time_does_nothing(node):
    pod = node.attach("p", "10.244.1.7", "fd00:244::1:7")
    assert node.call(node.datapath.detach, pod.spec.container_id, "eth0") is True
    assert entry_of(node, pod.ip) is None
    assert "10.244.1.7" not in node.run("ip route")
    assert node.call(node.datapath.detach, pod.spec.container_id, "eth0") is False
    eventually(lambda: not left_of_pods(node))
    assert "eth0" not in pod.run("ip link")


def test_the_same_sandbox_can_be_attached_again_right_after_it_was_detached(node):
    pod = node.attach("p", "10.244.1.8")
    for container in (pod.spec.container_id, "another"):
        node.call(node.datapath.detach, pod.spec.container_id, "eth0")
        spec = dataclasses.replace(pod.spec, container_id=container)
        node.call(node.datapath.attach, spec)
        node.call(node.datapath.check, spec)
        pod.spec = spec


def test_detaching_when_the_namespace_is_gone_removes_entry_and_pins(node):
    pod = node.attach("p", "10.244.1.9", "fd00:244::1:9")
    pod.sandbox.delete()
    eventually(lambda: pod.endpoint.host_device not in node.run("ip link"))
    assert entry_of(node, pod.ip) is not None
    assert node.call(node.datapath.detach, pod.spec.container_id, "eth0") is True
    assert not left_of_pods(node)
    node.pods.remove(pod)


def test_a_late_detach_of_the_former_sandbox_leaves_the_address_to_its_new_one(node):
    old = node.attach("old", "10.244.1.10")
    new = node.attach("new", "10.244.1.10")
    node.call(node.datapath.detach, old.spec.container_id, "eth0")
    assert entry_of(node, new.ip).ifindex == new.endpoint.ifindex
    traffic.ping(node, new.ip)
    node.call(node.datapath.check, new.spec)


def test_a_namespace_that_does_not_exist_is_named_and_nothing_is_made(node):
    spec = EndpointSpec("c", "eth0", "/run/netns/nowhere", (ip_address("10.244.1.11"),))
    with pytest.raises(NetnsGone, match="/run/netns/nowhere"):
        node.call(node.datapath.attach, spec)
    assert not left_of_pods(node)


def test_an_interface_name_that_is_taken_inside_the_pod_is_named_and_nothing_is_left(node):
    spec, sandbox = spec_in(node, "p", "10.244.1.12")
    sandbox.run("ip link add eth0 type veth peer name other")
    with pytest.raises(DatapathError, match="has an interface eth0 already"):
        node.call(node.datapath.attach, spec)
    assert not left_of_pods(node)


def test_a_step_that_fails_late_is_rolled_back_wholly(node):
    spec, sandbox = spec_in(node, "p", "10.244.1.13", "fd00:244::1:13", mtu=1000)  # IPv6 needs 1280
    with pytest.raises(DatapathError):
        node.call(node.datapath.attach, spec)
    assert not left_of_pods(node)
    assert "eth0" not in sandbox.run("ip link")
    assert "10.244.1.13" not in node.run("ip route")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("pod: ip route del default", "no default route via 169.254.1.1"),
        ("pod: ip addr flush dev eth0", "lacks the address 10.244.1.14"),
        ("pod: ip link set eth0 down", "eth0 in the pod is down"),
        ("pod: ip link set eth0 name eth9", "no interface eth0"),
        ("node: ip route del 10.244.1.14", "no route to 10.244.1.14"),
        ("node: ip link set {device} down", "is down"),
        ("node: tc qdisc del dev {device} clsact", "fast_from_pod does not run"),
    ],
)
def test_check_says_what_is_missing(node, damage, said):
    pod = node.attach("p", "10.244.1.14")
    where, command = damage.split(": ")
    (pod if where == "pod" else node).run(command.format(device=pod.endpoint.host_device))
    with pytest.raises(DatapathError, match=said):
        node.call(node.datapath.check, pod.spec)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_that_deletes_its_gateways_entry_is_alone_until_it_is_attached_again_as_check_says(
    node, version
):
    """Nobody answers for the gateway: the entry is the only thing that knows its MAC."""
    pod, other = (
        node.attach("p", "10.244.1.17", "fd00:244::1:17"),
        node.attach("o", "10.244.1.18", "fd00:244::1:18"),
    )
    gateway = "169.254.1.1" if version == 4 else "fe80::1"
    pod.run(f"ip neigh del {gateway} dev eth0")
    with pytest.raises(DatapathError, match=f"no neighbour entry for {gateway}"):
        node.call(node.datapath.check, pod.spec)
    assert not traffic.reaches(traffic.ping, pod, ip_of(other, version), count=1, options="-W 0.2")
    traffic.ping(node, ip_of(other, version))
    traffic.ping(pod, ip_of(other, 10 - version))
    node.call(node.datapath.attach, pod.spec)
    node.call(node.datapath.check, pod.spec)
    traffic.ping(pod, ip_of(other, version))


def test_check_of_what_was_never_attached_names_the_device(node):
    spec, _ = spec_in(node, "p", "10.244.1.15")
    with pytest.raises(DatapathError, match=host_device_name(spec.container_id, "eth0")):
        node.call(node.datapath.check, spec)


def test_an_attach_that_follows_damage_mends_it(node):
    pod = node.attach("p", "10.244.1.16")
    pod.run("ip route del default")
    node.call(node.datapath.attach, pod.spec)
    node.call(node.datapath.check, pod.spec)


def test_what_an_agent_that_was_killed_left_half_made_is_deleted_by_the_next_one(node):
    _, sandbox = spec_in(node, "p", "10.244.1.19")

    def half_make():
        mac = Mac.derived("x")
        with Netns.open(sandbox.path) as netns, Netlink() as netlink:
            netlink.execute(
                requests.add_veth("fast0123456789", mac, "eth0", mac, netns.fd, 1450, UNFINISHED_GROUP)
            )

    node.call(half_make)
    node.restart()
    eventually(lambda: not left_of_pods(node))
    assert "eth0" not in sandbox.run("ip link")


def test_a_new_agent_knows_the_endpoints_of_the_old_one(node):
    pods = [node.attach(f"p{n}", f"10.244.1.{20 + n}", f"fd00:244::1:{20 + n}") for n in range(3)]
    node.restart()
    found = {endpoint.container_id: endpoint for endpoint in node.call(node.datapath.endpoints)}
    assert found == {pod.spec.container_id: pod.endpoint for pod in pods}


def test_32_pods_attached_and_detached_at_once_are_all_whole_and_all_gone(made, node):
    specs = [spec_in(node, f"p{n}", f"10.244.3.{n}", f"fd00:244::3:{n}")[0] for n in range(32)]
    for started in [node.machine.submit(node.datapath.attach, spec) for spec in specs]:
        started.result()
    for spec in specs:
        node.call(node.datapath.check, spec)
    gone = [node.machine.submit(node.datapath.detach, spec.container_id, "eth0") for spec in specs]
    assert all(started.result() for started in gone)
    eventually(lambda: not left_of_pods(node))


def test_two_calls_for_the_same_endpoint_at_once_leave_it_whole(node):
    spec, _ = spec_in(node, "p", "10.244.1.30")
    results = [
        started.result() for started in [node.machine.submit(node.datapath.attach, spec) for _ in range(4)]
    ]
    assert len(set(results)) == 1
    node.call(node.datapath.check, spec)
    node.call(node.datapath.detach, spec.container_id, "eth0")


def test_the_datapath_says_so_when_it_is_not_up_yet(made):
    from fast.datapath.node.node_datapath import NodeDatapath

    datapath = NodeDatapath(made.nodes[0].config)
    with pytest.raises(DatapathError, match="not up yet"):
        datapath.attach(EndpointSpec("c", "eth0", "/x", (ip_address("10.244.1.1"),)))
    with pytest.raises(DatapathError, match="not up yet"):
        datapath.counters()


def test_an_mtu_that_is_asked_for_is_used(node):
    spec, sandbox = spec_in(node, "p", "10.244.1.31", mtu=1300)
    endpoint = node.call(node.datapath.attach, spec)
    assert endpoint.mtu == 1300
    assert ip(sandbox, "link show eth0")[0]["mtu"] == 1300
    node.call(node.datapath.detach, spec.container_id, "eth0")


@pytest.fixture
def room_for_five(node, monkeypatch):
    """The node's map of local pods holds five addresses: two dual-stack pods and half of a third."""
    with monkeypatch.context() as patch:
        patch.setattr("fast.datapath.node.node_datapath.DATAPATH", DATAPATH.sized(fast_local_pods=5))
        node.restart()
    yield
    node.restart()


def test_a_pod_more_than_the_map_of_local_pods_holds_is_refused_by_its_name_and_nothing_of_it_stays(
    node, room_for_five
):
    attached = [node.attach(f"p{n}", f"10.244.1.{n}", f"fd00:244::1:{n}") for n in (40, 41)]
    before = left_of_pods(node)
    spec, sandbox = spec_in(node, "p", "10.244.1.42", "fd00:244::1:42")
    with pytest.raises(MapFull, match=r"fast_local_pods is full.* holds 5 entries") as raised:
        node.call(node.datapath.attach, spec)
    assert code_of(raised.value) is Code.MAP_FULL
    eventually(lambda: left_of_pods(node) == before)
    assert "10.244.1.42" not in node.run("ip route; ip neigh")
    assert "eth0" not in sandbox.run("ip link")
    traffic.ping(attached[0], attached[1].ip6)
    node.detach(attached.pop())
    node.call(node.datapath.attach, spec)
    node.call(node.datapath.check, spec)
    node.call(node.datapath.detach, spec.container_id, "eth0")


def test_an_empty_spec_is_refused():
    with pytest.raises(InvalidConfig):
        EndpointSpec("c", "eth0", "/x", ())


def test_a_thousand_pods_fit_on_a_node_and_reach_each_other():
    with cluster(nodes=2) as made:
        here, there = made.nodes
        (_, far) = attach_pods(made, 1)
        specs = []
        for n in range(1000):
            spec, _ = spec_in(here, f"m{n}", f"10.244.{50 + n // 250}.{n % 250}", f"fd00:244::50:{n:x}")
            specs.append(spec)
        for started in [here.machine.submit(here.datapath.attach, spec) for spec in specs]:
            started.result()
        addresses = [address for spec in specs for address in spec.addresses]
        for node in made.nodes:
            node.call(
                node.datapath.sync_cluster, made.entries() | dict.fromkeys(addresses, ClusterPod(here.ip))
            )
        assert len(here.call(here.datapath.endpoints)) == 1001
        assert here.call(here.datapath.verify) == []
        (near,) = here.pods
        for pod in (near, far):
            assert pod.call(unanswered, addresses) == set()
        for spec in (specs[0], specs[500], specs[999]):
            with traffic.server(Sandbox(here.machine, "m", spec.netns_path)):
                for client in (near, far):
                    for address in spec.addresses:
                        assert traffic.tcp(client, address, size=100_000) == str(
                            ip_of(client, address.version)
                        )
        assert there.call(there.datapath.verify) == []


_ECHO = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 8), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128)}


def unanswered(addresses):
    """Ping each of the addresses once, some at a time; give the first from which nothing came back within 3 s."""
    with contextlib.ExitStack() as stack:
        sockets = {
            v: stack.enter_context(socket.socket(f, socket.SOCK_RAW, p)) for v, (f, p, _) in _ECHO.items()
        }
        for sock in sockets.values():
            sock.settimeout(3)
        for start in range(0, len(addresses), 50):
            some = addresses[start : start + 50]
            for address in some:
                request = struct.pack("!BBHHH", _ECHO[address.version][2], 0, 0, 77, 0)
                checked = request if address.version == 6 else request[:2] + checksum(request) + request[4:]
                sockets[address.version].sendto(checked, (str(address), 0))
            for version, sock in sockets.items():
                waited = {str(address) for address in some if address.version == version}
                with contextlib.suppress(TimeoutError):
                    while waited:
                        waited.discard(sock.recvfrom(1 << 12)[1][0])
                if waited:
                    return waited
    return set()


def checksum(raw):
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
