"""The status that a kubelet writes follows from the pod's sandbox and its containers."""

import pytest

from fast.api.meta import ObjectMeta
from fast_playground.cluster.pod_status import sandbox_status, waiting_status
from fast_playground.cluster.pod_types import Container, Pod, PodSpec
from fast_playground.cluster.sandbox import ProcessRecord, Sandbox

NOW = "2026-11-25T00:00:00Z"
NODE = "192.168.77.1"


def pod(*containers, host_network=False):
    spec = PodSpec(containers=[Container(name, "busybox") for name in containers], host_network=host_network)
    return Pod(metadata=ObjectMeta(name="p", namespace="default", uid="u"), spec=spec)


def sandbox(*running, ips=("10.244.10.0/32",)):
    return Sandbox(
        namespace="default",
        name="p",
        uid="u",
        container_id="c" * 64,
        netns="/run/netns/x",
        boot_id="b",
        created_at=NOW,
        result={"ips": [{"address": ip} for ip in ips]},
        processes={name: ProcessRecord(pid=1, start_ticks=1, started_at=NOW) for name in running},
    )


def condition(status, kind):
    return next(item["status"] for item in status["conditions"] if item["type"] == kind)


def test_a_pod_without_sandbox_is_pending_and_its_containers_are_being_created():
    status = waiting_status(pod("a"), NODE, NOW)
    assert (status["phase"], status["podIP"], condition(status, "Ready")) == ("Pending", None, "False")
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert status["hostIP"] == NODE


def test_a_pod_whose_containers_all_run_is_running_and_ready_with_its_addresses():
    status = sandbox_status(
        pod("a", "b"), sandbox("a", "b", ips=("10.244.10.0/32", "fd00::1/128")), {}, NODE, NOW
    )
    assert (status["phase"], condition(status, "Ready")) == ("Running", "True")
    assert status["podIP"] == "10.244.10.0"
    assert status["podIPs"] == [{"ip": "10.244.10.0"}, {"ip": "fd00::1"}]


def test_a_pod_with_a_container_between_restarts_is_running_but_not_ready():
    status = sandbox_status(pod("a", "b"), sandbox("a"), {}, NODE, NOW)
    assert (status["phase"], condition(status, "Ready")) == ("Running", "False")
    assert status["containerStatuses"][1]["state"] == {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("exits", "phase"),
    [({"a": 0, "b": 0}, "Succeeded"), ({"a": 0, "b": 1}, "Failed"), ({"a": 0}, "Running")],
)
def test_the_phase_follows_from_how_the_containers_ended(exits, phase):
    assert sandbox_status(pod("a", "b"), sandbox("a", "b"), exits, NODE, NOW)["phase"] == phase


def test_a_pod_on_the_hosts_network_has_the_nodes_address():
    status = sandbox_status(pod("a", host_network=True), sandbox("a", ips=()), {}, NODE, NOW)
    assert (status["podIP"], condition(status, "Ready")) == (NODE, "True")
