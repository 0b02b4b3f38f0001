"""Garbage collection by ownerReferences, and the end of namespaces, on the real store."""

import asyncio

import pytest

from fast_playground.apiserver.api import ApiError
from fast_playground.apiserver.kinds import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    GVR,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
)

THINGS = GVR("example.org", "v1", "things")
ALL = (DEPLOYMENTS, REPLICA_SETS, PODS)


async def _left(cluster, *gvrs: GVR, namespace: str = "default") -> list[str]:
    return [obj["metadata"]["name"] for gvr in gvrs for obj in await cluster.api.list(gvr, namespace)]


def _config_map(name: str, *owners: dict) -> dict:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": item["metadata"]["name"],
            "uid": item["metadata"]["uid"],
        }
        for item in owners
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": references},
    }


async def _running(cluster) -> None:
    await cluster.create("Deployment", "web")
    await cluster.until_status(DEPLOYMENTS, "web", readyReplicas=2)


async def _none_left(cluster, *gvrs: GVR) -> bool:
    return not await _left(cluster, *gvrs)


async def test_what_a_deleted_object_owned_goes_in_the_background(cluster):
    await _running(cluster)
    await cluster.api.delete(DEPLOYMENTS, "web", "default")
    assert not await _left(cluster, DEPLOYMENTS)
    await cluster.until(lambda: _none_left(cluster, *ALL), "nothing left")


async def test_foreground_deletion_keeps_the_owner_until_its_dependents_are_gone(cluster):
    await _running(cluster)
    slow = (await cluster.pod_names())[0]
    cluster.kubelet.keeps = {slow}
    await cluster.api.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")

    async def one_pod_left() -> bool:
        return await cluster.pod_names() == [slow]

    await cluster.until(one_pod_left, "only the pod that takes its time")
    assert len(await _left(cluster, DEPLOYMENTS, REPLICA_SETS)) == 2
    await cluster.api.delete(PODS, slow, "default", grace_period_seconds=0)
    await cluster.until(lambda: _none_left(cluster, *ALL), "nothing left")


async def test_orphaned_dependents_outlive_their_owner(cluster):
    await _running(cluster)
    await cluster.api.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
    await cluster.until(lambda: _none_left(cluster, DEPLOYMENTS), "no Deployment")
    (replica_set,) = await cluster.api.list(REPLICA_SETS, "default")
    assert "ownerReferences" not in replica_set["metadata"]
    assert len(await cluster.pods()) == 2


async def test_an_object_goes_only_when_its_last_owner_has_gone(cluster):
    owners = [
        await cluster.api.create(CONFIG_MAPS, _config_map(name), "default") for name in ("owner-a", "owner-b")
    ]
    await cluster.api.create(CONFIG_MAPS, _config_map("owned", *owners), "default")
    await cluster.api.create(CONFIG_MAPS, _config_map("probe", owners[0]), "default")
    await cluster.api.delete(CONFIG_MAPS, "owner-a", "default")

    async def probe_gone() -> bool:
        return "probe" not in await _left(cluster, CONFIG_MAPS)

    await cluster.until(probe_gone, "the one with a single owner")
    assert sorted(await _left(cluster, CONFIG_MAPS)) == ["owned", "owner-b"]
    await cluster.api.delete(CONFIG_MAPS, "owner-b", "default")
    await cluster.until(lambda: _none_left(cluster, CONFIG_MAPS), "nothing left")


async def test_an_object_whose_owner_never_was_or_is_another_one_of_that_name_goes(cluster):
    owner = await cluster.api.create(CONFIG_MAPS, _config_map("owner"), "default")
    false_owner = {"metadata": owner["metadata"] | {"uid": "00000000-0000-0000-0000-000000000000"}}
    await cluster.api.create(CONFIG_MAPS, _config_map("owned", false_owner), "default")

    async def only_owner() -> bool:
        return await _left(cluster, CONFIG_MAPS) == ["owner"]

    await cluster.until(only_owner, "the owner alone")


async def test_an_owner_of_a_kind_nobody_knows_counts_as_alive(cluster):
    stranger = {"apiVersion": "example.org/v1", "kind": "Thing", "name": "x", "uid": "1"}
    obj = _config_map("owned")
    obj["metadata"]["ownerReferences"] = [stranger]
    await cluster.api.create(CONFIG_MAPS, obj, "default")
    probe = {"metadata": {"name": "none", "uid": "2"}}
    await cluster.api.create(CONFIG_MAPS, _config_map("probe", probe), "default")

    async def probe_gone() -> bool:
        return await _left(cluster, CONFIG_MAPS) == ["owned"]

    await cluster.until(probe_gone, "only the one with the unknown owner")


def _thing_definition() -> dict:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [version],
        },
    }


async def test_custom_objects_are_collected_too_also_of_kinds_that_come_later_or_come_back(cluster):
    for _ in range(2):  # the kind goes with an object of it, and comes back
        await cluster.api.create(CUSTOM_RESOURCE_DEFINITIONS, _thing_definition())
        owner = await cluster.api.create(CONFIG_MAPS, _config_map("owner"), "default")
        for name, owners in (("owned", [owner]), ("free", [])):
            thing = _config_map(name, *owners) | {"apiVersion": "example.org/v1", "kind": "Thing"}
            await cluster.api.create(THINGS, thing, "default")
        await cluster.api.delete(CONFIG_MAPS, "owner", "default")

        async def only_free_left() -> bool:
            return await _left(cluster, THINGS) == ["free"]

        await cluster.until(only_free_left, "only the thing that nobody owns")
        await cluster.api.delete(CUSTOM_RESOURCE_DEFINITIONS, "things.example.org")
        await asyncio.sleep(0.2)  # long enough for the collector to have seen the end
    await _running(cluster)  # the collector took the end of the kind in its stride
    await cluster.api.delete(DEPLOYMENTS, "web", "default")
    await cluster.until(lambda: _none_left(cluster, *ALL), "nothing left")


async def test_nothing_is_made_of_a_kind_whose_definition_goes_at_the_same_time(cluster):
    await cluster.api.create(CUSTOM_RESOURCE_DEFINITIONS, _thing_definition())
    thing = _config_map("late") | {"apiVersion": "example.org/v1", "kind": "Thing"}
    _, made = await asyncio.gather(
        cluster.api.delete(CUSTOM_RESOURCE_DEFINITIONS, "things.example.org"),
        cluster.api.create(THINGS, thing, "default"),
        return_exceptions=True,
    )
    assert isinstance(made, ApiError)
    assert made.code == 404
    await cluster.api.create(CUSTOM_RESOURCE_DEFINITIONS, _thing_definition())
    assert await cluster.api.list(THINGS) == []


async def test_a_namespace_goes_after_everything_in_it(cluster):
    await cluster.api.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    )
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "busybox"}], "terminationGracePeriodSeconds": 1},
        },
    }
    web = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    await cluster.api.create(DEPLOYMENTS, web, "shop")

    async def pod_runs() -> bool:
        return [pod["status"]["phase"] for pod in await cluster.pods("shop")] == ["Running"]

    await cluster.until(pod_runs, "a running pod")
    (pod,) = await cluster.pods("shop")
    cluster.kubelet.keeps = {pod["metadata"]["name"]}
    answer = await cluster.api.delete(NAMESPACES, "shop")
    assert answer["status"]["phase"] == "Terminating"

    async def only_pod_left() -> bool:
        return await _left(cluster, *ALL, SERVICE_ACCOUNTS, namespace="shop") == [pod["metadata"]["name"]]

    await cluster.until(only_pod_left, "only the pod that takes its time")
    with pytest.raises(ApiError, match="because it is being terminated"):
        await cluster.api.create(CONFIG_MAPS, _config_map("late"), "shop")
    await cluster.api.delete(PODS, pod["metadata"]["name"], "shop", grace_period_seconds=0)

    async def gone() -> bool:
        return "shop" not in await _left(cluster, NAMESPACES, namespace=None)

    await cluster.until(gone, "no namespace")


async def test_the_default_service_account_comes_back(cluster):
    await cluster.api.delete(SERVICE_ACCOUNTS, "default", "default")

    async def there() -> bool:
        return await _left(cluster, SERVICE_ACCOUNTS) == ["default"]

    await cluster.until(there, "the account")
