"""Nodes that are not ready, are fenced or go, and what becomes of their pods."""

import pytest

from fast_playground.apiserver.kinds import DEPLOYMENTS, NODES
from fast_playground.apiserver.workloads.owned_pods import MANAGER


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
    await cluster.until(lambda: _taints_are(cluster, "n1", [(key, "NoSchedule")]), "the taint")
    await _set_ready(cluster, "n1", "True")
    await cluster.until(lambda: _taints_are(cluster, "n1", []), "no taint")


async def _taints_are(cluster, node: str, wanted: list) -> bool:
    return await _taints(cluster, node) == wanted


async def test_taints_of_others_stay(cluster):
    taint = {"key": "mine", "effect": "NoSchedule"}
    await cluster.api.patch(NODES, "n1", {"spec": {"taints": [taint]}})
    await _set_ready(cluster, "n1", "False")
    wanted = [("mine", "NoSchedule"), ("node.kubernetes.io/not-ready", "NoSchedule")]
    await cluster.until(lambda: _taints_are(cluster, "n1", wanted), "both taints")
    await _set_ready(cluster, "n1", "True")
    await cluster.until(lambda: _taints_are(cluster, "n1", wanted[:1]), "the foreign taint")


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


async def test_controllers_collect_no_warnings_that_nobody_reads(cluster):
    await cluster.api.patch(NODES, "n1", {"spec": {"nonsense": 1}}, options=MANAGER)
    assert MANAGER.warnings == []
