"""Deployments and ReplicaSets, run by their controllers on the real store."""

import re

import pytest

from fakes.kubelet import Everything
from fast_playground.apiserver.kinds import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS

IMAGE = "/spec/template/spec/containers/0/image"


async def _roll(cluster, image: str = "busybox:2") -> None:
    patch = [{"op": "replace", "path": IMAGE, "value": image}]
    await cluster.api.patch(DEPLOYMENTS, "web", patch, "default", kind="json")


def _rolled_out(replicas: int) -> dict:
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return dict.fromkeys(names, replicas) | {"unavailableReplicas": 0}


def _condition(obj: dict, kind: str) -> tuple[str, str]:
    return next((c["status"], c["reason"]) for c in obj["status"]["conditions"] if c["type"] == kind)


async def test_a_deployment_makes_a_replica_set_which_makes_pods_as_kubernetes_does(cluster):
    await cluster.create("Deployment", "web")
    deployment = await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    assert deployment["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}
    assert deployment["metadata"]["generation"] == 1
    assert _condition(deployment, "Available") == ("True", "MinimumReplicasAvailable")
    assert _condition(deployment, "Progressing") == ("True", "NewReplicaSetAvailable")

    (replica_set,) = await cluster.api.list(REPLICA_SETS, "default")
    meta, digest = replica_set["metadata"], replica_set["metadata"]["labels"]["pod-template-hash"]
    assert meta["name"] == f"web-{digest}"
    assert meta["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
        "deployment.kubernetes.io/revision": "1",
    }
    owner = {"apiVersion": "apps/v1", "name": "web", "controller": True, "blockOwnerDeletion": True}
    assert meta["ownerReferences"] == [owner | {"kind": "Deployment", "uid": deployment["metadata"]["uid"]}]
    assert replica_set["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}

    pods = await cluster.pods()
    assert all(re.fullmatch(rf"web-{digest}-[a-z0-9]{{5}}", pod["metadata"]["name"]) for pod in pods)
    assert {pod["metadata"]["labels"]["pod-template-hash"] for pod in pods} == {digest}
    assert {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods} == {meta["uid"]}
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["n1", "n2"]


@pytest.mark.parametrize("replicas", [0, 1, 5])
async def test_scaling_ends_with_as_many_pods_as_asked_for(cluster, replicas):
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    await cluster.api.patch(
        DEPLOYMENTS, "web", {"spec": {"replicas": replicas}}, "default", subresource="scale"
    )
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(replicas), terminatingReplicas=0)
    assert len(await cluster.pods()) == replicas
    assert len(await cluster.api.list(REPLICA_SETS, "default")) == 1


async def test_a_rolling_update_never_has_too_few_available_nor_too_many_pods(cluster):
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    await cluster.create("Deployment", "web", replicas=4, strategy=strategy)
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(4))
    subscription = cluster.api.subscribe(REPLICA_SETS)
    _, _, first = await anext(subscription)
    await _roll(cluster)
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(4), terminatingReplicas=0)
    sizes, available, history = {first["metadata"]["name"]: 4}, {first["metadata"]["name"]: 4}, []
    async for _, _, item in subscription:
        sizes[item["metadata"]["name"]] = item["spec"]["replicas"]
        available[item["metadata"]["name"]] = item["status"].get("availableReplicas", 0)
        history.append((sum(sizes.values()), sum(available.values())))
        if len(sizes) == 2 and sorted(sizes.values()) == [0, 4] and sum(available.values()) == 4:
            break
    await subscription.aclose()
    assert max(wanted for wanted, _ in history) == 5
    assert min(count for _, count in history) >= 3
    assert {pod["spec"]["containers"][0]["image"] for pod in await cluster.pods()} == {"busybox:2"}


async def test_a_rollout_whose_pods_do_not_come_up_keeps_the_old_ones(cluster):
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    before = set(await cluster.pod_names())
    cluster.kubelet.holds = Everything()
    await _roll(cluster)
    deployment = await cluster.until_status(DEPLOYMENTS, "web", updatedReplicas=1, replicas=3)
    assert before < set(await cluster.pod_names())
    assert _condition(deployment, "Progressing") == ("True", "ReplicaSetUpdated")
    assert _condition(deployment, "Available")[0] == "True"
    assert deployment["status"]["availableReplicas"] == 2


async def test_recreate_ends_every_old_pod_before_it_makes_a_new_one(cluster):
    await cluster.create("Deployment", "web", strategy={"type": "Recreate"})
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    old = await cluster.pod_names()
    cluster.kubelet.keeps = {old[0]}
    await _roll(cluster)

    async def one_left() -> bool:
        return await cluster.pod_names() == old[:1]

    await cluster.until(one_left, "only the pod that takes its time")
    await cluster.api.delete(PODS, old[0], "default", grace_period_seconds=0)
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    assert not set(old) & set(await cluster.pod_names())


async def test_going_back_to_an_earlier_template_uses_its_replica_set_with_a_new_revision(cluster):
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    (first,) = await cluster.api.list(REPLICA_SETS, "default")
    for image in ("busybox:2", "busybox"):
        await _roll(cluster, image)
        deployment = await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    assert deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    sets = {item["metadata"]["name"]: item for item in await cluster.api.list(REPLICA_SETS, "default")}
    assert len(sets) == 2
    again = sets[first["metadata"]["name"]]
    assert again["spec"]["replicas"] == 2
    assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


async def test_a_paused_deployment_scales_but_does_not_roll(cluster):
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    await cluster.api.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}}, "default")
    await _roll(cluster)
    deployment = await cluster.until_status(DEPLOYMENTS, "web", replicas=2, updatedReplicas=0)
    assert _condition(deployment, "Progressing") == ("Unknown", "DeploymentPaused")
    await cluster.api.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}}, "default")
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))


async def test_a_pod_that_is_deleted_or_fails_is_replaced(cluster):
    await cluster.create("ReplicaSet", "web")
    await cluster.until_status(REPLICA_SETS, "web", readyReplicas=2)
    first, second = await cluster.pod_names()
    await cluster.api.delete(PODS, first, "default", grace_period_seconds=0)
    await cluster.api.patch(PODS, second, {"status": {"phase": "Failed"}}, "default", subresource="status")

    async def replaced() -> bool:
        return len(set(await cluster.pod_names()) - {first, second}) == 2

    await cluster.until(replaced, "two new pods")
    await cluster.until_status(REPLICA_SETS, "web", replicas=2, readyReplicas=2)


async def test_scaling_down_ends_the_pods_that_are_missed_least(cluster):
    await cluster.create("ReplicaSet", "web", replicas=3)
    await cluster.until_status(REPLICA_SETS, "web", readyReplicas=3)
    worse, *better = await cluster.pod_names()
    condition = {"type": "Ready", "status": "False"}
    await cluster.api.patch(
        PODS, worse, {"status": {"conditions": [condition]}}, "default", subresource="status"
    )
    await cluster.api.patch(REPLICA_SETS, "web", {"spec": {"replicas": 2}}, "default")
    await cluster.until_status(REPLICA_SETS, "web", replicas=2, terminatingReplicas=0)
    assert await cluster.pod_names() == better


async def test_a_pod_counts_as_available_only_after_it_was_ready_for_long_enough(cluster):
    cluster.kubelet.holds = Everything()
    await cluster.create("ReplicaSet", "web", replicas=1, minReadySeconds=2)
    await cluster.until_status(REPLICA_SETS, "web", replicas=1)
    (name,) = await cluster.pod_names()
    condition = {"type": "Ready", "status": "True"}
    patch = {"status": {"phase": "Running", "conditions": [condition]}}
    await cluster.api.patch(PODS, name, patch, "default", kind="strategic", subresource="status")
    await cluster.until_status(REPLICA_SETS, "web", readyReplicas=1, availableReplicas=0)
    await cluster.until_status(REPLICA_SETS, "web", readyReplicas=1, availableReplicas=1)


async def test_what_the_controllers_do_is_told_in_events(cluster):
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", **_rolled_out(2))
    events = await cluster.api.list(EVENTS, "default")
    reasons = [(event["involvedObject"]["kind"], event["reason"]) for event in events]
    assert reasons.count(("Deployment", "ScalingReplicaSet")) == 1
    assert reasons.count(("ReplicaSet", "SuccessfulCreate")) == 2
    assert reasons.count(("Pod", "Scheduled")) == 2
