"""Section 2 of the CNI specification: STATUS and GC, which came with 1.1.0."""

import pytest

pytestmark = pytest.mark.since("1.1.0")


def listed(*pairs):
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in pairs]
    return {"cni.dev/valid-attachments": attachments}


def test_status_is_0_and_prints_nothing_when_the_plugin_can_serve_add(runtime):
    answer = runtime.call("STATUS")
    assert (answer.status, answer.stdout) == (0, "")


def test_gc_removes_what_no_valid_attachment_stands_for_and_leaves_the_rest(runtime, sandbox):
    before = runtime.devices()
    runtime.add(sandbox)
    with runtime.sandbox() as stale:
        runtime.add(stale)
        answer = runtime.call("GC", None, runtime.config(**listed((sandbox.container_id, "eth0"))))
        assert (answer.status, answer.stdout) == (0, "")
        assert not runtime.reservations(stale.container_id)
        assert "eth0" not in runtime.interfaces(stale)
    assert runtime.reservations(sandbox.container_id)
    assert "eth0" in runtime.interfaces(sandbox)
    assert len(runtime.devices() - before) == 1


def test_gc_tells_attachments_of_one_container_apart_by_the_interface(runtime, sandbox):
    runtime.add(sandbox)
    runtime.add(sandbox, CNI_IFNAME="net1")
    answer = runtime.call("GC", None, runtime.config(**listed((sandbox.container_id, "net1"))))
    assert answer.status == 0, answer
    assert set(runtime.interfaces(sandbox)) == {"net1"}


def test_gc_removes_the_reservation_of_a_namespace_that_is_gone(runtime, sandbox):
    runtime.add(sandbox)
    runtime.node.run("ip", "netns", "delete", sandbox.netns, check=True)
    assert runtime.call("GC", None, runtime.config(**listed())).status == 0
    assert not runtime.reservations(sandbox.container_id)


def test_gc_of_attachments_that_the_plugin_does_not_know_succeeds(runtime):
    answer = runtime.call("GC", None, runtime.config(**listed(("never-seen", "eth0"))))
    assert answer.status == 0, answer


def test_gc_may_come_more_than_once(runtime):
    for _ in range(2):
        assert runtime.call("GC", None, runtime.config(**listed())).status == 0
