"""The roles and bindings that a new server starts with: a few of those that Kubernetes creates. Data only."""

from __future__ import annotations

from fast_playground.apiserver.access.tokens import AUTHENTICATED, MASTERS
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import CLUSTER_ROLE_BINDINGS

NODES_GROUP = "system:nodes"

_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz"]


def _rule(groups: str, resources: str, verbs: str) -> Object:
    names = ["" if group == "core" else group for group in groups.split()]
    return {"apiGroups": names, "resources": resources.split(), "verbs": verbs.split()}


_RULES: dict[str, tuple[str, list[Object]]] = {
    "cluster-admin": (MASTERS, [_rule("*", "*", "*"), {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
    "system:discovery": (
        AUTHENTICATED,
        [{"nonResourceURLs": [*_DISCOVERY, "/version", "/version/"], "verbs": ["get"]}],
    ),
    "system:basic-user": (
        AUTHENTICATED,
        [
            _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
            _rule("authentication.k8s.io", "selfsubjectreviews", "create"),
        ],
    ),
    # In Kubernetes a kubelet's rights come from the Node authorizer; here, for the playground's, from this role.
    "system:node": (
        NODES_GROUP,
        [
            _rule("core", "nodes", "create get list watch update patch delete"),
            _rule("core", "nodes/status pods/status", "update patch"),
            _rule("core", "pods", "get list watch delete"),
            _rule("core", "events", "create update patch"),
            _rule("core", "services configmaps namespaces serviceaccounts", "get list watch"),
            _rule("coordination.k8s.io", "leases", "create get update patch delete"),
        ],
    ),
}

_GROUP = CLUSTER_ROLE_BINDINGS.group
_META = {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}


def _objects(name: str, group: str, rules: list[Object]) -> tuple[Object, Object]:
    shared: Object = {"apiVersion": CLUSTER_ROLE_BINDINGS.group_version, "metadata": {"name": name} | _META}
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": name}
    subject = {"apiGroup": _GROUP, "kind": "Group", "name": group}
    return (
        shared | {"kind": "ClusterRole", "rules": rules},
        shared | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]},
    )


#: Pairs of ClusterRole and ClusterRoleBinding, of the same name.
BOOTSTRAP = [_objects(name, group, rules) for name, (group, rules) in _RULES.items()]
