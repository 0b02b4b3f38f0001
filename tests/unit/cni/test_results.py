"""Results in the format of each version, and reading a previous one."""

import ipaddress
import json

import msgspec
import pytest

from fast.cni import CallError
from fast.cni.network_config import SUPPORTED_VERSIONS, Dns, NetworkConfig
from fast.cni.results import parse_result, result_of, sandbox_addresses
from fast.datapath.pod.identity import Endpoint
from fast.net import Mac

V4, V6 = ipaddress.ip_address("10.244.0.7"), ipaddress.ip_address("fd00::7")
ENDPOINT = Endpoint(
    container_id="c1",
    ifname="eth0",
    addresses=(V4, V6),
    ifindex=7,
    host_device="fast1",
    host_mac=Mac.parse("02:00:00:00:00:02"),
    pod_mac=Mac.parse("02:00:00:00:00:01"),
    mtu=1450,
)


def result_in(version, dns=None, previous=None):
    config = NetworkConfig(cni_version=version, dns=dns or Dns())
    return result_of(ENDPOINT, "/run/netns/c1", config, previous)


def written(version, dns=None, previous=None):
    return json.loads(msgspec.json.encode(result_in(version, dns, previous)))


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_a_result_has_its_version_and_all_interfaces_addresses_and_routes(version):
    result = written(version)
    assert result["cniVersion"] == version
    assert [item["name"] for item in result["interfaces"]] == ["fast1", "eth0"]
    assert [ip["address"] for ip in result["ips"]] == ["10.244.0.7/32", "fd00::7/128"]
    assert {ip["interface"] for ip in result["ips"]} == {1}
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize(("version", "expected"), [("0.3.1", "4"), ("0.4.0", "4"), ("1.0.0", None)])
def test_ips_have_a_version_until_0_4_0(version, expected):
    assert written(version)["ips"][0].get("version") == expected


@pytest.mark.parametrize(("version", "expected"), [("1.0.0", None), ("1.1.0", 1450)])
def test_interfaces_have_an_mtu_since_1_1_0(version, expected):
    assert written(version)["interfaces"][0].get("mtu") == expected


def test_a_previous_result_stays_in_front_and_indices_count_on():
    before = parse_result({"interfaces": [{"name": "x"}], "routes": [{"dst": "10.0.0.0/8"}]})
    result = written("1.1.0", previous=before)
    assert [item["name"] for item in result["interfaces"]] == ["x", "fast1", "eth0"]
    assert {ip["interface"] for ip in result["ips"]} == {2}
    assert result["routes"][0] == {"dst": "10.0.0.0/8"}


def test_dns_of_the_configuration_goes_before_that_of_a_previous_result():
    before = parse_result({"dns": {"nameservers": ["10.0.0.1"]}})
    assert written("1.1.0", previous=before)["dns"] == {"nameservers": ["10.0.0.1"]}
    chosen = written("1.1.0", Dns(nameservers=("10.0.0.2",)), before)
    assert chosen["dns"] == {"nameservers": ["10.0.0.2"]}


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_a_result_is_read_back_with_the_sandboxs_addresses(version):
    raw = msgspec.json.encode(result_in(version))
    assert sandbox_addresses(parse_result(json.loads(raw)), "eth0") == (V4, V6)


@pytest.mark.parametrize("decoded", [[], 7, {"ips": 7}, {"ips": [{}]}, {"ips": [None]}])
def test_what_is_no_result_is_error_7(decoded):
    with pytest.raises(CallError) as caught:
        parse_result(decoded)
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("{}", "no sandbox interface"),
        ('{"interfaces":[{"name":"eth0"}]}', "no sandbox interface"),
        (
            '{"interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"here","interface":0}]}',
            "here",
        ),
    ],
)
def test_a_result_without_the_sandboxs_interface_or_with_a_bad_address_says_so(result, said):
    with pytest.raises(CallError, match=said):
        sandbox_addresses(parse_result(json.loads(result)), "eth0")
