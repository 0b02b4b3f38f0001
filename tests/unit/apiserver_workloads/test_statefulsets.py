"""StatefulSets, run by their controller on the real store."""

import asyncio

from fast_playground.apiserver.kinds import PODS, STATEFUL_SETS


async def _ready(cluster, count: int, name: str = "db") -> dict:
    return await cluster.until_status(
        STATEFUL_SETS, name, replicas=count, readyReplicas=count, updatedReplicas=count
    )


async def _watch_pods(cluster, seen: list[tuple[str, str]]) -> None:
    """Note the order in which pods are made, become ready, are marked and go."""
    async for event, _, pod in cluster.api.subscribe(PODS):
        meta, ready = pod["metadata"], pod["status"]["phase"] == "Running"
        marked = "deletionTimestamp" in meta
        what = "gone" if event == "DELETED" else "marked" if marked else "ready" if ready else "made"
        if (meta["name"], what) not in seen[-1:]:
            seen.append((meta["name"], what))


async def test_pods_start_in_order_each_when_the_one_before_is_ready(cluster):
    cluster.kubelet.holds = {"db-1"}
    await cluster.create("StatefulSet", "db", replicas=3, serviceName="db")
    await cluster.until_status(STATEFUL_SETS, "db", replicas=2, readyReplicas=1)
    assert await cluster.pod_names() == ["db-0", "db-1"]
    await cluster.kubelet.make_ready("db-1")
    stateful_set = await _ready(cluster, 3)
    status, (first, *_) = stateful_set["status"], await cluster.pods()
    assert status["currentRevision"] == status["updateRevision"]
    assert status["currentReplicas"] == status["availableReplicas"] == 3
    assert first["metadata"]["labels"] == {
        "app": "db",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": status["updateRevision"],
        "statefulset.kubernetes.io/pod-name": "db-0",
    }
    assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == ("db-0", "db")


async def test_scaling_down_ends_the_highest_first_and_one_at_a_time(cluster):
    await cluster.create("StatefulSet", "db", replicas=4)
    await _ready(cluster, 4)
    seen: list[tuple[str, str]] = []
    watch = asyncio.create_task(_watch_pods(cluster, seen))
    await cluster.api.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, "default", subresource="scale")
    await _ready(cluster, 1)
    watch.cancel()
    ends = [step for step in seen if step[1] in ("marked", "gone")]
    assert ends == [(f"db-{number}", step) for number in (3, 2, 1) for step in ("marked", "gone")]


async def test_ordinals_may_start_elsewhere(cluster):
    await cluster.create("StatefulSet", "db", ordinals={"start": 5})
    await _ready(cluster, 2)
    assert await cluster.pod_names() == ["db-5", "db-6"]


async def test_moving_the_first_ordinal_replaces_the_pods_outside_the_new_range(cluster):
    await cluster.create("StatefulSet", "db")
    await _ready(cluster, 2)
    await cluster.api.patch(STATEFUL_SETS, "db", {"spec": {"ordinals": {"start": 1}}}, "default")
    await cluster.until(lambda: _names_are(cluster, ["db-1", "db-2"]), "db-1 and db-2")


async def _names_are(cluster, names: list[str]) -> bool:
    return await cluster.pod_names() == names


async def test_parallel_management_waits_for_nobody(cluster):
    cluster.kubelet.holds = {"db-0", "db-1", "db-2"}
    await cluster.create("StatefulSet", "db", replicas=3, podManagementPolicy="Parallel")
    await cluster.until_status(STATEFUL_SETS, "db", replicas=3, readyReplicas=0)
    await cluster.api.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, "default")
    await cluster.until(lambda: _names_are(cluster, ["db-0"]), "db-0 alone")


async def test_a_deleted_pod_comes_back_under_its_name(cluster):
    await cluster.create("StatefulSet", "db")
    await _ready(cluster, 2)
    before = await cluster.api.get(PODS, "db-0", "default")
    await cluster.api.delete(PODS, "db-0", "default")

    async def is_new() -> bool:
        pods = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await cluster.pods()}
        return pods.get("db-0", before["metadata"]["uid"]) != before["metadata"]["uid"]

    await cluster.until(is_new, "another db-0")
    await _ready(cluster, 2)


async def test_an_update_replaces_pods_from_the_top_and_waits_for_each(cluster):
    await cluster.create("StatefulSet", "db", replicas=3)
    old = (await _ready(cluster, 3))["status"]["currentRevision"]
    seen: list[tuple[str, str]] = []
    watch = asyncio.create_task(_watch_pods(cluster, seen))
    template = {"metadata": {"annotations": {"v": "2"}}}
    await cluster.api.patch(STATEFUL_SETS, "db", {"spec": {"template": template}}, "default")
    status = (await _ready(cluster, 3))["status"]
    watch.cancel()
    assert status["currentRevision"] == status["updateRevision"] != old
    steps = [step for step in seen if step[1] in ("marked", "made")]
    assert steps == [(f"db-{number}", step) for number in (2, 1, 0) for step in ("marked", "made")]


async def test_a_partition_keeps_the_pods_below_it(cluster):
    await cluster.create("StatefulSet", "db", updateStrategy={"rollingUpdate": {"partition": 1}})
    await _ready(cluster, 2)
    template = {"metadata": {"annotations": {"v": "2"}}}
    await cluster.api.patch(STATEFUL_SETS, "db", {"spec": {"template": template}}, "default")
    await cluster.until_status(STATEFUL_SETS, "db", updatedReplicas=1, readyReplicas=2, currentReplicas=1)
    first, second = sorted(await cluster.pods(), key=lambda pod: pod["metadata"]["name"])
    assert "annotations" not in first["metadata"]
    assert second["metadata"]["annotations"] == {"v": "2"}
