"""What must not get through, sent for real, and the named reason it is counted under."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest
from prometheus_client import CollectorRegistry

from fast.agent.node.packet_metrics import PacketCollector
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.datapath_config import DEFAULT_TUNNEL_PORT
from fast.net import Mac
from kernel import traffic
from kernel.bpf.packets import ETH_ARP, ETH_IPV6, ICMPV6, Ip, arp, discovery, icmp, tcp
from kernel.fastlab import attach_pods, cluster, ip_of
from kernel.lab import eventually
from kernel.services import SERVICE_PORT, Service, install, vip

PORT = 8080
ETH_P_ALL = 3


@pytest.fixture(scope="module", params=["vxlan", "native"])
def made(request):
    with cluster(routing=request.param) as found:
        attach_pods(found, 2)
        yield found


def checksum(raw):
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(source, destination, payload=b"", protocol=17):
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, source.packed, destination.packed
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(payload=b"x", source=1234, destination=PORT):
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def frame(source_mac, destination_mac, payload, ethertype=0x0800):
    return bytes(destination_mac) + bytes(source_mac) + struct.pack("!H", ethertype) + payload


def send(place, device, raw):
    def write():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL) as sock:
            sock.bind((device, 0))
            sock.send(raw)

    place.call(write)


def counted(node, reason, action, direction=None):
    """Do it, and give by how much the count grew; waits until it does."""
    before = node.count(reason, direction)
    action()
    return eventually(lambda: node.count(reason, direction) - before, 3)


def from_pod(pod, payload, ethertype=0x0800, source_mac=None):
    raw = frame(source_mac or pod.endpoint.pod_mac, pod.endpoint.host_mac, payload, ethertype)
    return lambda: send(pod, "eth0", raw)


def test_a_source_address_that_is_not_the_pods_is_refused(made):
    here, there = made.nodes
    a, b = here.pods
    for source in (b.ip, there.pods[0].ip, here.ip, made.outside_ip):
        assert counted(here, Reason.DROP_SPOOFED_ADDRESS, from_pod(a, ipv4(source, b.ip, udp())))


def test_a_source_mac_that_is_not_the_pods_is_refused(made):
    a, b = made.nodes[0].pods
    mac = Mac.parse("02:00:00:00:00:66")
    assert counted(
        made.nodes[0], Reason.DROP_SPOOFED_MAC, from_pod(a, ipv4(a.ip, b.ip, udp()), source_mac=mac)
    )


def test_a_pods_packet_to_a_tunnel_port_is_refused_on_every_address_of_a_node(made):
    here, there = made.nodes
    a = here.pods[0]
    packet = udp(destination=DEFAULT_TUNNEL_PORT)
    for target in (here.ip, there.ip, made.outside_ip):
        assert counted(here, Reason.DROP_TUNNEL_PORT, from_pod(a, ipv4(a.ip, target, packet)))


def refused_in_metrics(node, reason="drop_tunnel_port_translated", direction="from_pod"):
    """What the agent's metrics say that the firewall refused, in packets."""
    registry = CollectorRegistry()
    registry.register(PacketCollector(node.datapath.counters, node.datapath.refused_by_firewall))
    labels = {"reason": reason, "direction": direction, "verdict": "drop"}
    return node.call(registry.get_sample_value, "fast_packets_total", labels)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pods_packet_that_is_translated_to_a_tunnel_port_is_refused_by_the_firewall_and_in_the_metrics(
    made, version
):
    here, family = made.nodes[0], socket.AF_INET if version == 4 else socket.AF_INET6
    services = [
        Service(vip(90 + number, version), ip_of(node, version), backend_port=DEFAULT_TUNNEL_PORT)
        for number, node in enumerate(made.nodes)
    ]
    before = refused_in_metrics(here)
    install(here, services, "nft")
    try:
        for count, service in enumerate(services, 1):
            with here.pods[0].call(socket.socket, family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", (str(service.vip), SERVICE_PORT))
            eventually(lambda expected=before + count: refused_in_metrics(here) == expected)
    finally:
        here.run("nft delete table inet kube_proxy")


def test_an_ethertype_that_is_neither_ip_nor_arp_is_dropped(made):
    a = made.nodes[0].pods[0]
    assert counted(made.nodes[0], Reason.DROP_UNSUPPORTED_ETHERTYPE, from_pod(a, bytes(50), ethertype=0x88CC))


def test_a_header_that_is_cut_off_is_dropped(made):
    a, b = made.nodes[0].pods
    whole = ipv4(a.ip, b.ip, udp())
    assert counted(made.nodes[0], Reason.DROP_TRUNCATED, from_pod(a, whole[:22]))


def test_a_router_advertisement_from_a_pod_is_dropped(made):
    a = made.nodes[0].pods[0]
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    source, everybody = b"\xfe\x80" + bytes(13) + b"\x01", b"\xff\x02" + bytes(13) + b"\x01"
    packet = struct.pack("!IHBB", 6 << 28, len(advertisement), 58, 255) + source + everybody + advertisement
    assert counted(made.nodes[0], Reason.DROP_ROGUE_ROUTER, from_pod(a, packet, ethertype=0x86DD))


def test_an_address_of_the_pod_subnets_that_nobody_has_is_counted(made):
    here = made.nodes[0]
    a = here.pods[0]
    nobody = a.ip + 200
    action = from_pod(a, ipv4(a.ip, nobody, udp()))
    assert counted(here, Reason.DROP_UNKNOWN_DESTINATION, action, PacketDirection.TO_OVERLAY)


def vxlan(inner, vni=1):
    return struct.pack("!II", 1 << 27, vni << 8) + inner


def encapsulated(sender, target, inner, vni=1):
    def action():
        with sender.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(vxlan(inner, vni), (str(target.ip), DEFAULT_TUNNEL_PORT))

    return action


@pytest.fixture
def inner(made):
    """A packet for a pod of the first node, as its source's node would send it: give the source's address."""
    here = made.nodes[0]
    tunnel = Mac.derived(f"{here.config.node_name} {here.config.node_ip}")
    return lambda source: frame(Mac.derived("peer"), tunnel, ipv4(source, here.pods[0].ip, udp()))


def test_a_vxlan_packet_from_somebody_who_is_no_node_is_refused(made, inner):
    here, there = made.nodes
    action = encapsulated(made.outside, here, inner(there.pods[0].ip))
    assert counted(here, Reason.DROP_UNKNOWN_SENDER, action)


def test_a_vxlan_packet_from_a_node_whose_inner_source_lives_elsewhere_is_refused(made, inner):
    here, there = made.nodes
    for source in (here.pods[1].ip, here.ip, made.outside_ip):
        assert counted(here, Reason.DROP_INNER_SOURCE, encapsulated(there, here, inner(source)))


def test_a_vxlan_packet_of_another_network_is_refused(made, inner):
    here, there = made.nodes
    # The device itself takes any identifier: it is in collect-metadata mode.
    assert counted(here, Reason.DROP_WRONG_VNI, encapsulated(there, here, inner(there.pods[0].ip), vni=9))


def test_the_same_packet_from_the_right_node_arrives(made, inner):
    here, there = made.nodes
    action = encapsulated(there, here, inner(there.pods[0].ip))
    assert counted(here, Reason.FORWARD_LOCAL_POD, action, PacketDirection.FROM_OVERLAY)


def test_what_came_out_of_the_tunnel_does_not_go_back_into_it(made):
    here, there = made.nodes
    tunnel = Mac.derived(f"{here.config.node_name} {here.config.node_ip}")
    raw = frame(Mac.derived("peer"), tunnel, ipv4(there.pods[0].ip, there.pods[1].ip, udp()))
    assert counted(here, Reason.DROP_UNKNOWN_DESTINATION, encapsulated(there, here, raw))


def test_a_multicast_of_a_pod_does_not_leave_its_node(made):
    here, there = made.nodes
    a = here.pods[0]
    # Only what arrives: the kernel's own MLD reports want to leave by the tunnel device at any time.
    arrived = (Reason.DROP_NOT_UNICAST, PacketDirection.FROM_OVERLAY)
    before = there.count(*arrived)
    assert counted(here, Reason.STACK_LINK_LOCAL, from_pod(a, ipv4(a.ip, ip_address("239.1.1.1"), udp())))
    assert there.count(*arrived) == before


def test_after_all_of_that_the_pods_still_talk(made):
    here, there = made.nodes
    traffic.ping(here.pods[0], there.pods[0].ip)
    traffic.ping(here.pods[0], here.pods[1].ip6)


def test_pods_may_use_the_tunnels_port_among_themselves_also_over_the_stack(made):
    a, _, c, _ = made.pods
    for address in (c.ip, c.ip6):
        with traffic.server(c, DEFAULT_TUNNEL_PORT):
            for size in (100, traffic.FRAGMENTED_BYTES):
                traffic.udp(a, address, DEFAULT_TUNNEL_PORT, size, attempts=3)  # IPv6 learns its path


# In another's name.


def neighbours(node):
    """The addresses in the node's neighbour table."""
    return {line.split()[0] for line in node.run("ip -4 neigh; ip -6 neigh").splitlines()}


def test_forged_arp_and_neighbour_discovery_leave_no_entry_on_the_node_or_in_another_pod(made):
    here, (a, b) = made.nodes[0], made.nodes[0].pods
    mac, raws, names = a.endpoint.pod_mac, [], set()
    for number in range(200):
        forged = ip_address("10.244.200.0") + number
        raws.append(frame(mac, b"\xff" * 6, arp(1, mac, forged, here.ip), ETH_ARP))
        forged6 = ip_address(f"fe80::{number + 0x1000:x}")
        names |= {str(forged), str(forged6)}
        solicitation = Ip(forged6, ip_address("ff02::1"), ICMPV6, discovery(135, here.ip6, (1, mac)))
        raws.append(frame(mac, b"\x33\x33\0\0\0\1", bytes(solicitation), ETH_IPV6))
    dropped = here.count(Reason.DROP_NEIGHBOUR) + here.count(Reason.DROP_SPOOFED_ADDRESS)
    for raw in raws:
        send(a, "eth0", raw)
    eventually(
        lambda: (
            here.count(Reason.DROP_NEIGHBOUR) + here.count(Reason.DROP_SPOOFED_ADDRESS) == dropped + len(raws)
        )
    )
    assert not (neighbours(here) | neighbours(b)) & names


def test_a_pod_that_scans_a_pool_leaves_one_neighbour_entry_on_its_node(made):
    here, a = made.nodes[0], made.nodes[0].pods[0]
    before = len(neighbours(here))
    unknown = here.count(Reason.DROP_UNKNOWN_DESTINATION)

    def scan():
        for version, prefix in ((4, "10.244.{}.{}"), (6, "fd00:244::{}:{}")):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                for number in range(300):
                    sock.sendto(b"x", (prefix.format(100 + number // 250, 1 + number % 250), 9))

    a.call(scan)
    eventually(lambda: here.count(Reason.DROP_UNKNOWN_DESTINATION) >= unknown + 600)
    assert len(neighbours(here)) <= before + 2  # the gateway, by each family


def cached_mtu(node, address):
    return "mtu" in node.run(f"ip route get {address}")


@pytest.mark.parametrize("version", [4, 6])
def test_a_forged_error_about_a_path_changes_no_path_of_the_nodes(made, version):
    here, there = made.nodes
    a = here.pods[0]
    node, other = ip_of(here, version), ip_of(there, version)
    quoted = bytes(Ip(node, other, 6, tcp(1000, 6443)))
    protocol, kind, code = (1, 3, 4) if version == 4 else (ICMPV6, 2, 0)
    rest = struct.pack("!HH", 0, 600) if version == 4 else struct.pack("!I", 1280)
    body = icmp(kind, code, rest, quoted)
    if version == 4:
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        packet = ipv4(a.ip, here.ip, body, 1)
    else:
        packet = bytes(Ip(a.ip6, here.ip6, protocol, body))
    before = cached_mtu(here, other)
    ethertype = 0x0800 if version == 4 else ETH_IPV6
    assert counted(here, Reason.DROP_ICMP_QUOTE, from_pod(a, packet, ethertype))
    assert cached_mtu(here, other) == before


def test_an_error_about_the_pods_own_flow_still_reaches_the_sender(made):
    a, b = made.nodes[0].pods
    with a.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((str(b.ip), 9))  # where nobody listens: the pod answers "port unreachable"
        sock.settimeout(3)
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


# By other ways than the tunnel.


def test_a_pools_address_that_comes_without_the_tunnel_is_refused(made):
    here, a, c = made.nodes[0], made.nodes[0].pods[0], made.nodes[1].pods[0]
    native, outside = here.config.routing == "native", made.outside
    source, target = (
        Mac.parse(place.run("cat /sys/class/net/u0/address").strip()) for place in (outside, here)
    )
    sources = [c.ip6, ip_address("fd00:244::9:9")] + ([] if native else [c.ip, ip_address("10.244.9.9")])

    def refused():
        by_firewall = refused_in_metrics(here, "drop_untunnelled_source", "from_underlay")
        return by_firewall + here.count(Reason.DROP_UNTUNNELLED)

    for address in sources:
        before = refused()
        if address.version == 4:
            send(outside, "u0", frame(source, target, ipv4(address, a.ip, udp())))
        else:
            send(outside, "u0", frame(source, target, bytes(Ip(address, a.ip6, 17, udp())), ETH_IPV6))
        eventually(lambda expected=before + 1: refused() == expected, 5)


@pytest.mark.parametrize("version", [4, 6])
def test_nobody_outside_reaches_a_tunnel_port_by_a_service(made, version):
    here, there = made.nodes
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    service = Service(
        vip(95, version), ip_of(there, version), node_port=30_009, backend_port=DEFAULT_TUNNEL_PORT
    )
    install(here, [service], "nft")
    before = refused_in_metrics(here)
    try:
        with made.outside.call(socket.socket, family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"\x08\0\0\0\0\0\1\0", (str(ip_of(here, version)), 30_009))
        eventually(lambda: refused_in_metrics(here) == before + 1)
    finally:
        here.run("nft delete table inet kube_proxy")


def test_masquerade_never_takes_the_tunnels_port(made):
    here, a = made.nodes[0], made.nodes[0].pods[0]
    rules = here.run("nft list chain inet fast source_nat")
    ranges = [line for line in rules.splitlines() if "masquerade to" in line]
    assert len(ranges) == 2
    assert all(f":{DEFAULT_TUNNEL_PORT + 1}-65535" in line for line in ranges)
    made.outside.run(
        "nft 'add table ip hold; add chain ip hold in { type filter hook input priority raw; };"
        " add rule ip hold in meta l4proto udp drop'"
    )
    try:

        def spray():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for port in range(1, 2001):
                    sock.sendto(b"", (str(made.outside_ip), port))

        a.call(spray)
        listed = here.run(f"conntrack -L -p udp -s {a.ip} -d {made.outside_ip} 2>/dev/null").splitlines()
        taken = {int(line.rsplit("dport=", 1)[1].split()[0]) for line in listed}
        assert len(taken) > 500
        assert min(taken) > DEFAULT_TUNNEL_PORT
    finally:
        made.outside.run("nft delete table ip hold")
        here.run("conntrack -F 2>/dev/null")


def test_loopback_and_ipv4_mapped_addresses_do_not_leave_a_pod(made):
    here, a = made.nodes[0], made.nodes[0].pods[0]
    assert counted(here, Reason.DROP_LOOPBACK, from_pod(a, ipv4(a.ip, ip_address("127.0.0.1"), udp())))
    mapped = Ip(ip_address(f"::ffff:{a.ip}"), made.nodes[0].pods[1].ip6, 17, udp())
    assert counted(here, Reason.DROP_MAPPED_ADDRESS, from_pod(a, bytes(mapped), ETH_IPV6))
