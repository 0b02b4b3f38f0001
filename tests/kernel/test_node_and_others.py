"""The node's datapath beside others of the node: their commands, rules, routers and networks."""

from __future__ import annotations

import json
import threading
import time
from ipaddress import ip_address

import pytest

from fast.datapath.bpf.layout import ClusterPod
from fast.datapath.node import forward
from fast.datapath.node.kernel_watch import KernelWatch
from fast.datapath.pod.identity import EndpointSpec
from kernel.fastlab import attach_pods, cluster
from kernel.lab import Machine, eventually


@pytest.fixture(scope="module")
def made():
    with cluster() as found:
        attach_pods(found, 1)
        yield found


def test_a_map_write_does_not_wait_for_the_lock_of_another_iptables(made):
    node = made.nodes[0]
    node.run("iptables-legacy -P FORWARD ACCEPT; iptables-legacy -S >/dev/null")
    holder = node.start("flock", "/run/xtables.lock", "sleep", "4")
    try:
        time.sleep(0.2)
        verifying = threading.Thread(target=lambda: node.call(node.datapath.verify))
        verifying.start()
        time.sleep(0.3)
        assert verifying.is_alive(), "the verification waits for the lock"
        begun = time.monotonic()
        entry = ip_address("10.244.2.99"), ClusterPod(made.nodes[1].ip)
        node.call(node.datapath.upsert_cluster, [entry])
        node.call(node.datapath.remove_cluster, [entry[0]])
        assert time.monotonic() - begun < 1
        assert verifying.is_alive()
        verifying.join()
    finally:
        holder.kill()
        holder.wait()


def test_a_verification_starts_no_nft_if_no_rule_changed_and_one_listing_if_others_did(made, monkeypatch):
    node, commands = made.nodes[0], []
    run = forward.call

    def noted(*arguments, **options):
        commands.append(arguments)
        return run(*arguments, **options)

    node.call(node.datapath.verify)
    for module in ("firewall", "forward", "host_command"):
        monkeypatch.setattr(f"fast.datapath.node.{module}.call", noted)
    node.call(node.datapath.verify)
    assert [command for command in commands if command[0] == "nft"] == []
    node.run("nft add table inet somebody")
    node.call(node.datapath.verify)
    assert [command[:3] for command in commands if command[0] == "nft"] == [("nft", "-j", "list")]
    node.run("nft delete table inet somebody")


def test_thousands_of_chains_of_others_cost_a_verification_little(made):
    node = made.nodes[0]

    def seconds():
        begun = time.monotonic()
        node.call(node.datapath.verify)
        return time.monotonic() - begun

    alone = min(seconds() for _ in range(3))
    chains = "".join(
        f"chain service-ABCDEFGH-namespace/name-{i}/tcp/http {{ ip daddr 10.96.0.1 drop\n }}\n"
        for i in range(5000)
    )
    node.run("nft -f -", stdin=f"table ip kube-proxy {{\n{chains}}}\n")
    node.call(node.datapath.verify)
    try:
        assert min(seconds() for _ in range(3)) < alone + 0.5
    finally:
        node.run("nft delete table ip kube-proxy")


@pytest.mark.parametrize(
    ("rules", "undo", "found"),
    [
        (
            "nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority filter + 10;"
            " ct state { established, related } accept; reject with icmpx admin-prohibited; }; }'",
            "nft delete table inet firewalld",
            "inet firewalld filter_FORWARD: reject",
        ),
        (
            "iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
            "iptables-nft -D FORWARD -j REJECT --reject-with icmp-host-prohibited",
            "iptables-nft FORWARD: -j REJECT --reject-with icmp-host-prohibited",
        ),
        (
            "iptables-legacy -A FORWARD -j DROP",
            "iptables-legacy -D FORWARD -j DROP",
            "iptables-legacy FORWARD: -j DROP",
        ),
    ],
)
def test_a_reject_at_the_end_of_a_forward_chain_is_found(made, rules, undo, found):
    node = made.nodes[0]
    assert found not in node.call(forward.find_rejecting_chains)
    node.run(rules)
    try:
        assert found in node.call(forward.find_rejecting_chains)
    finally:
        node.run(undo)


def test_rules_with_a_condition_and_rejects_behind_fasts_accepts_are_no_finding(made):
    node = made.nodes[0]
    before = node.call(forward.find_rejecting_chains)
    node.run(
        "nft 'table inet some { chain f { type filter hook forward priority filter; ip daddr 192.0.2.1 drop; }; }'"
    )
    node.run("iptables-nft -P FORWARD DROP")
    node.call(node.datapath.verify)
    node.run("iptables-nft -A FORWARD -j REJECT")
    try:
        assert node.call(forward.find_rejecting_chains) == before
    finally:
        node.run("nft delete table inet some; iptables-nft -F FORWARD; iptables-nft -P FORWARD ACCEPT")


@pytest.mark.parametrize("routing", ["vxlan", "native"])
def test_a_smaller_mtu_of_the_underlay_is_heard_of_at_once(routing):
    with cluster(routing=routing) as made:
        node = made.nodes[0]
        watch = node.call(KernelWatch)
        try:
            node.run("ip link set u0 mtu 1400")
            assert eventually(watch.heard, 2)
            node.call(node.datapath.verify)
            assert node.datapath.pod_mtu == (1350 if routing == "vxlan" else 1400)
        finally:
            watch.close()


def test_an_interface_of_another_network_attached_second_leaves_the_routes_of_the_first(made):
    node = made.nodes[0]
    sandbox = node.machine.sandbox("two")
    first = EndpointSpec(
        "two", "eth0", sandbox.path, (ip_address("10.244.1.70"), ip_address("fd00:244::1:70"))
    )
    node.call(node.datapath.attach, first)
    before = sandbox.run("ip route show default; ip -6 route show default")
    second = EndpointSpec(
        "two", "net1", sandbox.path, (ip_address("10.244.1.71"), ip_address("fd00:244::1:71"))
    )
    node.call(node.datapath.attach, second)
    try:
        assert sandbox.run("ip route show default; ip -6 route show default") == before
        assert before.count("dev eth0") == 2
        for spec in (first, second):
            node.call(node.datapath.check, spec)
    finally:
        for spec in (first, second):
            node.call(node.datapath.detach, spec.container_id, spec.ifname)


def test_a_foreign_interface_that_was_there_first_keeps_its_default_route(made):
    node = made.nodes[0]
    sandbox = node.machine.sandbox("foreign")
    sandbox.run(
        "ip link add net0 type veth peer name net0p; ip addr add 172.30.0.2/24 dev net0; ip link set net0 up;"
        " ip link set net0p up; ip route add default via 172.30.0.1 dev net0"
    )
    spec = EndpointSpec("foreign", "eth0", sandbox.path, (ip_address("10.244.1.72"),))
    node.call(node.datapath.attach, spec)
    try:
        assert json.loads(sandbox.run("ip -j route show default"))[0]["dev"] == "net0"
    finally:
        node.call(node.datapath.detach, "foreign", "eth0")


def test_a_node_that_becomes_a_router_goes_on_hearing_its_routers():
    machine = Machine("ra", workers=2)
    try:
        machine.run(
            "ip link add up0 type veth peer name up1; ip link set up0 up; ip link add fastx type bridge"
        )
        from fast.datapath import sysctl

        machine.run("sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.up1.accept_ra=0")
        wanted = machine.call(lambda: list(sysctl.keeping_router_advertisements("fast")))
        assert [item.path for item in wanted] == ["ipv6/conf/up0/accept_ra"]
        machine.call(sysctl.ensure, wanted)
        assert machine.run("sysctl -n net.ipv6.conf.up0.accept_ra").strip() == "2"
        machine.run("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.up0.accept_ra=1")
        assert machine.call(lambda: list(sysctl.keeping_router_advertisements("fast"))) == []
    finally:
        machine.close()
