"""The rights of Fast's programs in a playground: exactly those of deploy/base, so that a missing one is found here.

A test compares the two. An installed package has no deploy/.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

import yaml

Object = dict[str, Any]

NAMESPACE = "fast-system"
AGENT, CONTROLLER = "fast-agent", "fast-controller-manager"

_GROUP = "rbac.authorization.k8s.io"
_READ = "get list watch"


def _rule(group: str, resources: str, verbs: str) -> Object:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


_RULES: dict[str, list[Object]] = {
    AGENT: [
        _rule("sample.fast.io", "ipendpoints", f"{_READ} create update delete"),
        _rule("sample.fast.io", "ipses", _READ),
        _rule("sample.fast.io", "fastnodes", f"{_READ} create update"),
        _rule("sample.fast.io", "fastnodes/status", "patch"),
        _rule("", "nodes pods namespaces", _READ),
        _rule("networking.k8s.io", "servicecidrs", "list"),
        _rule("networking.k8s.io", "networkpolicies", _READ),
        _rule("", "events", "create patch"),
    ],
    CONTROLLER: [
        _rule("sample.fast.io", "ipendpoints", f"{_READ} update delete"),
        _rule("sample.fast.io", "ipses", f"{_READ} patch"),
        _rule("sample.fast.io", "ipses/status", "patch"),
        _rule("sample.fast.io", "fastnodes", f"{_READ} delete"),
        _rule("sample.fast.io", "fastnodes/status", "patch"),
        _rule("", "nodes", _READ),
        _rule("", "pods", "get"),
        _rule("apps", "statefulsets", "list"),
        _rule("", "events", "create patch"),
    ],
}
_LEASES = {AGENT: "create patch", CONTROLLER: f"{_READ} create update delete"}


def manifests() -> list[Object]:
    """Make the namespace, the ServiceAccounts and what binds them to their rights, in the order of creation."""
    found: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    for name, rules in _RULES.items():
        account = {"name": name, "namespace": NAMESPACE}
        found.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        found += _bound("ClusterRole", name, {"name": name}, rules)
    for name, verbs in _LEASES.items():
        rules = [_rule("coordination.k8s.io", "leases", verbs)]
        found += _bound("Role", name, {"name": name, "namespace": NAMESPACE}, rules)
    return found


def admission_policies() -> list[Object]:
    """Read the admission policies and bindings of deploy/base: ``policies/`` links to its files."""
    folder = importlib.resources.files("fast_playground.cluster").joinpath("policies")
    files = sorted(folder.iterdir(), key=lambda path: path.name)
    return [obj for path in files for obj in yaml.safe_load_all(path.read_text()) if obj]


def _bound(kind: str, account: str, metadata: Object, rules: list[Object]) -> list[Object]:
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    reference = {"apiGroup": _GROUP, "kind": kind, "name": metadata["name"]}
    head = {"apiVersion": f"{_GROUP}/v1", "metadata": metadata}
    return [
        head | {"kind": kind, "rules": rules},
        head | {"kind": f"{kind}Binding", "roleRef": reference, "subjects": [subject]},
    ]
