"""Which node a pod gets, and why it gets none."""

import pytest

from fast_playground.apiserver.kinds import DEPLOYMENTS, NODES, PODS
from fast_playground.apiserver.workloads.scheduler import find_obstacle

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}


def _node(*, labels: dict | None = None, status: dict = READY, **spec) -> dict:
    return {"metadata": {"name": "n1", "labels": labels or {}}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("pod", "node", "fits"),
    [
        ({}, _node(), True),
        ({}, _node(status={}), False),
        ({}, _node(status={"conditions": [{"type": "Ready", "status": "Unknown"}]}), False),
        ({}, _node(unschedulable=True), False),
        ({}, _node(taints=[TAINT]), False),
        ({}, _node(taints=[TAINT | {"effect": "PreferNoSchedule"}]), True),
        ({"tolerations": [{"key": "k", "value": "v"}]}, _node(taints=[TAINT]), True),
        ({"tolerations": [{"key": "k", "value": "other"}]}, _node(taints=[TAINT]), False),
        ({"tolerations": [{"key": "k", "operator": "Exists"}]}, _node(taints=[TAINT]), True),
        ({"tolerations": [{"operator": "Exists"}]}, _node(taints=[TAINT]), True),
        ({"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]}, _node(taints=[TAINT]), False),
        ({"nodeSelector": {"zone": "a"}}, _node(labels={"zone": "a"}), True),
        ({"nodeSelector": {"zone": "a"}}, _node(labels={"zone": "b"}), False),
        ({"affinity": {"nodeAffinity": {}}}, _node(), True),
        ({"affinity": {"nodeAffinity": {"preferred": []}}}, _node(), False),
    ],
)
def test_a_pod_fits_where_node_selector_and_taints_let_it(pod, node, fits):
    assert (find_obstacle({"spec": pod}, node) is None) is fits


async def _nodes_of(cluster, app: str) -> list[str]:
    pods = [pod for pod in await cluster.pods() if pod["metadata"]["labels"]["app"] == app]
    return [pod["spec"].get("nodeName", "") for pod in sorted(pods, key=lambda pod: int(_bound(pod)))]


def _bound(pod: dict) -> str:
    return pod["metadata"]["creationTimestamp"].translate({ord(c): None for c in "-:TZ"})


async def test_replicas_of_two_deployments_land_one_on_each_node(cluster):
    for app in ("busybox", "busybox1"):
        await cluster.create("Deployment", app)
        await cluster.until_status(DEPLOYMENTS, app, readyReplicas=2)
        assert sorted(await _nodes_of(cluster, app)) == ["n1", "n2"]


async def test_a_single_pod_goes_to_the_emptiest_node_and_the_first_by_name(cluster):
    for app, node in (("a", "n1"), ("b", "n2"), ("c", "n1")):
        await cluster.create("Deployment", app, replicas=1)
        await cluster.until_status(DEPLOYMENTS, app, readyReplicas=1)
        assert await _nodes_of(cluster, app) == [node]


async def test_a_pod_that_fits_nowhere_says_why_and_is_bound_once_it_fits(cluster):
    for node in ("n1", "n2"):
        await cluster.api.patch(NODES, node, {"spec": {"unschedulable": True}})
    await cluster.create("Deployment", "web", replicas=1)

    async def refused() -> bool:
        conditions = [c for pod in await cluster.pods() for c in pod["status"].get("conditions") or []]
        return any(
            c["reason"] == "Unschedulable" and "0/2 nodes are available" in c["message"] for c in conditions
        )

    await cluster.until(refused, "the reason")
    await cluster.api.patch(NODES, "n2", {"spec": {"unschedulable": None}})
    await cluster.until_status(DEPLOYMENTS, "web", readyReplicas=1)
    (pod,) = await cluster.pods()
    assert pod["spec"]["nodeName"] == "n2"
    scheduled = [c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"]
    assert [c["status"] for c in scheduled] == ["True"]


async def test_pods_of_other_schedulers_are_left_alone(cluster):
    spec = {"containers": [{"name": "c", "image": "busybox"}], "schedulerName": "none"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "labels": {"app": "x"}},
        "spec": spec,
    }
    await cluster.api.create(PODS, pod, "default")
    await cluster.create("Deployment", "web", replicas=1)
    await cluster.until_status(DEPLOYMENTS, "web", readyReplicas=1)
    assert "nodeName" not in (await cluster.api.get(PODS, "alone", "default"))["spec"]
