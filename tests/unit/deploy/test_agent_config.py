"""The optional ConfigMap of the agents' options, as an overlay would take it in."""

import kubernetes_validate
import pytest

from unit.deploy.manifests import overlaid

#: As the component's own comment says.
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../base]
components: [../extras/agent-config]
configMapGenerator:
  - name: fast-agent
    namespace: fast-system
    files: [agent.yaml]
    options: {disableNameSuffixHash: true}
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """The base with the component and the overlay's file."""
    return overlaid(tmp_path_factory.mktemp("deploy"), OVERLAY, agent="log-level: debug\n")


def test_the_agent_reads_the_file_where_it_is_mounted(documents):
    pod = documents["DaemonSet/fast-agent"]["spec"]["template"]["spec"]
    (agent,) = pod["containers"]
    environment = {item["name"]: item.get("value") for item in agent["env"]}
    (mount,) = [item for item in agent["volumeMounts"] if item["name"] == "config"]
    assert environment["FAST_AGENT_CONFIG"] == f"{mount['mountPath']}/agent.yaml"
    assert {"name": "config", "configMap": {"name": "fast-agent"}} in pod["volumes"]
    assert "subPath" not in mount


def test_the_overlays_file_comes_under_a_name_that_does_not_change(documents):
    assert documents["ConfigMap/fast-agent"]["data"] == {"agent.yaml": "log-level: debug\n"}


def test_all_of_it_is_valid(documents):
    for document in documents.values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
