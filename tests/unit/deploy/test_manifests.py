"""What deploy/ installs: valid, the same by kustomize and by Helm, and with no more rights than are used."""

import shutil

import kubernetes_validate
import pytest
from helm_python import HelmError

from fast.api import crds
from fast_playground.cluster import fast_roles
from unit.deploy.manifests import BASE, CHART, CLEAN, DOCTOR, chart_crds, kustomized, lint, rendered

POD_OWNERS = ("DaemonSet/fast-agent", "Deployment/fast-controller-manager")
#: As docs/operate/install.md has it.
REGISTRY_OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../deploy/{part}]
images: [{{name: fast, newName: registry.example/fast, newTag: 0.1.0}}]
"""
#: What Helm makes by --create-namespace.
NOT_IN_THE_CHART = {"Namespace/fast-system"}


def _containers(document):
    pod = document["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("version", ["1.30", "1.34", kubernetes_validate.latest_version()])
def test_every_manifest_is_valid_in_the_schema_of_kubernetes(version):
    for document in (kustomized() | kustomized(CLEAN) | kustomized(DOCTOR)).values():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_chart_renders_to_exactly_the_kustomize_base():
    base = {name: document for name, document in kustomized().items() if name not in NOT_IN_THE_CHART}
    assert rendered() | chart_crds() == base


def test_the_chart_passes_the_linter_of_helm():
    assert lint() == []
    assert lint({"defaultPool": {"subnet": "10.244.0.0/16"}}) == []


def test_the_crds_of_the_chart_are_those_of_the_types():
    assert {document["metadata"]["name"] + ".yaml" for document in chart_crds().values()} == set(
        crds.manifests()
    )


def test_image_replicas_arguments_and_namespace_are_settable():
    documents = rendered(
        {
            "image": {"repository": "registry.example/fast", "tag": "2", "pullSecrets": [{"name": "key"}]},
            "agent": {"args": ["--routing=native"], "env": [{"name": "FAST_VNI", "value": "7"}]},
            "controller": {"replicas": 3},
        },
        namespace="net",
    )
    agent, controller = (documents[name] for name in POD_OWNERS)
    images = {container["image"] for owner in (agent, controller) for container in _containers(owner)}
    assert images == {"registry.example/fast:2"}
    pod = agent["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["--routing=native"]
    assert {"name": "FAST_VNI", "value": "7"} in pod["containers"][0]["env"]
    assert pod["imagePullSecrets"] == [{"name": "key"}]
    assert controller["spec"]["replicas"] == 3
    assert documents["ServiceAccount/fast-agent"]["metadata"]["namespace"] == "net"
    policy = documents["ValidatingAdmissionPolicy/fast-agent-own-records"]["spec"]
    assert "system:serviceaccount:net:fast-agent" in policy["matchConditions"][0]["expression"]
    for document in documents.values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_chart_can_leave_the_replacing_of_agents_to_who_deletes_their_pods():
    agent = rendered({"agent": {"updateStrategy": {"type": "OnDelete"}}})["DaemonSet/fast-agent"]
    assert agent["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_a_node_is_cleaned_exactly_where_its_label_keeps_the_agent_away():
    agent, clean = (
        documents[f"DaemonSet/{name}"]["spec"]["template"]["spec"]
        for documents, name in ((kustomized(), "fast-agent"), (kustomized(CLEAN), "fast-clean"))
    )
    (term,) = agent["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term == {
        "matchExpressions": [{"key": "fast.io/agent", "operator": "NotIn", "values": ["disabled"]}]
    }
    assert clean["nodeSelector"]["fast.io/agent"] == "disabled"


@pytest.mark.parametrize("part", [BASE, CLEAN, DOCTOR], ids=lambda path: path.name)
def test_one_overlay_takes_every_container_from_a_registry(part, tmp_path):
    shutil.copytree(BASE.parent, tmp_path / "deploy")
    overlay = tmp_path / "overlays" / part.name
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text(REGISTRY_OVERLAY.format(part=part.name))
    images = {
        container["image"]
        for document in kustomized(overlay).values()
        if document["kind"] in ("DaemonSet", "Deployment")
        for container in _containers(document)
    }
    assert images == {"registry.example/fast:0.1.0"}


def test_the_chart_makes_the_default_pool_where_a_subnet_is_given():
    pool = rendered({"defaultPool": {"subnet": "10.244.0.0/16", "ips": ["10.244.1.0/24"]}})["Ips/default-ips"]
    assert pool["spec"] == {"subnet": "10.244.0.0/16", "ips": ["10.244.1.0/24"]}


@pytest.mark.parametrize(
    "values",
    [
        {"agnet": {}},
        {"controller": {"replicas": 0}},
        {"agent": {"args": "--vni=1"}},
        {"agent": {"updateStrategy": {"type": "ondelete"}}},
    ],
)
def test_a_value_that_is_none_is_refused(values):
    with pytest.raises(HelmError):
        rendered(values)


def test_the_playground_grants_exactly_the_rights_of_the_installation():
    kinds = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount")

    def essence(documents):
        return {
            f"{one['kind']}/{one['metadata']['name']}": (
                one["metadata"].get("namespace"),
                one.get("rules"),
                one.get("roleRef"),
                one.get("subjects"),
            )
            for one in documents
            if one["kind"] in kinds
        }

    assert essence(fast_roles.manifests()) == essence(kustomized().values())


def test_the_playground_enforces_the_admission_policies_of_the_installation():
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    shipped = {name: one["spec"] for name, one in kustomized().items() if one["kind"] in kinds}
    assert len(shipped) >= 2
    enforced = fast_roles.admission_policies()
    assert {f"{one['kind']}/{one['metadata']['name']}": one["spec"] for one in enforced} == shipped


def test_an_agent_may_write_nothing_but_addresses_its_node_and_events():
    roles = [kustomized()[f"{kind}/fast-agent"] for kind in ("ClusterRole", "Role")]
    writes = {
        (resource, verb)
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }
    addresses = {("ipendpoints", verb) for verb in ("create", "update", "delete")}
    node = {("fastnodes", "create"), ("fastnodes", "update"), ("fastnodes/status", "patch")}
    heartbeat = {("leases", "create"), ("leases", "patch")}
    assert writes == addresses | node | heartbeat | {("events", "create"), ("events", "patch")}


@pytest.mark.parametrize("name", POD_OWNERS)
def test_no_container_is_privileged_or_can_write_to_its_own_image(name):
    for container in _containers(kustomized()[name]):
        context = container["securityContext"]
        assert not context.get("privileged")
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]


def test_only_the_agent_has_capabilities_and_the_controller_is_not_root():
    agent, controller = (kustomized()[name]["spec"]["template"]["spec"] for name in POD_OWNERS)
    assert "add" not in agent["initContainers"][0]["securityContext"]["capabilities"]
    assert "add" not in controller["containers"][0]["securityContext"]["capabilities"]
    assert controller["securityContext"]["runAsNonRoot"] is True


def test_version_of_chart_image_and_package_agree():
    import fast

    assert rendered()["DaemonSet/fast-agent"]["spec"]["template"]["spec"]["containers"][0]["image"].endswith(
        f":{fast.__version__}"
    )
    assert f"appVersion: {fast.__version__}\n" in (CHART / "Chart.yaml").read_text()


def test_the_controller_prefers_the_control_planes_nodes_and_runs_without_any():
    pod = kustomized()["Deployment/fast-controller-manager"]["spec"]["template"]["spec"]
    affinity = pod["affinity"]["nodeAffinity"]
    ((preferred,),) = [
        [item["preference"]] for item in affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    ]
    assert preferred["matchExpressions"] == [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
    ]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity
    assert any(item.get("key") == "node-role.kubernetes.io/control-plane" for item in pod["tolerations"])
