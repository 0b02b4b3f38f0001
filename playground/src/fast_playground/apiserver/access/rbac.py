"""Role-based access control as a pure function of roles and bindings (rbac.authorization.k8s.io/v1). No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fast_playground.apiserver.access.tokens import SERVICE_ACCOUNT_PREFIX
from fast_playground.apiserver.api import Object, User
from fast_playground.apiserver.kinds import GVR

_Key = tuple[str, str]  # namespace ("" for cluster-scoped), name


@dataclass
class Policy:
    """The roles and bindings that are in force, each by (namespace, name)."""

    roles: dict[_Key, Object] = field(default_factory=dict)
    bindings: dict[_Key, Object] = field(default_factory=dict)

    def allows(
        self, user: User, verb: str, gvr: GVR, namespace: str | None, name: str, subresource: str
    ) -> bool:
        """Tell whether some rule that is bound to the user allows the verb on the resource.

        Args:
            user: Who asks.
            verb: As RBAC names it: get, list, watch, create, update, patch, delete, deletecollection.
            gvr: What on; the version does not count.
            namespace: Where; None for cluster-scoped resources and requests over all namespaces.
            name: The object's name; empty if the request names none.
            subresource: As ``status``; empty for the object itself.
        """
        resource = f"{gvr.resource}/{subresource}" if subresource else gvr.resource
        return any(
            _has(rule, "verbs", verb)
            and _has(rule, "apiGroups", gvr.group)
            and _has_resource(rule.get("resources") or (), resource, subresource)
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self.rules_of(user, namespace)
        )

    def allows_path(self, user: User, verb: str, path: str) -> bool:
        """Tell whether some rule that is bound to the user in the whole cluster allows the verb on a path."""
        return any(
            _has(rule, "verbs", verb) and _has_path(rule.get("nonResourceURLs") or (), path)
            for rule in self.rules_of(user, None)
        )

    def rules_of(self, user: User, namespace: str | None) -> Iterator[dict[str, Any]]:
        """Give the rules bound to a user, in the whole cluster and (if one is named) in the namespace."""
        for (binding_namespace, _), binding in self.bindings.items():
            if binding_namespace and binding_namespace != namespace:
                continue
            subjects = binding.get("subjects") or ()
            if any(_is_subject(subject, user, binding_namespace) for subject in subjects):
                reference = binding["roleRef"]
                place = binding_namespace if reference.get("kind") == "Role" else ""
                role = self.roles.get((place, reference.get("name", "")))
                yield from (role or {}).get("rules") or ()


def _is_subject(subject: Object, user: User, namespace: str) -> bool:
    name = subject.get("name", "")
    match subject.get("kind"):
        case "User":
            return bool(name == user.name)
        case "Group":
            return name in user.groups
        case "ServiceAccount":
            place = subject.get("namespace") or namespace
            return user.name == f"{SERVICE_ACCOUNT_PREFIX}{place}:{name}"
        case _:
            return False


def _has(rule: dict[str, Any], key: str, value: str) -> bool:
    values: Iterable[str] = rule.get(key) or ()
    return value in values or "*" in values


def _has_resource(resources: Iterable[str], resource: str, subresource: str) -> bool:
    return any(
        item in ("*", resource) or (subresource != "" and item == f"*/{subresource}") for item in resources
    )


def _has_path(patterns: Iterable[str], path: str) -> bool:
    return any(
        path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern for pattern in patterns
    )
