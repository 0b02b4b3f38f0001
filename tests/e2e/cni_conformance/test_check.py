"""Section 2 of the CNI specification: CHECK, which came with 0.4.0."""

import pytest

pytestmark = pytest.mark.since("0.4.0")


@pytest.mark.every_version
def test_check_succeeds_directly_after_add_and_as_often_as_it_comes(runtime, sandbox):
    result = runtime.add(sandbox)
    for _ in range(3):
        answer = runtime.check(sandbox, result)
        assert (answer.status, answer.stdout) == (0, ""), answer


def test_check_needs_the_previous_result(runtime, sandbox):
    runtime.add(sandbox)
    answer = runtime.call("CHECK", sandbox, runtime.config(prevResult=None))
    assert answer.status != 0
    assert answer.json["code"]


@pytest.mark.parametrize(
    "damage",
    ["link delete eth0", "address flush dev eth0", "route delete default", "link set eth0 name eth1"],
)
def test_check_fails_when_something_of_the_result_is_missing(runtime, sandbox, damage):
    result = runtime.add(sandbox)
    runtime.node.run("ip", "-n", sandbox.netns, *damage.split(), check=True)
    answer = runtime.check(sandbox, result)
    assert answer.status != 0
    assert answer.json["code"]
    assert answer.json["msg"]


def test_check_fails_when_the_address_is_another(runtime, sandbox):
    result = runtime.add(sandbox)
    address = result["ips"][0]["address"]
    for change in (["add", "192.0.2.7/24"], ["delete", address]):
        runtime.node.run("ip", "-n", sandbox.netns, "address", *change, "dev", "eth0", check=True)
    assert runtime.check(sandbox, result).status != 0


def test_check_fails_when_the_namespace_is_another(runtime, sandbox):
    result = runtime.add(sandbox)
    with runtime.sandbox() as other:
        assert runtime.check(sandbox, result, CNI_NETNS=other.path).status != 0


def test_check_fails_after_del(runtime, sandbox):
    result = runtime.add(sandbox)
    runtime.delete(sandbox)
    assert runtime.check(sandbox, result).status != 0


def test_check_allows_what_a_later_plugin_of_the_chain_adds(runtime, sandbox):
    result = runtime.add(sandbox)
    for change in ("route add 192.0.2.0/24 dev eth0", "address add 198.51.100.9/32 dev eth0"):
        runtime.node.run("ip", "-n", sandbox.netns, *change.split(), check=True)
    answer = runtime.check(sandbox, result)
    assert answer.status == 0, answer


def test_check_changes_nothing(runtime, sandbox):
    result = runtime.add(sandbox)
    runtime.node.run("ip", "-n", sandbox.netns, "route", "delete", "default", check=True)
    runtime.check(sandbox, result)
    assert "default" not in {route["dst"] for route in runtime.inside(sandbox, "route", "show")}
    assert "eth0" in runtime.interfaces(sandbox)
