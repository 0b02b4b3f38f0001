"""The node's datapath brought up, adopted, found damaged and repaired; and removed without a trace."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from ipaddress import ip_address, ip_network

import pytest

from fast.datapath.bpf.layout import ClusterPod, DevFlag, Device, Kind, LocalPodFlag
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.datapath_config import DatapathConfig
from fast.datapath.netlink import Netlink
from fast.datapath.node.node_datapath import NodeDatapath
from fast.datapath.pod.device_programs import Attachments, DeviceKind
from fast.datapath.pod.identity import EndpointSpec
from fast.datapath.repair import RepairKind
from fast.errors import DatapathError, MapFull
from fast.net import Mac
from kernel import traffic
from kernel.fastlab import POD_SUBNETS, Pod, attach_pods, cluster, counted, node_ip
from kernel.lab import underlay

ROUTE = "10.244.0.0/16 via 169.254.1.1 dev fast_vxlan"


@pytest.fixture(scope="module", params=["vxlan", "native"])
def made(request):
    with cluster(routing=request.param) as found:
        a, _, c, _ = attach_pods(found, 2)
        traffic.learn_path_mtu(a, c.ip6)
        yield found


def kinds(node):
    return {repair.kind for repair in node.call(node.datapath.verify)}


def test_a_node_that_is_as_it_should_be_needs_no_repair(made):
    for node in made.nodes:
        assert node.call(node.datapath.verify) == []


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("ip link del fast_vxlan", RepairKind.TUNNEL_DEVICE),
        ("ip link set fast_vxlan down", RepairKind.TUNNEL_DEVICE),
        ("ip link set fast_vxlan mtu 1400", RepairKind.TUNNEL_DEVICE),
        ("ip link set fast_vxlan address 02:00:00:00:00:01", RepairKind.TUNNEL_DEVICE),
        ("ip addr flush dev fast_vxlan", RepairKind.TUNNEL_DEVICE),
        (f"ip route del {ROUTE}", RepairKind.ROUTE),
        ("ip route flush table 117", RepairKind.ROUTE),
        ("ip rule del from 10.244.0.0/16", RepairKind.ROUTE),
        ("ip -6 route del fd00:244::/64", RepairKind.ROUTE),
        ("nft flush ruleset", RepairKind.FIREWALL),
        ("nft flush chain inet fast source_nat", RepairKind.FIREWALL),
        ("nft add element inet fast pods4 '{ 8.8.8.8 }'", RepairKind.FIREWALL),
        ("sysctl -qw net.ipv4.ip_forward=0", RepairKind.SYSCTL),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", RepairKind.SYSCTL),
        ("sysctl -qw net.ipv4.conf.fast_vxlan.rp_filter=1", RepairKind.SYSCTL),
        ("rm /sys/fs/bpf/fast/links/*fast_from_overlay", RepairKind.PROGRAMS),
        ("rm /sys/fs/bpf/fast/maps/fast_local_pods", RepairKind.PIN),
        ("iptables-nft -P FORWARD DROP", RepairKind.FORWARD_POLICY),
        ("iptables-legacy -P FORWARD DROP", RepairKind.FORWARD_POLICY),
        ("ip6tables-nft -P FORWARD DROP", RepairKind.FORWARD_POLICY),
        ("iptables-nft -F FORWARD; iptables-legacy -F FORWARD", RepairKind.FORWARD_POLICY),
    ],
)
def test_what_was_damaged_is_mended_and_told(made, damage, kind):
    node = made.nodes[0]
    assert kinds(node) == set()
    node.run(damage)
    assert kind in kinds(node)
    assert_whole(made)


def assert_whole(made):
    """Nothing is left to be repaired, and pods talk, on the fast path and over the stack."""
    node, other = made.nodes
    assert kinds(node) == set()
    a, b, c = node.pods[0], node.pods[1], other.pods[0]
    for address in (b.ip, b.ip6, c.ip, c.ip6):
        traffic.ping(a, address, count=1)
        traffic.ping(a, address, 4000, count=1)  # over the stack


def test_natively_routed_the_lost_program_of_the_underlay_is_put_back():
    with cluster(routing="native") as made:
        a, c = attach_pods(made, 1)
        here, there = made.nodes
        arrived = Reason.FORWARD_LOCAL_POD, PacketDirection.FROM_UNDERLAY
        here.run("rm /sys/fs/bpf/fast/links/*fast_from_underlay")
        (grown,) = counted([here], traffic.ping, a, c.ip)
        assert arrived not in grown, "it still runs"
        assert kinds(here) == {RepairKind.PROGRAMS}
        (grown,) = counted([here], traffic.ping, a, c.ip)
        assert arrived in grown
        assert kinds(here) == kinds(there) == set()


@pytest.mark.parametrize("role", list(Device))
@pytest.mark.parametrize("change", [{"ifindex": 1}, {"mtu": 600}, {"flags": DevFlag(2)}], ids=str)
def test_a_changed_device_in_the_map_is_mended(made, role, change):
    node = made.nodes[0]
    devices = node.datapath._up().devices
    right = node.call(devices.get, role)
    node.call(devices.put, role, dataclasses.replace(right, **change))
    assert kinds(node) == {RepairKind.LOCAL_DEV}
    assert node.call(devices.get, role) == right
    assert_whole(made)


@pytest.mark.parametrize(
    "change",
    [
        {"pod_mac": Mac.derived("other")},
        {"host_mac": Mac.derived("other")},
        {"ifindex": 9999},
        {"ifindex": "the other pod's"},
    ],
    ids=str,
)
def test_a_changed_map_entry_of_an_endpoint_is_mended(made, change):
    node = made.nodes[0]
    pod, other = node.pods
    if change.get("ifindex") == "the other pod's":
        change = {"ifindex": other.endpoint.ifindex}
    entries = node.datapath._up().loaded.local_pods
    right = node.call(entries.get, pod.ip)
    node.call(entries.put, pod.ip, dataclasses.replace(right, **change))
    assert RepairKind.ENDPOINT in kinds(node)
    assert node.call(entries.get, pod.ip) == right
    assert_whole(made)


@pytest.mark.parametrize("command", ["iptables-nft", "iptables-legacy"])
def test_what_an_administrators_rule_drops_stays_dropped_where_the_policy_is_to_drop(made, command):
    node = made.nodes[0]
    pod = node.pods[0]
    node.run(f"{command} -F FORWARD; {command} -P FORWARD DROP")
    node.run(f"{command} -A FORWARD -d {made.outside_ip} -p icmp -j DROP")
    assert RepairKind.FORWARD_POLICY in kinds(node)
    assert not traffic.reaches(traffic.ping, pod, made.outside_ip)
    node.run(f"{command} -D FORWARD -d {made.outside_ip} -p icmp -j DROP")
    traffic.ping(pod, made.outside_ip)
    node.run(f"{command} -P FORWARD ACCEPT; {command} -F FORWARD")


def test_the_tunnel_device_is_down_until_its_programs_run(made, monkeypatch):
    node = made.nodes[0]
    seen = []
    ensure = Attachments.ensure

    def look_and_ensure(self, ifindex, kind):
        if kind is DeviceKind.TUNNEL:
            with Netlink() as netlink:
                seen.append(netlink.find_link("fast_vxlan").up)
        ensure(self, ifindex, kind)

    monkeypatch.setattr(Attachments, "ensure", look_and_ensure)
    node.run("ip link del fast_vxlan")
    node.call(node.datapath.verify)
    assert seen == [False]
    node.run("ip link set fast_vxlan down; rm /sys/fs/bpf/fast/links/*fast_from_overlay")
    node.call(node.datapath.verify)
    assert seen == [False, False]


@pytest.mark.parametrize(
    "damage",
    [
        "tc qdisc del dev {} clsact",
        "ip route del 10.244.1.10 dev {}",
        "ip link set {} down",
        "ip link set {} address 02:00:00:00:00:01",
    ],
)
def test_a_damaged_endpoint_is_mended(made, damage):
    node = made.nodes[0]
    pod = node.pods[0]
    node.run(damage.format(pod.endpoint.host_device))
    assert RepairKind.ENDPOINT in kinds(node)
    node.call(node.datapath.check, pod.spec)
    assert kinds(node) == set()


def test_a_lost_map_entry_of_an_endpoint_is_mended(made):
    node = made.nodes[0]
    pod = node.pods[0]
    node.call(lambda: node.datapath._up().loaded.local_pods.delete(pod.ip))
    assert kinds(node) == {RepairKind.ENDPOINT}
    node.call(node.datapath.check, pod.spec)


def shaped_pod(node):
    """A pod that the bandwidth plugin limits: its ingress qdisc stands where clsact would."""
    sandbox = node.machine.sandbox("shaped")
    spec = EndpointSpec("shaped", "eth0", sandbox.path, (ip_address("10.244.1.98"),), via_stack=True)
    endpoint = node.call(node.datapath.attach, spec)
    node.run(f"tc qdisc add dev {endpoint.host_device} handle ffff: ingress")
    pod = Pod(node, "shaped", sandbox, spec, endpoint)
    node.pods.append(pod)
    return pod


@pytest.mark.parametrize(
    "damage", ["ip route del 10.244.1.98", "rm /sys/fs/bpf/fast/links/{index}-*", "its entry"]
)
def test_a_shaped_pod_that_is_mended_stays_shaped_and_checked(made, damage):
    node = made.nodes[0]
    pod = shaped_pod(node)
    made.sync()
    if damage == "its entry":
        node.call(lambda: node.datapath._up().loaded.local_pods.delete(pod.ip))
    else:
        node.run(damage.format(index=pod.endpoint.ifindex))
    assert RepairKind.ENDPOINT in kinds(node)
    assert kinds(node) == set()
    assert (
        node.call(lambda: node.datapath._up().loaded.local_pods.get(pod.ip)).flags == LocalPodFlag.VIA_STACK
    )
    before = node.count(Reason.DROP_SPOOFED_ADDRESS)
    pod.run("ip addr add 10.244.1.200/32 dev eth0; ping -c 1 -W 0.2 -I 10.244.1.200 10.244.1.10 || true")
    assert node.count(Reason.DROP_SPOOFED_ADDRESS) > before
    traffic.ping(pod, node.pods[0].ip)
    node.detach(pod)
    made.sync()


@pytest.mark.parametrize("came_between", ["attach", "detach"])
def test_a_pod_that_comes_or_goes_while_the_node_is_checked_is_no_damage(made, came_between, monkeypatch):
    node = made.nodes[0]
    endpoints = node.datapath._up().endpoints
    pods = [] if came_between == "attach" else [node.attach("between", "10.244.1.97")]

    def change():
        if came_between == "attach":
            pods.append(node.attach("between", "10.244.1.97"))
        else:
            node.detach(pods.pop())

    is_wrong = endpoints._is_wrong
    looks = []

    def look(*arguments):
        # The first look at anything: what was listed so far is of before the change.
        if not looks:
            looks.append(threading.Thread(target=change))
            looks[0].start()
            looks[0].join()
        return is_wrong(*arguments)

    monkeypatch.setattr(endpoints, "_is_wrong", look)
    assert kinds(node) == set()
    assert looks
    for pod in pods:
        node.detach(pod)


def test_an_entry_whose_device_is_gone_is_removed(made):
    node = made.nodes[0]
    pod = node.attach("gone", "10.244.1.99")
    node.run(f"ip link del {pod.endpoint.host_device}")
    node.pods.remove(pod)
    assert RepairKind.STALE_ENTRY in kinds(node)
    assert kinds(node) == set()


def test_the_tunnel_survives_a_change_of_the_underlays_mtu(made):
    node, other = made.nodes
    node.run("ip link set u0 mtu 1400")
    assert {RepairKind.TUNNEL_DEVICE, RepairKind.LOCAL_DEV} <= kinds(node)
    overhead = 0 if node.config.routing == "native" else 50
    assert node.datapath.pod_mtu == 1400 - overhead
    traffic.ping(node.pods[0], other.pods[0].ip, 1000)
    node.run("ip link set u0 mtu 1500")
    kinds(node)
    assert node.datapath.pod_mtu == 1500 - overhead


def test_pod_subnets_may_change_while_it_runs(made):
    node = made.nodes[0]
    node.call(node.datapath.set_pod_subnets, [*POD_SUBNETS, ip_network("172.20.0.0/24")])
    assert "172.20.0.0/24 via 169.254.1.1 dev fast_vxlan" in node.run("ip route")
    assert "172.20.0.0/24" in node.run("nft list set inet fast pods4")
    node.call(node.datapath.set_pod_subnets, POD_SUBNETS)
    assert "172.20.0.0/24" not in node.run("ip route; nft list ruleset; ip rule")


def test_a_pod_subnet_that_is_the_nodes_own_network_does_not_take_its_route(made):
    node = made.nodes[0]
    node.call(node.datapath.set_pod_subnets, [*POD_SUBNETS, ip_network("192.168.77.0/24")])
    assert "192.168.77.0/24 dev u0" in node.run("ip route")
    traffic.ping(node, made.nodes[1].ip)
    node.call(node.datapath.set_pod_subnets, POD_SUBNETS)


@pytest.mark.parametrize(
    ("route", "whose"),
    [
        ("10.244.0.0/16 via 192.168.77.100 metric 20", "fast_vxlan"),  # as of a routing daemon
        ("10.244.0.0/16 dev u0 metric 100", "u0"),  # as NetworkManager writes a NIC's own network
        ("fd00:244::/64 dev u0 metric 100", "u0"),
        ("fd00:244::/64 via fd77::64 metric 2000", "fast_vxlan"),
    ],
)
def test_a_pod_subnet_that_is_routed_a_second_time_later_is_fasts_unless_the_other_goes_before(
    made, route, whose
):
    node = made.nodes[0]
    subnet = route.partition(" ")[0]
    ip = "ip -6" if ":" in subnet else "ip"
    node.run(f"{ip} route add {route}")
    try:
        node.call(node.datapath.verify)
        routes = node.run(f"{ip} route show {subnet}").splitlines()
        assert f"dev {whose}" in routes[0]
        assert any("fast_vxlan" in line for line in routes) == (whose == "fast_vxlan")
    finally:
        node.run(f"{ip} route del {route}")
    node.call(node.datapath.verify)
    traffic.ping(node, made.nodes[1].pods[0].ip)
    traffic.ping(node, made.nodes[1].pods[0].ip6)


@pytest.mark.parametrize(
    "route",
    [
        "172.20.0.0/24 nexthop via 192.168.77.100 nexthop via 192.168.77.101",
        "blackhole 172.20.0.0/24",
        "172.20.0.0/24 via 192.168.77.100 metric 20",
    ],
)
def test_a_new_pod_subnet_that_leads_elsewhere_already_is_left_alone(made, route):
    node = made.nodes[0]
    node.run(f"ip route add {route}")
    before = node.run("ip route show 172.20.0.0/24")
    node.call(node.datapath.set_pod_subnets, [*POD_SUBNETS, ip_network("172.20.0.0/24")])
    assert node.run("ip route show 172.20.0.0/24") == before
    node.run("ip route del 172.20.0.0/24")
    node.call(node.datapath.set_pod_subnets, POD_SUBNETS)


def test_nodes_that_come_and_go_are_routed_to_and_no_longer(made):
    node = made.nodes[0]
    address = ip_address("192.168.77.50")
    node.call(node.datapath.upsert_cluster, [(address, ClusterPod(address, Kind.NODE))])
    assert "192.168.77.50 via 169.254.1.1 dev fast_vxlan" in node.run("ip route show table 117")
    assert node.call(node.datapath.remove_cluster, [address]) == 1
    assert "192.168.77.50" not in node.run("ip route show table 117")


def test_a_sync_writes_only_what_differs_and_never_removes_the_node_itself(made):
    node = made.nodes[0]
    assert not node.call(node.datapath.sync_cluster, made.entries())
    result = node.call(node.datapath.sync_cluster, {})
    assert (result.added, result.changed) == (0, 0)
    assert node.call(lambda: dict(node.datapath._up().loaded.cluster_pods.items())).keys() == {
        node.ip,
        node.ip6,
    }
    result = node.call(node.datapath.sync_cluster, made.entries())
    assert result.added == len(made.entries()) - 2


def test_a_full_map_leaves_out_later_pods_and_what_was_there_stays(made):
    node = made.nodes[0]
    many = {ip_address("10.244.128.0") + n: ClusterPod(made.nodes[1].ip) for n in range(5000)}
    result = node.call(node.datapath.sync_cluster, made.entries() | many)
    assert 0 < result.left_out < len(many)
    traffic.ping(node.pods[0], made.nodes[1].pods[0].ip)
    with pytest.raises(MapFull, match="fast_cluster_pods"):
        node.call(node.datapath.upsert_cluster, many.items())
    made.sync()
    traffic.ping(node.pods[0], made.nodes[1].pods[0].ip)


def test_the_devices_in_the_map_are_the_nodes(made):
    node = made.nodes[0]
    devices = node.call(node.datapath._up().devices.by_role)
    found = {link["ifname"]: link for link in json.loads(node.run("ip -j link"))}
    assert devices[Device.TUNNEL].ifindex == found["fast_vxlan"]["ifindex"]
    assert devices[Device.UNDERLAY].ifindex == found["u0"]["ifindex"]
    assert (devices[Device.TUNNEL].mtu, devices[Device.UNDERLAY].mtu) == (1450, 1500)


def alone(net, number=1, **changes):
    """A machine, and a datapath for it that is not up."""
    machine = net.join(f"n{number}", number)
    config = DatapathConfig(node_name=f"n{number}", node_ip=node_ip(number), pod_subnets=POD_SUBNETS)
    return machine, NodeDatapath(dataclasses.replace(config, **changes))


@pytest.fixture
def net():
    with underlay() as found:
        yield found


def test_a_node_without_the_nodes_address_says_so(net):
    machine, datapath = alone(net, node_ip=ip_address("192.168.77.9"))
    with pytest.raises(
        DatapathError, match=r"no network device of this node has the node's address 192\.168\.77\.9"
    ):
        machine.call(datapath.ensure)


def test_a_tunnel_port_that_another_vxlan_device_has_is_named_with_the_device_and_nothing_is_left(net):
    machine, datapath = alone(net)
    machine.run("ip link add flannel.1 type vxlan id 1 dstport 8479 dev u0; ip link set flannel.1 up")
    with pytest.raises(DatapathError, match=r"UDP port 8479.*VXLAN device flannel\.1"):
        machine.call(datapath.ensure)
    assert "fast_vxlan" not in machine.run("ip link")
    machine.run("ip link del flannel.1")
    machine.call(datapath.ensure)


def test_a_tunnel_port_that_a_process_has_is_named(net):
    machine, datapath = alone(net)
    with machine.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 8479))
        with pytest.raises(DatapathError, match=r"UDP port 8479.*a socket of some process"):
            machine.call(datapath.ensure)


def test_a_device_of_the_tunnels_name_that_is_none_is_replaced(net):
    machine, datapath = alone(net)
    machine.run("ip link add fast_vxlan type vxlan id 7 dstport 4789 dev u0")
    machine.call(datapath.ensure)
    assert "external" in machine.run("ip -d link show fast_vxlan")


def test_another_port_is_taken_up_at_the_next_start(net):
    machine, datapath = alone(net)
    machine.call(datapath.ensure)
    changed = NodeDatapath(dataclasses.replace(datapath.config, tunnel_port=9999))
    machine.call(changed.ensure)
    assert "dstport 9999" in machine.run("ip -d link show fast_vxlan")
    assert "udp dport 9999" in machine.run("nft list ruleset")
    assert machine.call(changed.verify) == []


def test_ipv4_only_pods_leave_ipv6_forwarding_and_router_advertisements_alone(net):
    machine, datapath = alone(net, pod_subnets=(ip_network("10.244.0.0/16"),))
    before = machine.run("sysctl -n net.ipv6.conf.all.forwarding net.ipv6.conf.u0.accept_ra")
    machine.call(datapath.ensure)
    assert machine.run("sysctl -n net.ipv6.conf.all.forwarding net.ipv6.conf.u0.accept_ra") == before


def test_ipv6_pods_keep_the_nodes_router_advertisements(net):
    machine, datapath = alone(net)
    machine.call(datapath.ensure)
    assert machine.run("sysctl -n net.ipv6.conf.all.forwarding net.ipv6.conf.u0.accept_ra").split() == [
        "1",
        "2",
    ]


def test_cleaning_leaves_nothing_of_fast_behind_and_may_be_repeated(net):
    machine, datapath = alone(net)

    def state():
        return machine.run(
            "ip -br link; ip route; ip -6 route | grep -v ^fe80 | sort; ip rule; ip -6 rule;"
            "ip route show table 117 || true;"
            "nft list ruleset; iptables-nft -S; iptables-legacy -S; ls /sys/fs/bpf; conntrack -L 2>/dev/null || true"
        )

    machine.run(
        "iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP; iptables-nft -P OUTPUT ACCEPT"
    )
    before = state()
    machine.call(datapath.ensure)
    sandbox = machine.sandbox("p")
    machine.call(datapath.attach, EndpointSpec("c", "eth0", sandbox.path, (ip_address("10.244.1.1"),)))
    assert state() != before
    machine.call(datapath.clean)
    assert state() == before
    machine.call(datapath.clean)
    machine.call(datapath.ensure)  # and it comes up again
    machine.call(NodeDatapath(datapath.config).clean)  # by a process that never brought it up
    assert state() == before


def test_a_restarted_agent_that_does_not_know_the_pools_yet_keeps_routes_and_masquerade(net):
    machine, datapath = alone(net)
    machine.call(datapath.ensure)
    before = machine.run("ip route; ip rule; nft list ruleset")
    assert "10.244.0.0/16 via 169.254.1.1 dev fast_vxlan" in before
    restarted = NodeDatapath(dataclasses.replace(datapath.config, pod_subnets=()))
    machine.call(restarted.ensure)
    assert machine.run("ip route; ip rule; nft list ruleset") == before
    machine.call(restarted.set_pod_subnets, ())  # now it knows: there are none
    assert "10.244." not in machine.run("ip route; ip rule; nft list ruleset")
