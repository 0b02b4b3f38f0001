"""Sections 2 and 5 of the CNI specification: ADD and its result."""

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

CONTAINERS = 32


@pytest.mark.every_version
def test_add_makes_the_interface_of_that_name_in_the_namespace(runtime, sandbox):
    runtime.add(sandbox, CNI_IFNAME="net1")
    assert set(runtime.interfaces(sandbox)) == {"net1"}


@pytest.mark.every_version
def test_the_result_has_the_version_of_the_configuration(runtime, sandbox):
    assert runtime.add(sandbox)["cniVersion"] == runtime.version


@pytest.mark.every_version
def test_the_result_tells_the_sandboxs_interface_with_its_mac_and_the_namespaces_path(runtime, sandbox):
    result = runtime.add(sandbox)
    (told,) = [item for item in result["interfaces"] if item.get("sandbox")]
    assert told["name"] == "eth0"
    assert told["sandbox"] == sandbox.path
    assert told["mac"] == runtime.interfaces(sandbox)["eth0"]["address"]


@pytest.mark.every_version
def test_the_result_tells_the_hosts_interfaces_without_a_sandbox(runtime, sandbox):
    told = [item["name"] for item in runtime.add(sandbox)["interfaces"] if not item.get("sandbox")]
    assert told
    assert set(told) & runtime.devices()


@pytest.mark.every_version
def test_the_result_tells_the_addresses_that_the_interface_has(runtime, sandbox):
    result = runtime.add(sandbox)
    found = runtime.interfaces(sandbox)["eth0"]["addr_info"]
    assert {ip["address"] for ip in result["ips"]} == {
        f"{item['local']}/{item['prefixlen']}" for item in found if item["scope"] == "global"
    }


@pytest.mark.every_version
def test_an_address_points_to_its_interface_by_index(runtime, sandbox):
    result = runtime.add(sandbox)
    for ip in result["ips"]:
        assert result["interfaces"][ip["interface"]]["name"] == "eth0"


@pytest.mark.every_version
def test_ips_have_a_version_until_0_4_0_and_none_since_1_0_0(runtime, sandbox):
    for ip in runtime.add(sandbox)["ips"]:
        expected = "4" if runtime.version.startswith("0.") else None
        assert ip.get("version") == expected


@pytest.mark.every_version
def test_a_gateway_is_an_address_of_the_same_family(runtime, sandbox):
    for ip in runtime.add(sandbox)["ips"]:
        gateway = ipaddress.ip_address(ip["gateway"])
        assert gateway.version == ipaddress.ip_interface(ip["address"]).version


@pytest.mark.every_version
def test_the_routes_of_the_result_are_there(runtime, sandbox):
    told = {route["dst"].replace("0.0.0.0/0", "default") for route in runtime.add(sandbox)["routes"]}
    assert "default" in told
    assert told <= {route["dst"] for route in runtime.inside(sandbox, "route", "show")}


@pytest.mark.every_version
def test_dns_of_the_configuration_is_passed_on_where_the_plugin_has_none_of_its_own(runtime, sandbox):
    assert runtime.add(sandbox)["dns"] == runtime.config()["dns"]


@pytest.mark.every_version
@pytest.mark.since("1.1.0")
def test_the_result_tells_the_mtu_since_1_1_0(runtime, sandbox):
    result = runtime.add(sandbox)
    (told,) = [item for item in result["interfaces"] if item.get("sandbox")]
    assert told["mtu"] == runtime.interfaces(sandbox)["eth0"]["mtu"]


def test_an_interface_of_that_name_that_exists_already_is_an_error(runtime, sandbox):
    peer = ("type", "veth", "peer", "name", "other")
    runtime.node.run("ip", "-n", sandbox.netns, "link", "add", "eth0", *peer, check=True)
    answer = runtime.call("ADD", sandbox)
    assert answer.status != 0
    assert answer.json["code"]
    assert not runtime.reservations(sandbox.container_id)
    runtime.node.run("ip", "-n", sandbox.netns, "link", "delete", "eth0", check=True)


def test_a_container_can_be_added_again_by_another_name_of_the_interface(runtime, sandbox):
    first = runtime.add(sandbox)
    second = runtime.add(sandbox, CNI_IFNAME="net1")
    assert set(runtime.interfaces(sandbox)) == {"eth0", "net1"}
    assert first["ips"][0]["address"] != second["ips"][0]["address"]
    runtime.delete(sandbox, CNI_IFNAME="net1")
    assert set(runtime.interfaces(sandbox)) == {"eth0"}


def test_containers_that_are_added_at_once_get_addresses_of_their_own(runtime):
    before = runtime.devices()
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(runtime.sandbox()) for _ in range(CONTAINERS)]
        with ThreadPoolExecutor(CONTAINERS) as pool:
            results = list(pool.map(runtime.add, sandboxes))
            addresses = {ip["address"] for result in results for ip in result["ips"]}
            assert len(addresses) == CONTAINERS
            list(pool.map(runtime.delete, sandboxes))
        assert not any("eth0" in runtime.interfaces(sandbox) for sandbox in sandboxes)
    runtime.wait_for_devices(before)
