"""What the kernel tells of as it happens: changes of the tunnel device, of Fast's table, of IPsec policies."""

import select

import pytest

from fast.datapath.node.firewall import Firewall, Ruleset
from fast.datapath.node.kernel_watch import KernelWatch
from kernel.lab import Machine, node_ip

TUNNEL = "ip link add fast_vxlan type vxlan external dstport 8479"
POLICY = "src 10.1.0.0/16 dst 10.2.0.0/16 dir out"


@pytest.fixture
def machine():
    made = Machine("n1", workers=4)
    made.run("ip link add other type bridge; nft add table inet other")
    yield made
    made.close()


@pytest.fixture
def hears(machine):
    """Tells whether a command makes the watch hear of something."""
    watch = machine.call(KernelWatch)

    def after(command):
        machine.run(command)
        select.select(watch.filenos(), [], [], 0.2)
        return watch.heard()

    yield after
    watch.close()


def test_each_change_of_the_tunnel_device_is_heard_of(hears):
    for command in (
        TUNNEL,
        "ip link set fast_vxlan up",
        "ip link set fast_vxlan mtu 1400",
        "ip link del fast_vxlan",
    ):
        assert hears(command), command


def test_a_flushed_ruleset_is_heard_of(machine, hears):
    ruleset = Ruleset(tunnel_port=8479, node_ip=node_ip(1), node_ip6=None, masquerade=True)
    machine.call(Firewall().apply, ruleset)
    assert hears("nft flush ruleset")
    assert not hears("nft flush ruleset"), "nothing of Fast's was there any more"


def test_each_change_of_the_ipsec_policies_is_heard_of(hears):
    commands = (f"add {POLICY} action block", f"update {POLICY} action allow", f"delete {POLICY}")
    for command in (*commands, "setdefault out accept"):
        assert hears(f"ip xfrm policy {command}"), command


@pytest.mark.parametrize(
    "command",
    [
        "ip link set other up",
        "ip link add fast0123456789 type veth peer name eth9",
        "ip link del other",
        "nft add chain inet other c",
        "nft delete table inet other",
        "ip addr add 10.0.0.1/32 dev lo",
    ],
)
def test_what_others_do_with_what_is_theirs_is_not(hears, command):
    assert not hears(command)


def test_so_much_at_once_that_some_of_it_was_missed_counts_as_heard(machine, hears):
    changes = "".join(f"link set other mtu {1000 + n % 400}\n" for n in range(1000))
    machine.run("ip -batch - > /dev/null", stdin=changes)
    assert hears("true")
    assert not hears("true")
