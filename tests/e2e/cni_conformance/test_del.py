"""Section 2 of the CNI specification: DEL."""

import pytest


@pytest.mark.every_version
def test_del_deletes_the_interface_and_gives_the_address_back(runtime, sandbox):
    before = runtime.devices()
    result = runtime.add(sandbox)
    assert runtime.reservations(sandbox.container_id)
    runtime.delete(sandbox, runtime.config(prevResult=result))
    assert not runtime.interfaces(sandbox)
    assert not runtime.reservations(sandbox.container_id)
    runtime.wait_for_devices(before)


def test_del_prints_nothing_and_exits_with_0(runtime, sandbox):
    runtime.add(sandbox)
    answer = runtime.call("DEL", sandbox)
    assert (answer.status, answer.stdout) == (0, "")


def test_del_may_come_more_than_once(runtime, sandbox):
    runtime.add(sandbox)
    for _ in range(3):
        runtime.delete(sandbox)


def test_del_of_a_container_that_was_never_added_succeeds(runtime, sandbox):
    runtime.delete(sandbox)


def test_del_needs_no_previous_result(runtime, sandbox):
    runtime.add(sandbox)
    runtime.delete(sandbox, runtime.config(prevResult=None))
    assert not runtime.interfaces(sandbox)
    assert not runtime.reservations(sandbox.container_id)


@pytest.mark.parametrize("netns", ["", None, "as it was"])
def test_del_releases_the_address_when_the_namespace_is_gone(runtime, sandbox, netns):
    before = runtime.devices()
    result = runtime.add(sandbox)
    runtime.node.run("ip", "netns", "delete", sandbox.netns, check=True)
    changes = {} if netns == "as it was" else {"CNI_NETNS": netns}
    runtime.delete(sandbox, runtime.config(prevResult=result), **changes)
    assert not runtime.reservations(sandbox.container_id)
    runtime.wait_for_devices(before)


def test_del_of_another_interface_of_the_container_leaves_this_one(runtime, sandbox):
    runtime.add(sandbox)
    runtime.delete(sandbox, CNI_IFNAME="net1")
    assert "eth0" in runtime.interfaces(sandbox)
    assert runtime.reservations(sandbox.container_id)


def test_del_after_an_add_that_failed_succeeds(runtime, sandbox):
    assert runtime.call("ADD", sandbox, CNI_NETNS="/run/netns/nowhere").status != 0
    runtime.delete(sandbox)


def test_a_container_can_be_added_again_after_its_del(runtime, sandbox):
    runtime.add(sandbox)
    runtime.delete(sandbox)
    runtime.add(sandbox)
    assert "eth0" in runtime.interfaces(sandbox)
