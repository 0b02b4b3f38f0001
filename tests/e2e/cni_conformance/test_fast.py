"""What Fast promises beyond the specification's text: chains, requests, limits, and what happens without its agent."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest

from e2e.cni_conformance.plugin import Plugin, Runtime
from fast_playground.cluster.node_programs import AGENT

pytestmark = pytest.mark.only("fast")


def sandbox_ips(result):
    return [ip["address"] for ip in result["ips"]]


def until(holds, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


CAPABILITIES = {
    "bandwidth": {"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 8_000_000}},
    "portmap": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
}


class Chain:
    """Fast, with reference plugins behind it."""

    def __init__(self, runtime):
        def behind(name, **config):
            config["runtimeConfig"] = CAPABILITIES.get(name)
            binary = f"/usr/lib/cni/{name}"
            plugin = Plugin(name, "n1", binary, runtime.plugin.versions, config, reservations="true")
            return Runtime(plugin, runtime.version, runtime.node)

        config = runtime.plugin.config | {"runtimeConfig": CAPABILITIES["bandwidth"]}
        first = Runtime(replace(runtime.plugin, config=config), runtime.version, runtime.node)
        tuning = behind("tuning", sysctl={"net.core.somaxconn": "500"})
        self.runtimes = [first, tuning, behind("bandwidth"), behind("portmap", snat=True)]

    def add(self, sandbox):
        result = None
        for runtime in self.runtimes:
            result = runtime.add(sandbox, runtime.config(prevResult=result))
        return result

    def delete(self, sandbox, result):
        for runtime in reversed(self.runtimes):
            runtime.delete(sandbox, runtime.config(prevResult=result))


def in_1_0_0(runtime):
    """The reference plugins of Debian speak nothing newer."""
    return Runtime(runtime.plugin, "1.0.0", runtime.node)


def test_first_of_a_chain_with_tuning_bandwidth_and_portmap_behind_it(cluster, runtime, sandbox):
    chain = Chain(in_1_0_0(runtime))
    result = chain.add(sandbox)
    for link in chain.runtimes[:-1]:  # Debian's portmap wants IPv6 rules even of a container without IPv6
        answer = link.check(sandbox, result)
        assert answer.status == 0, (link.plugin.name, answer)
    node, inside = runtime.node, runtime.node.path(sandbox.path)
    assert node.run("cat", "/proc/sys/net/core/somaxconn", network=inside).stdout == "500\n"
    assert "tbf" in node.run("tc", "qdisc", "show").stdout
    with ExitStack() as stack:
        server = [
            "ip",
            "netns",
            "exec",
            sandbox.netns,
            "busybox",
            "nc",
            "-ll",
            "-p",
            "80",
            "-e",
            "echo",
            "hi",
        ]
        serving = node.command(["sh", "-c", f"exec timeout 20 {' '.join(server)}"])
        stack.callback(stack.enter_context(subprocess.Popen(serving, env=node.environment())).terminate)
        client = ("busybox", "nc", "-w", "2", str(node.address), "8080")
        until(lambda: cluster.playground.underlay.run(*client).stdout == "hi\n", "an answer", seconds=10)
    chain.delete(sandbox, result)
    assert "tbf" not in node.run("tc", "qdisc", "show").stdout
    assert not runtime.reservations(sandbox.container_id)


def test_behind_a_plugin_that_makes_the_interface_it_is_refused_with_advice(runtime, sandbox):
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": sandbox.path}], "ips": []}
    answer = runtime.call("ADD", sandbox, runtime.config(prevResult=before))
    assert answer.json["code"] == 7
    assert "put it first in the chain" in answer.json["msg"]
    assert not runtime.interfaces(sandbox)
    assert not runtime.reservations(sandbox.container_id)


def test_a_previous_result_without_addresses_is_passed_through_with_fasts_own_behind_it(runtime, sandbox):
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "other", "mac": "02:00:00:00:00:01"}]}
    result = runtime.add(sandbox, runtime.config(prevResult=before))
    assert result["interfaces"][0] == before["interfaces"][0]
    assert result["interfaces"][result["ips"][0]["interface"]]["name"] == "eth0"


def test_add_that_is_repeated_for_the_same_attachment_gives_the_same_result(runtime, sandbox):
    assert runtime.add(sandbox) == runtime.add(sandbox)


def test_a_plain_container_gets_an_address_of_the_default_pool(runtime, sandbox):
    (address,) = sandbox_ips(runtime.add(sandbox))
    assert address.startswith("10.244.")
    assert address.endswith("/32")
    assert runtime.reservations(sandbox.container_id) == [address.removesuffix("/32")]


@pytest.mark.parametrize(
    ("changes", "variables"),
    [
        ({"runtimeConfig": {"ips": ["10.244.77.1/16"]}}, {}),
        ({"args": {"cni": {"ips": ["10.244.77.1"]}}}, {}),
        ({}, {"CNI_ARGS": "IgnoreUnknown=1;IP=10.244.77.1"}),
    ],
)
def test_an_address_can_be_asked_for_in_each_of_the_conventions_ways(runtime, sandbox, changes, variables):
    assert sandbox_ips(runtime.add(sandbox, runtime.config(**changes), **variables)) == ["10.244.77.1/32"]


def test_an_address_that_somebody_has_is_refused(runtime, sandbox):
    (address,) = sandbox_ips(runtime.add(sandbox))
    with runtime.sandbox() as second:
        answer = runtime.call("ADD", second, CNI_ARGS=f"IP={address}")
        assert answer.json["code"] == 104
        assert address.removesuffix("/32") in answer.json["msg"]
        assert not runtime.interfaces(second)


@pytest.mark.parametrize(
    ("field", "value"),
    [("runtimeConfig", {"mac": "02:00:00:00:00:01"}), ("ipam", {"type": "host-local"})],
)
def test_a_field_that_fast_cannot_serve_is_error_2_with_its_key_and_value(runtime, sandbox, field, value):
    answer = runtime.call("ADD", sandbox, runtime.config(**{field: value}))
    assert answer.json["code"] == 2
    assert field in answer.json["msg"]
    assert next(iter(value.values())) in answer.json["msg"]


def test_a_pod_that_the_api_server_does_not_know_is_refused(runtime, sandbox):
    answer = runtime.call("ADD", sandbox, CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=nobody")
    assert answer.json["code"] == 105
    assert "default/nobody" in answer.json["msg"]
    assert not runtime.interfaces(sandbox)


def test_a_namespace_without_a_pod_is_error_4(runtime, sandbox):
    answer = runtime.call("ADD", sandbox, CNI_ARGS="K8S_POD_NAMESPACE=default")
    assert answer.json["code"] == 4
    assert "K8S_POD_NAME" in answer.json["msg"]


def test_a_name_without_a_namespace_is_a_plain_containers_as_podman_sends_it(runtime, sandbox):
    runtime.add(sandbox, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=some-container")
    assert "eth0" in runtime.interfaces(sandbox)


def test_limits_of_size_are_errors_that_name_them(runtime, sandbox):
    large = runtime.call("ADD", sandbox, runtime.config(padding="x" * 1024 * 1024))
    assert (large.json["code"], "1 MiB" in large.json["msg"]) == (7, True)
    wide = runtime.call("ADD", sandbox, CNI_ARGS=f"KEY={'x' * 65536}")
    assert (wide.json["code"], "64 KiB" in wide.json["msg"]) == (4, True)
    long = runtime.call("ADD", sandbox, CNI_CONTAINERID="c" * 201)
    assert (long.json["code"], "CNI_CONTAINERID" in long.json["msg"]) == (4, True)
    assert not runtime.interfaces(sandbox)


def test_what_is_just_within_the_limits_is_served(runtime, sandbox):
    chosen = sandbox.container_id.ljust(160, "x")
    runtime.add(sandbox, runtime.config(padding="x" * 1000 * 1000), CNI_CONTAINERID=chosen)
    runtime.delete(sandbox, CNI_CONTAINERID=chosen)


@pytest.mark.parametrize(("command", "version"), [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")])
def test_a_verb_that_is_newer_than_the_configuration_is_error_1(runtime, sandbox, command, version):
    answer = runtime.call(command, sandbox, runtime.config(cniVersion=version))
    assert (answer.status, answer.json["code"]) == (1, 1)


def test_gc_without_the_list_of_attachments_is_refused_and_ends_nobody(runtime, sandbox):
    runtime.add(sandbox)
    assert runtime.call("GC").json["code"] == 7
    assert "eth0" in runtime.interfaces(sandbox)


def test_check_fails_when_the_map_entry_is_missing(runtime, sandbox):
    result = runtime.add(sandbox)
    address = sandbox_ips(result)[0].removesuffix("/32")
    runtime.node.run("fast-ctl", "local-ips", "delete", address, check=True)
    answer = runtime.check(sandbox, result)
    assert (answer.status, answer.json["code"]) == (1, 130)


def test_check_fails_when_a_program_is_not_attached(runtime, sandbox):
    result = runtime.add(sandbox)
    (device,) = [item["name"] for item in result["interfaces"] if not item.get("sandbox")]
    index = json.loads(runtime.node.run("ip", "-j", "link", "show", device).stdout)[0]["ifindex"]
    detach = f"rm -f /sys/fs/bpf/fast/links/{index}-*; tc qdisc delete dev {device} clsact"
    runtime.node.run("sh", "-c", detach)
    answer = runtime.check(sandbox, result)
    assert (answer.status, answer.json["code"]) == (1, 130)


def test_a_reservation_that_somebody_deletes_comes_back_as_its_sandbox_lives(cluster, runtime, sandbox):
    result = runtime.add(sandbox)
    before = runtime.reservations(sandbox.container_id)
    cluster.kubectl.check("delete", "ipendpoint", sandbox_ips(result)[0].removesuffix("/32"))
    until(lambda: runtime.reservations(sandbox.container_id) == before, "the record")
    until(lambda: runtime.check(sandbox, result).status == 0, "a CHECK that succeeds")


@pytest.mark.parametrize("moment", [0, 0.001, 0.003, 0.006, 0.012])
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_plugin_that_is_killed_in_the_middle_leaves_nothing_that_del_does_not_end(
    runtime, sandbox, command, moment
):
    if command == "DEL":
        runtime.add(sandbox)
    runtime.kill_during(command, sandbox, after_seconds=moment)
    runtime.delete(sandbox)
    assert not runtime.interfaces(sandbox)
    assert not runtime.reservations(sandbox.container_id)


def test_without_the_agent_every_verb_answers_by_itself_and_a_del_is_carried_out_by_the_next_agent(
    cluster, runtime, sandbox
):
    result = runtime.add(sandbox)
    node = cluster.playground.node("n1")
    node.control.stop(AGENT)
    try:
        assert runtime.call("STATUS").json["code"] == 50
        for answer in (runtime.call("ADD", sandbox), runtime.check(sandbox, result), runtime.call("GC")):
            assert (answer.status, answer.json["code"]) == (1, 11)
        assert runtime.call("VERSION").status == 0
        for _ in range(2):
            runtime.delete(sandbox)
        left = node.run("ls", "/var/lib/fast/tombstones").stdout.split()
        assert left == [f"{sandbox.container_id}:eth0"]
        assert runtime.reservations(sandbox.container_id)
    finally:
        cluster.playground.start_agent(node)
    until(lambda: runtime.call("STATUS").status == 0, "an agent that is ready")
    assert not runtime.interfaces(sandbox)
    assert not runtime.reservations(sandbox.container_id)
    assert not node.run("ls", "/var/lib/fast/tombstones").stdout


def test_an_agent_that_is_killed_among_calls_leaves_nothing_that_del_does_not_end(cluster, runtime):
    before = runtime.devices()
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        sandboxes = [stack.enter_context(runtime.sandbox()) for _ in range(8)]
        adding = [pool.submit(runtime.call, "ADD", sandbox) for sandbox in sandboxes]
        until(lambda: any(item.done() for item in adding), "a first answer")
        cluster.playground.node("n1").control.kill(AGENT)
        for item in adding:
            answer = item.result()
            assert answer.status == 0 or answer.json["code"] == 11, answer
        list(pool.map(runtime.delete, sandboxes))
        until(lambda: runtime.call("STATUS").status == 0, "an agent that is ready")
        # A DEL that came while the agent was starting may have missed its first replay; the next is seconds later.
        until(
            lambda: not any(runtime.interfaces(sandbox) for sandbox in sandboxes),
            "sandboxes without interfaces",
        )
        ours = {sandbox.container_id for sandbox in sandboxes}
        held = (item["spec"].get("containerID") for item in cluster.items("ipendpoints"))
        assert ours.isdisjoint(held)
    runtime.wait_for_devices(before)
