"""What writing a built-in kind does beyond its schema: defaults that depend, admission, immutable fields.

Each kind has at most three functions, found in the tables at the end: ``default`` fills in, ``admit`` may look at other
objects of the same transaction, ``validate`` compares with what was.
"""

from __future__ import annotations

import base64
import ipaddress
import random
from collections.abc import Callable

from fast_playground.apiserver import admission_policies, kinds, network_policy_kind, pod_kind
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.metadata import prepare_new, validate_label_selector, validate_labels
from fast_playground.apiserver.registry import Registry, custom_kinds, load_definitions
from fast_playground.apiserver.selectors import from_object
from fast_playground.apiserver.status import (
    FieldError,
    forbidden_field,
    invalid_value,
    negative,
    required,
    unsupported,
)
from fast_playground.apiserver.storage import Transaction

_SERVICE_RANGE = ipaddress.ip_network("10.96.0.0/16")
_STATEFUL_SET_MUTABLE: tuple[str, ...] = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "minReadySeconds",
)
_STATEFUL_SET_MUTABLE += ("persistentVolumeClaimRetentionPolicy", "revisionHistoryLimit")
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def _default_workload(obj: Object) -> None:
    template = obj["spec"].get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        pod_kind.default_spec(template["spec"])


def _default_deployment(obj: Object) -> None:
    _default_workload(obj)
    strategy = obj["spec"]["strategy"]
    if strategy.get("type", "RollingUpdate") == "RollingUpdate":
        limits = {"maxUnavailable": "25%", "maxSurge": "25%"}
        strategy["rollingUpdate"] = limits | (strategy.get("rollingUpdate") or {})


def _default_service(obj: Object) -> None:
    for port in obj["spec"].get("ports") or []:
        port.setdefault("targetPort", port.get("port"))


def _default_secret(obj: Object) -> None:
    for key, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _admit_namespace(tx: Transaction, obj: Object, registry: Registry) -> None:
    name = obj["metadata"]["name"]
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}
    account = registry.find(kinds.SERVICE_ACCOUNTS)
    assert account is not None
    made: Object = {"metadata": {"name": "default"}}
    prepare_new(made["metadata"], account, name)
    tx.put(account.storage, account.key("default", name), made)


def _admit_node(_tx: Transaction, obj: Object, _registry: Registry) -> None:
    taints = obj["spec"].setdefault("taints", [])
    if not any(taint.get("key") == NOT_READY["key"] for taint in taints):
        taints.append(dict(NOT_READY))


def _admit_service(tx: Transaction, obj: Object, registry: Registry) -> None:
    spec = obj["spec"]
    if spec["type"] == "ExternalName":
        return
    kind = registry.find(kinds.SERVICES)
    assert kind is not None
    if not spec.get("clusterIP"):
        records = (tx.get(kind.storage, key) for key in tx.keys(kind.storage))
        taken = {record.decode()["spec"].get("clusterIP") for record in records if record}
        size = _SERVICE_RANGE.num_addresses
        free = (str(_SERVICE_RANGE[random.randrange(10, size - 1)]) for _ in range(size))
        spec["clusterIP"] = next(address for address in free if address not in taken)
    spec["clusterIPs"] = [spec["clusterIP"]]


def _admit_crd(_tx: Transaction, obj: Object, _registry: Registry) -> None:
    names = obj["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    if not names.get("shortNames"):
        names.pop("shortNames", None)
    stored = [v["name"] for v in obj["spec"]["versions"] if v.get("storage")]
    accepted = {"plural": "", "kind": ""}
    obj["status"] = {"conditions": None, "acceptedNames": accepted, "storedVersions": stored}


def established(crd: Object, now: str) -> Object:
    """The status of a CustomResourceDefinition whose kinds are served since ``now``."""
    said = (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    )
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
        for kind, reason, message in said
    ]
    stored = [v["name"] for v in crd["spec"]["versions"] if v.get("storage")]
    earlier = [name for name in crd["status"].get("storedVersions") or [] if name not in stored]
    status = {"conditions": crd["status"].get("conditions") or conditions}
    return status | {"acceptedNames": crd["spec"]["names"], "storedVersions": earlier + stored}


def _validate_workload(obj: Object, old: Object | None) -> list[FieldError]:
    spec = obj["spec"]
    errors = []
    if spec.get("replicas", 0) < 0:
        errors.append(negative("spec.replicas", spec["replicas"]))
    selector = spec.get("selector") or {}
    if not (selector.get("matchLabels") or selector.get("matchExpressions")):
        errors.append(required("spec.selector"))
    errors += validate_label_selector(selector, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    errors += validate_labels(labels, "spec.template.metadata.labels")
    if not from_object(selector).matches(labels):
        why = "`selector` does not match template `labels`"
        errors.append(invalid_value("spec.template.metadata.labels", labels, why))
    errors += pod_kind.validate_spec((spec.get("template") or {}).get("spec") or {}, "spec.template.spec")
    if (policy := (spec["template"].get("spec") or {}).get("restartPolicy")) != "Always":
        errors.append(unsupported("spec.template.spec.restartPolicy", policy, ["Always"]))
    if old and old["spec"]["selector"] != selector:
        errors.append(invalid_value("spec.selector", selector, "field is immutable"))
    return errors


def _validate_stateful_set(obj: Object, old: Object | None) -> list[FieldError]:
    errors = _validate_workload(obj, None)
    if old and _without(old["spec"]) != _without(obj["spec"]):
        names = ", ".join(f"'{name}'" for name in _STATEFUL_SET_MUTABLE)
        why = f"updates to statefulset spec for fields other than {names} are forbidden"
        errors.append(forbidden_field("spec", why))
    return errors


def _without(spec: Object) -> Object:
    return {name: value for name, value in spec.items() if name not in _STATEFUL_SET_MUTABLE}


def _validate_node(obj: Object, old: Object | None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = []
    for index, taint in enumerate(spec.get("taints") or []):
        if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            errors.append(unsupported(f"metadata.taints[{index}].effect", taint.get("effect", "")))
    before = (old or {}).get("spec") or {}
    if before.get("podCIDRs") and before["podCIDRs"] != spec.get("podCIDRs"):
        why = "node updates may only change labels, taints, or capacity (or configSource, if enabled)"
        errors.append(forbidden_field("spec.podCIDRs", why))
    return errors


def _validate_event(obj: Object, _old: Object | None) -> list[FieldError]:
    about, namespace = obj["involvedObject"].get("namespace", ""), obj["metadata"]["namespace"]
    if about == namespace or (not about and namespace in ("default", "kube-system")):
        return []
    return [invalid_value("involvedObject.namespace", about, "does not match event.namespace")]


def _validate_lease(obj: Object, _old: Object | None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        value = spec["leaseDurationSeconds"]
        errors.append(invalid_value("spec.leaseDurationSeconds", value, "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        errors.append(negative("spec.leaseTransitions", spec["leaseTransitions"]))
    return errors


def _validate_role(obj: Object, _old: Object | None) -> list[FieldError]:
    errors = []
    for index, rule in enumerate(obj.get("rules") or []):
        if not rule.get("verbs"):
            errors.append(required(f"rules[{index}].verbs", "verbs must contain at least one value"))
        if not rule.get("resources") and not rule.get("nonResourceURLs"):
            errors.append(required(f"rules[{index}].resources"))
    return errors


def _validate_binding(obj: Object, old: Object | None) -> list[FieldError]:
    if old and old["roleRef"] != obj["roleRef"]:
        return [invalid_value("roleRef", obj["roleRef"], "cannot change roleRef")]
    return []


def _validate_service(obj: Object, old: Object | None) -> list[FieldError]:
    spec = obj["spec"]
    errors = []
    if not spec.get("ports") and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        errors.append(required("spec.ports"))
    if old and old["spec"].get("clusterIP") and old["spec"]["clusterIP"] != spec.get("clusterIP"):
        value = spec.get("clusterIP", "")
        errors.append(invalid_value("spec.clusterIPs[0]", value, "may not change once set"))
    return errors


def _validate_crd(obj: Object, _old: Object | None) -> list[FieldError]:
    spec, name = obj["spec"], obj["metadata"]["name"]
    errors = []
    if name != (expected := f"{spec['names']['plural']}.{spec['group']}"):
        errors.append(
            invalid_value("metadata.name", name, f'must be spec.names.plural+"."+spec.group ({expected})')
        )
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        errors.append(unsupported("spec.scope", spec.get("scope", ""), ["Cluster", "Namespaced"]))
    if not spec["names"].get("kind"):
        errors.append(required("spec.names.kind"))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        why = "must have exactly one version marked as storage version"
        errors.append(invalid_value("spec.versions", spec["versions"], why))
    for index, version in enumerate(spec["versions"]):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            errors.append(required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    if not errors:
        try:
            list(custom_kinds(load_definitions(), obj))
        except (ValueError, KeyError, TypeError) as error:
            errors.append(invalid_value("spec.versions", "", f"the schema does not compile: {error}"))
    return errors


_Default = Callable[[Object], None]
_Admit = Callable[[Transaction, Object, Registry], None]
_Validate = Callable[[Object, Object | None], list[FieldError]]

DEFAULT: dict[GVR, _Default] = {
    kinds.PODS: lambda obj: pod_kind.default_spec(obj["spec"]) if isinstance(obj.get("spec"), dict) else None,
    kinds.DEPLOYMENTS: _default_deployment,
    kinds.REPLICA_SETS: _default_workload,
    kinds.STATEFUL_SETS: _default_workload,
    kinds.SERVICES: _default_service,
    kinds.SECRETS: _default_secret,
    kinds.NETWORK_POLICIES: network_policy_kind.default,
}
ADMIT: dict[GVR, _Admit] = {
    kinds.PODS: pod_kind.admit,
    kinds.NAMESPACES: _admit_namespace,
    kinds.NODES: _admit_node,
    kinds.SERVICES: _admit_service,
    kinds.CUSTOM_RESOURCE_DEFINITIONS: _admit_crd,
}
VALIDATE: dict[GVR, _Validate] = {
    kinds.PODS: pod_kind.validate,
    kinds.NODES: _validate_node,
    kinds.EVENTS: _validate_event,
    kinds.LEASES: _validate_lease,
    kinds.NETWORK_POLICIES: network_policy_kind.validate,
    kinds.DEPLOYMENTS: _validate_workload,
    kinds.REPLICA_SETS: _validate_workload,
    kinds.STATEFUL_SETS: _validate_stateful_set,
    kinds.SERVICES: _validate_service,
    kinds.ROLES: _validate_role,
    kinds.CLUSTER_ROLES: _validate_role,
    kinds.ROLE_BINDINGS: _validate_binding,
    kinds.CLUSTER_ROLE_BINDINGS: _validate_binding,
    kinds.CUSTOM_RESOURCE_DEFINITIONS: _validate_crd,
    kinds.ADMISSION_POLICIES: admission_policies.validate_policy,
    kinds.ADMISSION_POLICY_BINDINGS: admission_policies.validate_binding,
}
#: Kinds that keep the status they are created with, and metadata written through their status subresource.
STATUS_AT_CREATION = {kinds.NODES}
STATUS_MAY_CHANGE_METADATA = {kinds.PODS, kinds.NODES}
