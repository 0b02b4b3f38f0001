"""A real kubectl meets the admission policies that Fast ships, as an agent would."""

from pathlib import Path

import pytest

from e2e.kubectl import serving

_DEPLOY = Path(__file__).parents[2] / "deploy"
_AGENT = "--as=system:serviceaccount:fast-system:fast-agent"
_FAST_NODE = """
apiVersion: sample.fast.io/v1alpha1
kind: FastNode
metadata: {name: n1}
spec: {addresses: [192.0.2.1], nodeUID: u, bootID: b, routing: vxlan, version: v}
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("policies")) as run:
        run.check("create", "-k", str(_DEPLOY / "crds"))
        run.check("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
        run.check("create", "namespace", "fast-system")
        for policy in ("agent-own-node", "agent-own-records"):
            run.check("create", "-f", str(_DEPLOY / "base" / f"{policy}.yaml"))
        run.check("create", "-n", "fast-system", "-f", str(_DEPLOY / "base" / "agent-rbac.yaml"))
        yield run


def _as_agent_of(node: str) -> list[str]:
    return [_AGENT, f"--as-user-extra=authentication.kubernetes.io/node-name={node}"]


def test_an_agent_writes_only_the_fast_node_of_its_own_node(kubectl):
    create = ["create", "--dry-run=server", "-f", "-"]
    refused = kubectl(*create, *_as_agent_of("n2"), stdin=_FAST_NODE.encode())
    assert refused.returncode == 1
    assert "an agent may write only the FastNode of its own node" in refused.stderr.decode()
    assert "fastnode" in kubectl.check(*create, *_as_agent_of("n1"), stdin=_FAST_NODE.encode())


def test_a_policy_is_shown_by_kubectl(kubectl):
    assert "fast-agent-own-node" in kubectl.check("get", "validatingadmissionpolicies")
    assert "Fail" in kubectl.check("describe", "validatingadmissionpolicy", "fast-agent-own-node")
