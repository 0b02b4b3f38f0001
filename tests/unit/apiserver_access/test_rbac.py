"""RBAC as a function of roles and bindings: what a rule allows, and to whom a binding gives it."""

import pytest

from fast_playground.apiserver.access.rbac import Policy
from fast_playground.apiserver.api import User
from fast_playground.apiserver.kinds import GVR, PODS

IPSES = GVR("sample.fast.io", "v1alpha1", "ipses")
JANE = User("jane", ("devs", "system:authenticated"))


def _policy(
    rule: dict, subject: dict | None = None, *, role_namespace: str = "", namespace: str = ""
) -> Policy:
    kind = "Role" if role_namespace else "ClusterRole"
    binding = {
        "roleRef": {"kind": kind, "name": "r"},
        "subjects": [subject or {"kind": "User", "name": "jane"}],
    }
    return Policy({(role_namespace, "r"): {"rules": [rule]}}, {(namespace, "b"): binding})


def _rule(**changes) -> dict:
    return {"apiGroups": ["sample.fast.io"], "resources": ["ipses"], "verbs": ["get"]} | changes


def test_without_a_binding_nothing_is_allowed():
    assert not Policy().allows(JANE, "get", IPSES, None, "x", "")


@pytest.mark.parametrize(
    ("rule", "verb", "gvr", "name", "subresource", "allowed"),
    [
        (_rule(), "get", IPSES, "x", "", True),
        (_rule(), "list", IPSES, "", "", False),
        (_rule(), "get", PODS, "x", "", False),
        (_rule(verbs=["*"]), "delete", IPSES, "x", "", True),
        (_rule(apiGroups=["*"], resources=["*"]), "get", PODS, "x", "", True),
        (_rule(apiGroups=[""], resources=["pods"]), "get", PODS, "x", "", True),
        (_rule(), "get", IPSES, "x", "status", False),
        (_rule(resources=["ipses/status"]), "get", IPSES, "x", "status", True),
        (_rule(resources=["ipses/status"]), "get", IPSES, "x", "", False),
        (_rule(resources=["*/status"]), "get", IPSES, "x", "status", True),
        (_rule(resources=["*"]), "get", IPSES, "x", "status", True),
        (_rule(resourceNames=["x"]), "get", IPSES, "x", "", True),
        (_rule(resourceNames=["x"]), "get", IPSES, "y", "", False),
        (_rule(resourceNames=["x"], verbs=["list"]), "list", IPSES, "", "", False),
    ],
)
def test_a_rule_allows_only_what_it_names(rule, verb, gvr, name, subresource, allowed):
    assert _policy(rule).allows(JANE, verb, gvr, None, name, subresource) is allowed


@pytest.mark.parametrize(
    ("subject", "user", "allowed"),
    [
        ({"kind": "User", "name": "jane"}, JANE, True),
        ({"kind": "User", "name": "joe"}, JANE, False),
        ({"kind": "Group", "name": "devs"}, JANE, True),
        ({"kind": "Group", "name": "jane"}, JANE, False),
        (
            {"kind": "ServiceAccount", "namespace": "ns", "name": "sa"},
            User("system:serviceaccount:ns:sa"),
            True,
        ),
        (
            {"kind": "ServiceAccount", "namespace": "other", "name": "sa"},
            User("system:serviceaccount:ns:sa"),
            False,
        ),
    ],
)
def test_a_binding_gives_its_role_to_its_subjects_only(subject, user, allowed):
    assert _policy(_rule(), subject).allows(user, "get", IPSES, None, "x", "") is allowed


@pytest.mark.parametrize("role_namespace", ["", "ns"])
def test_a_role_binding_counts_in_its_namespace_only(role_namespace):
    rule = _rule(apiGroups=[""], resources=["pods"])
    policy = _policy(rule, role_namespace=role_namespace, namespace="ns")
    assert policy.allows(JANE, "get", PODS, "ns", "x", "")
    assert not policy.allows(JANE, "get", PODS, "other", "x", "")
    assert not policy.allows(JANE, "get", PODS, None, "x", "")


def test_a_cluster_role_binding_counts_in_every_namespace():
    assert _policy(_rule(apiGroups=[""], resources=["pods"])).allows(JANE, "get", PODS, "any", "x", "")


@pytest.mark.parametrize(("path", "allowed"), [("/metrics", True), ("/apis/x", True), ("/api", False)])
def test_a_path_is_allowed_by_name_or_prefix(path, allowed):
    policy = _policy({"nonResourceURLs": ["/metrics", "/apis/*"], "verbs": ["get"]})
    assert policy.allows_path(JANE, "get", path) is allowed
