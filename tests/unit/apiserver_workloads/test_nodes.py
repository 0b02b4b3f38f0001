"""Nodes that fall silent, are fenced or go, and what becomes of their pods."""

import pytest

from fast_playground.apiserver.kinds import DEPLOYMENTS, LEASES, NAMESPACES, NODES, PODS
from fast_playground.apiserver.workloads.owned_pods import MANAGER

LEASE_NAMESPACE = "kube-node-lease"


async def _taints(cluster, node: str) -> list[tuple[str, str]]:
    spec = (await cluster.api.get(NODES, node))["spec"]
    return [(taint["key"], taint["effect"]) for taint in spec.get("taints") or []]


async def _set_ready(cluster, node: str, status: str) -> None:
    conditions = [{"type": "Ready", "status": status}]
    await cluster.api.patch(NODES, node, {"status": {"conditions": conditions}}, subresource="status")


async def _running(cluster) -> dict[str, str]:
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", readyReplicas=2)
    return {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in await cluster.pods()}


async def test_a_node_is_tainted_while_it_is_not_ready(cluster):
    await cluster.until(lambda: _taints_are(cluster, "n1", []), "no taint")
    await _set_ready(cluster, "n1", "False")
    key = "node.kubernetes.io/not-ready"
    await cluster.until(
        lambda: _taints_are(cluster, "n1", [(key, "NoSchedule"), (key, "NoExecute")]), "taints"
    )
    await _set_ready(cluster, "n1", "True")
    await cluster.until(lambda: _taints_are(cluster, "n1", []), "no taint")


async def _taints_are(cluster, node: str, wanted: list) -> bool:
    return await _taints(cluster, node) == wanted


async def test_taints_of_others_stay(cluster):
    taint = {"key": "mine", "effect": "NoSchedule"}
    await cluster.api.patch(NODES, "n1", {"spec": {"taints": [taint], "unschedulable": True}})
    wanted = [("mine", "NoSchedule"), ("node.kubernetes.io/unschedulable", "NoSchedule")]
    await cluster.until(lambda: _taints_are(cluster, "n1", wanted), "both taints")
    await cluster.api.patch(NODES, "n1", {"spec": {"unschedulable": None}})
    await cluster.until(lambda: _taints_are(cluster, "n1", wanted[:1]), "the foreign taint")


@pytest.mark.parametrize("cluster", [1.0], indirect=True)
async def test_a_node_that_no_longer_renews_its_lease_becomes_unreachable(cluster):
    lease_namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASE_NAMESPACE}}
    await cluster.api.create(NAMESPACES, lease_namespace)
    spec = {"holderIdentity": "n1", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 40}
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "n1"},
        "spec": spec,
    }
    await cluster.api.create(LEASES, lease, LEASE_NAMESPACE)

    async def unreachable() -> bool:
        conditions = (await cluster.api.get(NODES, "n1"))["status"]["conditions"]
        ready = next(item for item in conditions if item["type"] == "Ready")
        return ready["status"] == "Unknown" and ready["reason"] == "NodeStatusUnknown"

    await cluster.until(unreachable, "Ready Unknown")
    key = "node.kubernetes.io/unreachable"
    await cluster.until(
        lambda: _taints_are(cluster, "n1", [(key, "NoSchedule"), (key, "NoExecute")]), "taints"
    )
    assert await _taints(cluster, "n2") == []


async def test_pods_leave_a_node_at_once_that_is_fenced(cluster):
    pods = await _running(cluster)
    cluster.kubelet.keeps = {pods["n1"]}  # nobody there to end it in an orderly way
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    await cluster.api.patch(NODES, "n1", {"spec": {"taints": [taint]}})

    async def moved() -> bool:
        found = await cluster.pods()
        return pods["n1"] not in await cluster.pod_names() and all(
            p["spec"].get("nodeName") == "n2" for p in found
        )

    await cluster.until(moved, "both pods on n2")


@pytest.mark.parametrize("cluster", [0.5], indirect=True)
async def test_pods_of_a_node_that_is_gone_go_after_the_grace_time(cluster):
    pods = await _running(cluster)
    await cluster.api.delete(NODES, "n1")

    async def gone() -> bool:
        return pods["n1"] not in await cluster.pod_names()

    await cluster.until(gone, "the orphan gone")
    await cluster.until_status(DEPLOYMENTS, "web", readyReplicas=2)


async def test_a_pod_that_tolerates_a_taint_for_some_seconds_is_evicted_after_them(cluster):
    spec = {
        "containers": [{"name": "c", "image": "busybox"}],
        "nodeName": "n1",
        "terminationGracePeriodSeconds": 1,
    }
    for name, tolerations in (
        ("never", []),
        ("some", [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]),
        ("always", [{"key": "k", "operator": "Exists"}]),
    ):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": spec | {"tolerations": tolerations},
        }
        await cluster.api.create(PODS, pod, "default")
    await cluster.api.patch(NODES, "n1", {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})

    async def one_left() -> bool:
        return await cluster.pod_names() == ["always"]

    await cluster.until(one_left, "only the one that tolerates it")


async def test_controllers_collect_no_warnings_that_nobody_reads(cluster):
    await cluster.api.patch(NODES, "n1", {"spec": {"nonsense": 1}}, options=MANAGER)
    assert MANAGER.warnings == []
