"""The official Python client on the real server: an independent client, for built-in and custom resources."""

import time
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

from e2e.kubectl import serving

_CRDS = Path(__file__).parents[2] / "deploy" / "crds"
_IPS = ("sample.fast.io", "v1alpha1", "ipses")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    place = tmp_path_factory.mktemp("official")
    with serving(place), config.new_client_from_config(str(place / "kubeconfig")) as made:
        extensions = client.ApiextensionsV1Api(made)
        for path in sorted(_CRDS.glob("*.yaml")):
            extensions.create_custom_resource_definition(yaml.safe_load(path.read_text()))
        yield made


@pytest.fixture
def namespace(api):
    """A namespace of the test's own."""
    core = client.CoreV1Api(api)
    body = client.V1Namespace(metadata=client.V1ObjectMeta(generate_name="test-"))
    name = core.create_namespace(body).metadata.name
    yield name
    core.delete_namespace(name)


def _config_map(name: str, **data: str) -> client.V1ConfigMap:
    meta = client.V1ObjectMeta(name=name, labels={"app": name})
    return client.V1ConfigMap(metadata=meta, data=data)


def _ips(name: str) -> dict:
    spec = {"subnet": "10.9.0.0/16", "ips": ["10.9.1.0-10.9.1.9"]}
    return {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "Ips",
        "metadata": {"name": name, "labels": {"test": name}},
        "spec": spec,
    }


def test_an_object_is_created_read_replaced_patched_and_deleted(api, namespace):
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(namespace, _config_map("a", x="1"))
    assert made.metadata.uid
    made.data["y"] = "2"
    replaced = core.replace_namespaced_config_map("a", namespace, made)
    assert int(replaced.metadata.resource_version) > int(made.metadata.resource_version)
    patched = core.patch_namespaced_config_map("a", namespace, {"data": {"x": None}})
    assert patched.data == {"y": "2"}
    assert core.read_namespaced_config_map("a", namespace) == patched
    assert core.delete_namespaced_config_map("a", namespace)["status"] == "Success"
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("a", namespace)
    assert (caught.value.status, caught.value.reason) == (404, "Not Found")


def test_a_write_from_an_old_state_is_a_conflict(api, namespace):
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(namespace, _config_map("a"))
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
    with pytest.raises(ApiException) as caught:
        core.replace_namespaced_config_map("a", namespace, made)
    assert caught.value.status == 409


def test_lists_come_in_pages_and_by_selector(api, namespace):
    core = client.CoreV1Api(api)
    for name in "abc":
        core.create_namespaced_config_map(namespace, _config_map(name))
    first = core.list_namespaced_config_map(namespace, limit=2)
    assert (len(first.items), first.metadata.remaining_item_count) == (2, 1)
    rest = core.list_namespaced_config_map(namespace, limit=2, _continue=first.metadata._continue)
    assert [item.metadata.name for item in first.items + rest.items] == ["a", "b", "c"]
    some = core.list_namespaced_config_map(namespace, label_selector="app in (a, c)")
    assert [item.metadata.name for item in some.items] == ["a", "c"]
    one = core.list_namespaced_config_map(namespace, field_selector="metadata.name=b")
    assert [item.metadata.name for item in one.items] == ["b"]


def test_a_watch_goes_on_from_a_list(api, namespace):
    core = client.CoreV1Api(api)
    version = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, _config_map("a", x="1"))
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "2"}})
    core.delete_namespaced_config_map("a", namespace)
    seen = watch.Watch().stream(
        core.list_namespaced_config_map, namespace, resource_version=version, timeout_seconds=1
    )
    shown = [(event["type"], event["object"].data["x"]) for event in seen]
    assert shown == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_a_watch_from_a_future_version_is_refused(api, namespace):
    core = client.CoreV1Api(api)
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, namespace, resource_version="999999999", timeout_seconds=1
    )
    with pytest.raises(ApiException) as caught:
        list(stream)
    assert "Too large resource version" in str(caught.value)


def test_a_deployment_becomes_pods_and_scales_by_its_subresource(api, namespace):
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="busybox")]),
    )
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template
    )
    body = client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    apps.create_namespaced_deployment(namespace, body)
    assert apps.read_namespaced_deployment_scale("web", namespace).spec.replicas == 1
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 3}})
    deadline = time.monotonic() + 30
    while len(core.list_namespaced_pod(namespace, label_selector="app=web").items) != 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lease_is_renewed_with_microseconds(api, namespace):
    leases = client.CoordinationV1Api(api)
    spec = client.V1LeaseSpec(holder_identity="a", lease_duration_seconds=15)
    body = client.V1Lease(metadata=client.V1ObjectMeta(name="leader"), spec=spec)
    made = leases.create_namespaced_lease(namespace, body)
    made.spec.holder_identity = "b"
    assert leases.replace_namespaced_lease("leader", namespace, made).spec.holder_identity == "b"


def test_a_custom_object_is_validated_and_keeps_its_status_apart(api):
    custom = client.CustomObjectsApi(api)
    made = custom.create_cluster_custom_object(*_IPS, _ips("crud"))
    assert made["spec"]["releaseDelaySeconds"] == 30  # the schema's default
    made["status"] = {"totalIPCount": 10}
    assert "status" not in custom.replace_cluster_custom_object(*_IPS, "crud", made)
    stated = custom.patch_cluster_custom_object_status(*_IPS, "crud", {"status": {"totalIPCount": 10}})
    assert stated["status"]["totalIPCount"] == 10
    with pytest.raises(ApiException) as caught:
        custom.patch_cluster_custom_object(*_IPS, "crud", {"spec": {"subnet": 5}})
    assert caught.value.status == 422
    custom.delete_cluster_custom_object(*_IPS, "crud")


def test_the_dynamic_client_finds_and_changes_built_in_and_custom_kinds(api, namespace):
    found = dynamic.DynamicClient(api).resources
    maps = found.get(api_version="v1", kind="ConfigMap")
    maps.create(body={"metadata": {"name": "a"}, "data": {"x": "1"}}, namespace=namespace)
    maps.patch(
        name="a", namespace=namespace, body={"data": {"x": "2"}}, content_type="application/merge-patch+json"
    )
    assert maps.get(name="a", namespace=namespace).data.x == "2"
    ipses = found.get(api_version="sample.fast.io/v1alpha1", kind="Ips")
    assert not ipses.namespaced
    ipses.create(body=_ips("dynamic"))
    listed = ipses.get(label_selector="test=dynamic")
    assert [item.metadata.name for item in listed.items] == ["dynamic"]
    ipses.delete(name="dynamic")


def test_the_dynamic_client_applies_on_the_server_side(api):
    ipses = dynamic.DynamicClient(api).resources.get(api_version="sample.fast.io/v1alpha1", kind="Ips")
    made = ipses.server_side_apply(body=_ips("applied"), field_manager="one")
    assert [entry.manager for entry in made.metadata.managedFields] == ["one"]
    other = _ips("applied")
    other["spec"]["subnet"] = "10.8.0.0/16"
    with pytest.raises(ApiException) as caught:
        ipses.server_side_apply(body=other, field_manager="two")
    assert caught.value.status == 409
    ipses.delete(name="applied")


def test_the_dynamic_client_watches_custom_objects(api):
    ipses = dynamic.DynamicClient(api).resources.get(api_version="sample.fast.io/v1alpha1", kind="Ips")
    version = ipses.get().metadata.resourceVersion
    ipses.create(body=_ips("watched"))
    ipses.delete(name="watched")
    seen = ipses.watch(resource_version=version, timeout=1)
    shown = [(event["type"], event["object"].metadata.name) for event in seen]
    assert shown == [("ADDED", "watched"), ("DELETED", "watched")]


def test_a_client_without_a_token_is_not_let_in(api):
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert = api.configuration.host, api.configuration.ssl_ca_cert
    with client.ApiClient(settings) as stranger, pytest.raises(ApiException) as caught:
        client.CoreV1Api(stranger).list_node()
    assert caught.value.status == 401
