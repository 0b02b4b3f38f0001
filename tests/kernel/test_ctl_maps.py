"""fast-ctl on a node with Fast's real maps: what it prints is what the kernel has, what it sets is there."""

import json
import shlex
import subprocess
import sys

import pytest
import yaml

from fast.datapath.bpf.maps import ClusterPods, LocalPods
from kernel import services, traffic
from kernel.fastlab import attach_pods, cluster
from kernel.services import Service

MACS = "--pod-mac 02:00:00:00:00:01 --host-mac 02:00:00:00:00:02"


@pytest.fixture(scope="module")
def made():
    with cluster(nodes=2) as found:
        attach_pods(found, 1)
        yield found


@pytest.fixture
def node(made):
    return made.nodes[0]


def ctl(node, arguments, status=0):
    """Run fast-ctl on the node and give what it printed on stdout, or, where it fails, on stderr."""
    argv = [sys.executable, "-m", "fast.ctl.fast_ctl", *shlex.split(arguments)]
    done = node.call(subprocess.run, argv, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def rows(node, arguments):
    return json.loads(ctl(node, f"{arguments} -o json"))


def pins(node):
    return node.config.bpf_dir / "maps"


def test_local_ips_lists_the_pods_of_the_node_with_device_and_macs(node):
    pod = node.pods[0]
    found = {row["ip"]: row for row in rows(node, "local-ips list")}
    assert set(found) == {str(pod.ip), str(pod.ip6)}
    link = json.loads(node.run(f"ip -j link show {found[str(pod.ip)]['device']}"))[0]
    assert (link["ifindex"], link["address"]) == (
        found[str(pod.ip)]["ifindex"],
        found[str(pod.ip)]["hostMAC"],
    )
    inside = json.loads(pod.run("ip -j link show eth0"))[0]
    assert inside["address"] == found[str(pod.ip)]["podMAC"]


def test_cluster_ips_lists_every_pod_and_node_with_its_nodes_address(made, node):
    found = {row["ip"]: (row["nodeIP"], row["kind"]) for row in rows(node, "cluster-ips list")}
    expected = {
        str(ip): (str(entry.node_ip), entry.kind.name.lower()) for ip, entry in made.entries().items()
    }
    assert found.items() >= expected.items()


def test_local_dev_lists_the_tunnel_and_the_underlay_device(node):
    found = {row["role"]: row for row in rows(node, "local-dev list")}
    assert set(found) == {"tunnel", "underlay"}
    assert found["underlay"]["device"] == "u0"
    assert found["underlay"]["mtu"] == 1500
    assert (found["tunnel"]["mtu"], found["tunnel"]["flags"]) == (1450, ["MAY_BE_SKIPPED"])


@pytest.mark.parametrize(
    ("alias", "name"), [("lips", "local-ips"), ("cips", "cluster-ips"), ("ldev", "local-dev")]
)
def test_an_alias_prints_what_its_command_prints(node, alias, name):
    assert ctl(node, f"{alias} list") == ctl(node, f"{name} list")


def test_tables_are_titled_and_sorted_by_address_and_wide_ones_have_more_columns(node):
    table, wide = ctl(node, "cips list").splitlines(), ctl(node, "cips list -o wide").splitlines()
    assert table[0].split() == ["IP", "POD", "NODE-IP", "KIND"]
    assert wide[0].split() == ["IP", "POD", "NODE-IP", "KIND", "FLAGS"]
    addresses = [line.split()[0] for line in table[1:] if "." in line.split()[0]]
    assert addresses == sorted(addresses, key=lambda text: tuple(map(int, text.split("."))))


def test_yaml_holds_the_same_as_json(node):
    assert yaml.safe_load(ctl(node, "local-ips list -o yaml")) == rows(node, "local-ips list")


def test_a_set_cluster_address_is_in_the_map_until_it_is_deleted(node):
    ctl(node, "cluster-ips set 10.244.77.7 --node-ip 192.168.77.2")
    entry = {"ip": "10.244.77.7", "nodeIP": "192.168.77.2", "kind": "pod", "flags": 0}
    assert {**entry, "pod": ""} in rows(node, "cips list")
    ctl(node, "cluster-ips delete 10.244.77.7")
    assert "10.244.77.7" not in ctl(node, "cips list")


def test_a_set_local_pod_is_in_the_map_until_it_is_deleted(node):
    ctl(node, f"local-ips set fd00:244::77 --device u0 {MACS} --via-stack")
    row = next(row for row in rows(node, "lips list") if row["ip"] == "fd00:244::77")
    assert (row["device"], row["podMAC"], row["flags"]) == ("u0", "02:00:00:00:00:01", ["VIA_STACK"])
    ctl(node, "local-ips delete fd00:244::77")
    assert "fd00:244::77" not in ctl(node, "lips list")


def test_deleting_what_is_not_there_is_an_error_that_names_it_and_deletes_the_rest(node):
    ctl(node, "cluster-ips set 10.244.77.8 --node-ip 192.168.77.2")
    assert "no cluster address 10.244.77.9" in ctl(node, "cips delete 10.244.77.8 10.244.77.9", status=1)
    assert "10.244.77.8" not in ctl(node, "cips list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("cips set nonsense --node-ip 192.168.77.2", "'nonsense' is not an IP address"),
        ("cips set 10.244.77.7 --node-ip fd00::1", "no IPv4 address"),
        (f"lips set 10.244.77.7 --device nosuch {MACS}", "no device 'nosuch'"),
        ("lips set 10.244.77.7 --device u0 --pod-mac xx --host-mac 02:00:00:00:00:02", "'xx' is not a MAC"),
    ],
)
def test_wrong_arguments_are_refused_by_name_and_nothing_is_set(node, arguments, said):
    with (
        node.call(ClusterPods.open, pins(node)) as cluster_pods,
        node.call(LocalPods.open, pins(node)) as pods,
    ):
        before = dict(cluster_pods.items()), dict(pods.items())
        assert said in ctl(node, arguments, status=2)
        assert (dict(cluster_pods.items()), dict(pods.items())) == before


def test_metrics_count_the_packets_between_pods_by_reason_and_direction(made, node):
    there = made.nodes[1].pods[0]
    before = {(row["reason"], row["direction"]): row["packets"] for row in rows(node, "metrics")}
    traffic.ping(node.pods[0], there.ip)
    after = {(row["reason"], row["direction"]): row["packets"] for row in rows(node, "metrics")}
    key = ("forward_tunnel", "from_pod")
    assert after[key] > before.get(key, 0)
    assert not any(row["drop"] for row in rows(node, "metrics")) or rows(node, "metrics --drops")


def test_flows_list_shows_a_services_flow_to_a_pod_elsewhere(made, node):
    there = made.nodes[1].pods[0]
    assert rows(node, "flows list") == []
    services.install(node, [Service(services.vip(1, 4), there.ip)], "nft")
    with traffic.server(there, services.BACKEND_PORT):
        traffic.tcp(node.pods[0], services.vip(1, 4), services.SERVICE_PORT)
    (flow,) = rows(node, "flows list")
    ends = {(flow["lowIP"], flow["lowPort"]), (flow["highIP"], flow["highPort"])}
    assert flow["protocol"] == "tcp"
    assert (str(there.ip), services.BACKEND_PORT) in ends
    assert {ip for ip, _ in ends} == {str(there.ip), str(node.pods[0].ip)}
    assert flow["lastSeenSecondsAgo"] < 60


def test_without_pins_the_error_names_the_directory_and_what_to_do(node):
    said = ctl(node, "local-ips list --bpf-dir /sys/fs/bpf/elsewhere", status=1)
    assert "/sys/fs/bpf/elsewhere/maps" in said
    assert "fast-agent" in said
    assert "FAST_BPF_DIR" in said
    assert "Traceback" not in said
