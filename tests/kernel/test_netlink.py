"""Fast's rtnetlink against the kernel, with iproute2 as the oracle."""

import errno
import json
import socket
from ipaddress import ip_address, ip_network

import pytest

from fast.datapath.netlink import Netlink, requests, wire
from fast.datapath.netns import Netns, run_in
from fast.errors import NetlinkError, NetnsGone
from fast.net import Mac
from kernel.lab import Machine

HOST_MAC, POD_MAC = Mac.derived("host"), Mac.derived("pod")


@pytest.fixture
def machine():
    made = Machine("n1", workers=4)
    yield made
    made.close()


def ip(place, arguments):
    return json.loads(place.run(f"ip -j -d {arguments}"))


def make_veth(machine, sandbox, name="fastabc"):
    def make():
        with Netns.open(sandbox.path) as netns, Netlink() as netlink:
            netlink.execute(
                requests.add_veth(name, HOST_MAC, "eth0", POD_MAC, netns.fd, 1400),
                requests.set_link(0, name=name, alias="of a test"),
            )
            return netlink.find_link(name)

    return machine.call(make)


def test_a_veth_is_made_with_its_other_end_inside_the_pods_namespace(machine):
    sandbox = machine.sandbox("p")
    link = make_veth(machine, sandbox)
    (host,) = ip(machine, "link show fastabc")
    (pod,) = ip(sandbox, "link show eth0")
    assert (host["address"], host["mtu"], host["ifalias"]) == (str(HOST_MAC), 1400, "of a test")
    assert (pod["address"], pod["mtu"]) == (str(POD_MAC), 1400)
    assert (link.index, link.peer_index, link.up) == (host["ifindex"], pod["ifindex"], True)


def test_addresses_routes_and_neighbours_of_both_families_are_as_iproute2_sees_them(machine):
    sandbox = machine.sandbox("p")
    link = make_veth(machine, sandbox)

    def configure():
        with Netns.open(sandbox.path) as netns, Netlink(netns.fd) as netlink:
            index = link.peer_index
            netlink.execute(
                requests.set_link(index, up=True),
                requests.add_address(index, ip_address("10.0.0.7")),
                requests.add_address(index, ip_address("fd00::7")),
                requests.replace_neighbour(index, ip_address("169.254.1.1"), HOST_MAC),
                requests.replace_route(ip_network("169.254.1.1/32"), index),
                requests.replace_route(ip_network("0.0.0.0/0"), index, gateway=ip_address("169.254.1.1")),
                requests.replace_route(ip_network("::/0"), index, gateway=ip_address("fe80::1")),
                requests.replace_route(ip_network("10.9.0.0/16"), index, mtu=1300),
            )
            return netlink.addresses(index), netlink.routes(index), netlink.neighbours(index)

    addresses, routes, neighbours = machine.call(configure)
    (shown,) = ip(sandbox, "addr show eth0")
    assert {(a["local"], a["prefixlen"]) for a in shown["addr_info"] if a["scope"] == "global"} == {
        ("10.0.0.7", 32),
        ("fd00::7", 128),
    }
    assert {("10.0.0.7", 32), ("fd00::7", 128)} <= {(str(a.address), a.prefix_length) for a in addresses}
    assert {r["dst"] for r in ip(sandbox, "route")} == {"default", "169.254.1.1", "10.9.0.0/16"}
    (metric,) = next(r["metrics"] for r in ip(sandbox, "route") if r["dst"] == "10.9.0.0/16")
    assert metric["mtu"] == 1300
    assert (ip_network("0.0.0.0/0"), ip_address("169.254.1.1")) in {
        (r.destination, r.gateway) for r in routes
    }
    assert (ip_network("::/0"), ip_address("fe80::1")) in {(r.destination, r.gateway) for r in routes}
    assert (ip_address("169.254.1.1"), HOST_MAC, True) in {
        (n.address, n.mac, n.permanent) for n in neighbours
    }


def test_a_refused_request_says_what_was_asked_and_what_the_kernel_said(machine):
    def refused():
        with Netlink() as netlink:
            netlink.execute(
                requests.set_link(1, up=True),
                requests.replace_route(ip_network("10.0.0.0/8"), 1, gateway=ip_address("10.1.1.1")),
            )

    with pytest.raises(NetlinkError, match=r"set route 10.0.0.0/8 via 10.1.1.1.*gateway") as caught:
        machine.call(refused)
    assert caught.value.errno


def test_the_requests_after_a_failed_one_are_still_carried_out_and_the_socket_stays_usable(machine):
    def run():
        with Netlink() as netlink:
            with pytest.raises(NetlinkError, match="set device nowhere"):
                netlink.execute(
                    requests.set_link(0, name="nowhere", up=True),
                    requests.add_address(1, ip_address("10.0.0.1")),
                )
            return netlink.addresses(1), netlink.find_link("nowhere")

    addresses, nowhere = machine.call(run)
    assert ip_address("10.0.0.1") in {address.address for address in addresses}
    assert nowhere is None


def test_a_batch_larger_than_the_sockets_buffer_is_carried_out_wholly(machine):
    def run():
        with Netlink() as netlink:
            netlink.execute(*(requests.add_address(1, ip_address("10.0.0.1") + n) for n in range(1500)))
            return len(netlink.addresses(1))

    assert machine.call(run) >= 1500


def test_what_is_deleted_already_may_be_deleted_again(machine):
    def run():
        with Netlink() as netlink:
            netlink.execute(
                requests.delete_link(0, "nowhere"),
                requests.delete_link(4711, "nowhere"),
                requests.delete_route(ip_network("10.0.0.0/8"), 1),
            )

    machine.call(run)


def test_a_path_that_is_no_namespace_or_no_longer_one_is_told_apart_from_one_that_is(machine):
    sandbox = machine.sandbox("p")

    def inode():
        with Netns.open(sandbox.path) as netns:
            return netns.inode

    assert machine.call(inode)
    sandbox.delete()
    for path in (sandbox.path, "/proc/self/ns/mnt", "/etc/passwd", "/nowhere"):
        with pytest.raises(NetnsGone, match=path):
            machine.call(Netns.open, path)


def test_what_a_function_run_in_a_namespace_raises_reaches_the_caller(machine):
    sandbox = machine.sandbox("p")

    def fail():
        raise LookupError("inside")

    def run():
        with Netns.open(sandbox.path) as netns:
            run_in(netns.fd, fail)

    with pytest.raises(LookupError, match="inside"):
        machine.call(run)


def test_a_rule_with_bits_of_a_host_is_read_as_its_network(machine):
    def rules():
        with Netlink() as netlink:
            return netlink.rules()

    machine.run("ip rule add from 10.1.2.3/16 table 55; ip -6 rule add from fd00::7/64 table 55")
    sources = {rule.source for rule in machine.call(rules) if rule.table == 55}
    assert sources == {ip_network("10.1.0.0/16"), ip_network("fd00::/64")}


def test_a_kernel_without_ipv6_has_no_rules_of_it_and_other_failures_are_raised(machine, monkeypatch):
    dump = Netlink.dump

    def refusing(code):
        def dump_or_refuse(self, request):
            if request.kind == wire.RTM_GETRULE and request.body[0] == socket.AF_INET6:
                raise NetlinkError("no", code)
            return dump(self, request)

        return dump_or_refuse

    def rules():
        with Netlink() as netlink:
            return netlink.rules()

    machine.run("ip rule add from 10.1.0.0/16 table 55")
    monkeypatch.setattr(Netlink, "dump", refusing(errno.EAFNOSUPPORT))
    assert [rule.table for rule in machine.call(rules)] == [55]
    monkeypatch.setattr(Netlink, "dump", refusing(errno.EPERM))
    with pytest.raises(NetlinkError):
        machine.call(rules)


def test_a_refused_dump_says_what_the_kernel_said(machine):
    def refused():
        with Netlink() as netlink:
            netlink.dump(requests.dump_routes(4, table=4711))

    with pytest.raises(NetlinkError, match=r"list IPv4 routes: .* \(.*table does not exist\)"):
        machine.call(refused)
