"""What ``fast-ctl doctor`` says of a node, and that ``fast-ctl node clean`` leaves nothing: real commands."""

import json
import socket
import sys
from pathlib import Path

import pytest

from kernel.fastlab import attach_pods, cluster
from kernel.lab import Machine

CTL = Path(sys.executable).parent / "fast-ctl"


@pytest.fixture
def machine():
    """A machine as a distribution leaves it to Fast: forwarding on, nothing strict, reference plugins there."""
    machine = Machine("doctored")
    try:
        machine.run(
            "mkdir -p /run/cni/bin /run/cni/net.d; touch /run/cni/bin/loopback;"
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0;"
            "ip link add uplink type veth peer name far; ip link set uplink up mtu 1500; ip link set far up;"
            "ip addr add 192.168.77.1/24 dev uplink"
        )
        yield machine
    finally:
        machine.close()


def findings(machine, *arguments):
    """Run the doctor; give its findings by check, and hold its exit status against them."""
    output = machine.run(
        f"{CTL} doctor -o json --cni-bin-dir /run/cni/bin --cni-conf-dir /run/cni/net.d"
        " --socket /run/cni/agent.sock --state-dir /run/cni/state"
        f" --node-ip 192.168.77.1 {' '.join(arguments)} || echo failed"
    )
    text, failed, _ = output.partition("failed")
    found = json.loads(text)
    assert bool(failed) == any(one["severity"] == "error" for one in found)
    return {one["check"]: one for one in found}


def test_a_sound_node_gets_no_finding_and_exit_status_0(machine):
    assert findings(machine) == {}
    assert machine.run(f"{CTL} doctor --cni-bin-dir /run/cni/bin").endswith("0 errors, 0 warnings\n")


@pytest.mark.parametrize(
    ("spoil", "check", "severity", "says"),
    [
        ("umount /sys/fs/bpf", "bpf-filesystem", "error", "no bpf filesystem"),
        ("sysctl -qw net.ipv4.ip_forward=0", "ip-forward", "warning", "ip_forward is 0"),
        ("sysctl -qw net.ipv4.conf.all.rp_filter=1", "rp-filter", "warning", "strict"),
        (
            "ip link add fast_vxlan type veth; sysctl -qw net.ipv4.conf.fast_vxlan.rp_filter=1",
            "rp-filter",
            "error",
            "strict on fast_vxlan",
        ),
        ("iptables-nft -P FORWARD DROP", "forward-policy", "warning", "iptables-nft is DROP"),
        (
            "nft 'add table inet own; add chain inet own onward { type filter hook forward priority 0; policy drop; }'",
            "forward-policy",
            "error",
            "inet own onward",
        ),
        ("touch /run/cni/net.d/05-cilium.conflist", "network-configuration", "error", "05-cilium.conflist"),
        ("rm /run/cni/bin/loopback", "plugins", "warning", "loopback"),
        ("touch /run/cni/net.d/10-fast.conflist", "plugins", "error", "fast-cni"),
        (
            "ip link add other type vxlan id 1 dstport 8479 dev uplink; ip link set other up",
            "tunnel-port",
            "error",
            "VXLAN device other",
        ),
        ("ip link set uplink mtu 600", "underlay", "error", "MTU of 600"),
        ("ip addr flush dev uplink", "underlay", "error", "192.168.77.1"),
    ],
)
def test_what_will_bite_is_found_and_named(machine, spoil, check, severity, says):
    machine.run(spoil)
    found = findings(machine)
    # once the configuration is there, its agent is looked for, too
    assert set(found) == {check} | ({"agent"} if "10-fast.conflist" in spoil else set())
    assert found[check]["severity"] == severity
    assert says in found[check]["problem"]
    assert found[check]["remedy"]


def test_a_process_on_the_tunnels_port_is_found(machine):
    taken = machine.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("0.0.0.0", 8479))
        assert "a socket of some process" in findings(machine)["tunnel-port"]["problem"]
        assert "tunnel-port" not in findings(machine, "--tunnel-port", "8480")


def test_configurations_after_ours_and_hidden_files_do_no_harm(machine):
    machine.run("cd /run/cni/net.d; touch 87-podman.conflist .05-half.conflist 01-readme.txt")
    assert findings(machine) == {}


def test_a_node_whose_datapath_is_up_gets_no_finding():
    with cluster(1) as made:
        (node,) = made.nodes
        node.run("mkdir -p /run/cni/bin /run/cni/net.d; touch /run/cni/bin/loopback")
        output = node.run(
            f"{CTL} doctor -o json --cni-bin-dir /run/cni/bin --cni-conf-dir /run/cni/net.d --node-ip {node.ip}"
        )
        assert [one for one in json.loads(output) if one["check"] != "rp-filter"] == []


TRACES = """
ip -o link | grep fast || true
ip rule; ip -4 route; nft list ruleset
find /sys/fs/bpf /run -path '*fast*'
"""


def clean(node, *arguments, check=True):
    return node.run(
        f"{CTL} node clean --cni-bin-dir /run/cni/bin --cni-conf-dir /run/cni/net.d --state-dir /run/state"
        f" {' '.join(arguments)} 2>&1",
        check=check,
    )


@pytest.fixture
def node():
    """A node with two pods, and everything that an agent puts on it. Nothing of it was there ``before``."""
    with cluster(1) as made:
        (node,) = made.nodes
        node.run(
            "mkdir -p /run/cni/bin /run/cni/net.d /run/fast /run/state/tombstones;"
            "touch /run/cni/bin/loopback /run/cni/net.d/10-fast.conflist;"
            f"echo plugin >/run/fast-cni-new; {CTL} node install --plugin /run/fast-cni-new --cni-bin-dir /run/cni/bin;"
            "rm /run/fast-cni-new"
        )
        attach_pods(made, 2)
        yield node


def test_clean_is_refused_while_pods_have_interfaces(node):
    before = node.run(TRACES)
    assert "2 pods still have interfaces" in clean(node, check=False)
    assert node.run(TRACES) == before


def test_clean_is_refused_while_an_agent_serves(node):
    with node.call(socket.socket, socket.AF_UNIX) as agent:
        node.call(agent.bind, "/run/fast/agent.sock")
        agent.listen()
        assert "an agent serves" in clean(node, "--force", check=False)


def test_clean_is_refused_while_releases_wait_to_be_told(node):
    for pod in list(node.pods):
        node.detach(pod)
    node.run(
        "touch /run/state/tombstones/c1:eth0 /run/state/tombstones/.new-17-c2:eth0"
    )  # the latter: half written
    assert "1 releases wait" in clean(node, check=False)


def test_clean_removes_every_trace_and_nothing_else(node):
    node.run("touch /run/cni/net.d/20-other.conflist")
    clean(node, "--force")
    traces = node.run(TRACES)
    assert "fast" not in traces
    assert "10.244." not in traces
    left = node.run("ls /run/cni/bin /run/cni/net.d; ls -d /run/state || true")
    assert left.split() == ["/run/cni/bin:", "loopback", "/run/cni/net.d:", "20-other.conflist"]
    assert "removed" not in clean(node)  # a second time finds nothing


def test_install_replaces_the_plugin_by_rename_and_makes_it_executable(node):
    installed = node.run("cat /run/cni/bin/fast-cni; stat -c %a /run/cni/bin/fast-cni; ls -a /run/cni/bin")
    assert installed.split() == ["plugin", "755", ".", "..", "fast-cni", "loopback"]


def test_install_without_a_plugin_says_which_is_missing(machine):
    output = machine.run(f"{CTL} node install --plugin /nowhere --cni-bin-dir /run/cni/bin 2>&1", check=False)
    assert output.startswith("Error: the plugin /nowhere cannot be read")
