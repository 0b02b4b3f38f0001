"""Who may come in and do what, over HTTPS, by the manifests that deploy/base ships."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from fast_playground.apiserver.access import Authority
from unit.apiserver.conftest import wait_until
from unit.apiserver.process import Client, Server

_DEPLOY = Path(__file__).parents[3] / "deploy" / "base"
_IPS, _ENDPOINTS = "/apis/sample.fast.io/v1alpha1/ipses", "/apis/sample.fast.io/v1alpha1/ipendpoints"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_PLACES = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/fast-system/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/fast-system/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/fast-system/rolebindings",
}
_ENDPOINT = {
    "apiVersion": "sample.fast.io/v1alpha1",
    "kind": "IpEndpoint",
    "metadata": {"name": "10.244.10.0"},
    "spec": {
        "pool": "p",
        "node": "n1",
        "bootID": "b",
        "containerID": "c",
        "interface": "eth0",
        "pod": {"namespace": "default", "name": "a", "uid": "u"},
    },
}


@pytest.fixture(scope="module")
def accounts(server: Server) -> dict[str, str]:
    """The tokens of the shipped ServiceAccounts, bound by the shipped manifests."""
    client = server.client()
    for name in ("namespace.yaml", "agent-rbac.yaml", "controller-rbac.yaml"):
        for manifest in yaml.safe_load_all((_DEPLOY / name).read_text()):
            answer = client.post(_PLACES[manifest["kind"]], manifest)
            assert answer.status == 201, answer.raw
    tokens = {
        name: server.tokens.ensure_service_account("fast-system", name)
        for name in ("fast-agent", "fast-controller-manager")
    }
    for token in tokens.values():
        own = server.client(token)
        wait_until(lambda own=own: own.get(_IPS).status == 200)
        own.close()
    client.close()
    return tokens


def status(client: Client, method: str, path: str, body: Any = None) -> int:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    return client.ask(method, path, body, kind=kind).status


def test_an_agent_may_do_what_it_needs_and_no_more(server, accounts):
    agent = server.client(accounts["fast-agent"])
    for path in (_ENDPOINTS, _IPS, "/api/v1/nodes", "/api/v1/pods", "/api/v1/namespaces"):
        assert status(agent, "GET", path) == 200, path
        assert status(agent, "GET", f"{path}?watch=1&timeoutSeconds=1&resourceVersion=99999999") == 200, path
    assert status(agent, "POST", _ENDPOINTS, _ENDPOINT) == 201
    held = agent.get(f"{_ENDPOINTS}/10.244.10.0").body
    assert agent.put(f"{_ENDPOINTS}/10.244.10.0", held).status == 200
    assert status(agent, "DELETE", f"{_ENDPOINTS}/10.244.10.0") == 200
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {}}
    assert status(agent, "POST", "/api/v1/namespaces/default/events", event) != 403
    for method, path in (
        ("DELETE", _ENDPOINTS),
        ("PATCH", f"{_ENDPOINTS}/10.244.10.0"),
        ("POST", _IPS),
        ("PATCH", f"{_IPS}/x/status"),
        ("DELETE", "/api/v1/nodes/n1"),
        ("DELETE", "/api/v1/namespaces/default/pods/p"),
        ("POST", "/api/v1/namespaces/default/pods/p/exec?command=sh"),
        ("GET", "/api/v1/namespaces/default/secrets"),
        ("GET", _LEASES.format("fast-system")),
    ):
        assert status(agent, method, path, {} if method in ("POST", "PATCH") else None) == 403, (method, path)


def test_a_controller_may_do_what_it_needs_and_no_more(server, accounts):
    controller = server.client(accounts["fast-controller-manager"])
    for path in (_ENDPOINTS, _IPS, "/api/v1/nodes", "/apis/apps/v1/statefulsets"):
        assert status(controller, "GET", path) == 200, path
    assert status(controller, "GET", "/api/v1/namespaces/default/pods/none") == 404
    assert status(controller, "PATCH", f"{_IPS}/none/status", {"status": {}}) == 404
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    assert status(controller, "POST", _LEASES.format("fast-system"), lease) == 201
    for method, path in (
        ("POST", _LEASES.format("default")),
        ("POST", _ENDPOINTS),
        ("DELETE", f"{_IPS}/x"),
        ("GET", "/api/v1/pods"),
        ("PATCH", "/api/v1/nodes/n1"),
        ("GET", "/apis/apps/v1/deployments"),
    ):
        body = {} if method in ("POST", "PATCH") else None
        assert status(controller, method, path, body) == 403, (method, path)


def test_what_is_refused_says_who_may_not_do_what(server, accounts):
    answer = server.client(accounts["fast-agent"]).get("/api/v1/namespaces/default/secrets")
    assert (answer.status, answer.reason) == (403, "Forbidden")
    assert answer.body["message"] == (
        'secrets is forbidden: User "system:serviceaccount:fast-system:fast-agent" cannot list resource "secrets"'
        ' in API group "" in the namespace "default"'
    )


def test_a_role_that_is_taken_away_no_longer_counts(server, accounts):
    name = "system:reader"
    reader = server.client(server.tokens.ensure_identity(name))
    admin = server.client()
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
    admin.post(_PLACES["ClusterRole"], head | {"kind": "ClusterRole", "rules": [rule]})
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}
    assert reader.get("/api/v1/nodes").status == 403
    binding = head | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
    assert admin.post(_PLACES["ClusterRoleBinding"], binding).status == 201
    wait_until(lambda: reader.get("/api/v1/nodes").status == 200)
    assert admin.delete(f"{_PLACES['ClusterRoleBinding']}/reader").status == 200
    wait_until(lambda: reader.get("/api/v1/nodes").status == 403)


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 1000])
@pytest.mark.parametrize("path", ["/api", "/apis", "/version", _IPS, "/api/v1/pods?watch=1", "/nothing"])
def test_who_is_not_known_is_refused_everywhere(server, token, path):
    answer = server.client(token).get(path)
    assert (answer.status, answer.reason) == (401, "Unauthorized")


def test_health_is_told_to_everybody(server):
    for path in ("/healthz", "/livez", "/readyz"):
        assert server.client("").get(path).raw == b"ok"


def test_a_client_certificate_is_an_identity(server, tmp_path):
    authority = Authority(server.data / "pki")
    for name, groups, expected in (("boss", ["system:masters"], 200), ("guest", [], 403)):
        issued = authority.issue_client(name, groups)
        (tmp_path / "c").write_bytes(issued.certificate_pem)
        (tmp_path / "k").write_bytes(issued.key_pem)
        context = server.tls
        context.load_cert_chain(tmp_path / "c", tmp_path / "k")
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context)
        connection.request("GET", "/api/v1/nodes")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == expected
        assert expected == 200 or f'User "{name}"' in body["message"]
        connection.close()


def test_a_certificate_of_another_authority_is_refused(server, tmp_path):
    issued = Authority(tmp_path / "other").issue_client("boss", ["system:masters"])
    (tmp_path / "c").write_bytes(issued.certificate_pem)
    (tmp_path / "k").write_bytes(issued.key_pem)
    context = server.tls
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(connection)


def ask(connection: http.client.HTTPConnection) -> None:
    """Send a request and take its answer."""
    try:
        connection.request("GET", "/api/v1/nodes")
        connection.getresponse()
    finally:
        connection.close()


def test_nothing_is_served_without_encryption(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(connection)
