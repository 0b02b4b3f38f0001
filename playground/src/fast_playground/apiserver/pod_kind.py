"""Pods: their defaults, admission and rules, binding to a node, and how long a deletion waits."""

from __future__ import annotations

from typing import Any

from fast_playground.apiserver import kinds
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.metadata import check_dns_label, random_suffix, timestamp
from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.status import (
    ApiError,
    FieldError,
    bad_request,
    conflict,
    forbidden,
    forbidden_field,
    invalid_value,
    negative,
    required,
    unsupported,
)
from fast_playground.apiserver.storage import Transaction

_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 -- a path
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_MUTABLE_SPEC = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")
_MAX_PORT = 65535


def default_spec(spec: Object) -> None:
    """Fill in what depends on other fields of a pod's spec."""
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if isinstance(container, dict):
            image = str(container.get("image", ""))
            newest = image.endswith(":latest") or ":" not in image.rpartition("/")[2]
            container.setdefault(
                "imagePullPolicy", "Always" if newest and "@" not in image else "IfNotPresent"
            )
    if name := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def admit(tx: Transaction, obj: Object, registry: Registry) -> None:
    """Complete a new pod as Kubernetes' admission does: account, token volume, tolerations, priority, status.

    Raises:
        ApiError: 403 if the service account does not exist.
    """
    spec, meta = obj["spec"], obj["metadata"]
    account_kind = registry.find(kinds.SERVICE_ACCOUNTS)
    assert account_kind is not None
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    record = tx.get(account_kind.storage, account_kind.key(name, meta["namespace"]))
    if record is None:
        why = (
            f'error looking up service account {meta["namespace"]}/{name}: serviceaccount "{name}" not found'
        )
        raise forbidden(kinds.PODS, meta["name"], why)
    mount = spec.get(
        "automountServiceAccountToken", record.decode().get("automountServiceAccountToken", True)
    )
    if mount:
        _mount_token(spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(
            t.get("key") in (key, None) and t.get("effect") in ("NoExecute", None) for t in tolerations
        ):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )
    spec.setdefault("priority", 0)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    obj["status"] = {"phase": "Pending", "qosClass": _qos_class(spec)}


def _mount_token(spec: Object) -> None:
    """Give every container the service account's token, unless it mounts something there already."""
    name = "kube-api-access-" + random_suffix()
    mounted = False
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        mounts = container.setdefault("volumeMounts", [])
        if not any(mount.get("mountPath") == _TOKEN_PATH for mount in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": _TOKEN_PATH})
            mounted = True
    if mounted:
        field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
        sources = [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
        ]
        volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
        spec.setdefault("volumes", []).append(volume)


def _qos_class(spec: Object) -> str:
    resources = [c.get("resources") or {} for c in [*spec["containers"], *(spec.get("initContainers") or [])]]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    guaranteed = all(
        set(r.get("limits") or ()) >= {"cpu", "memory"} and (r.get("requests") or r["limits"]) == r["limits"]
        for r in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def validate(obj: Object, old: Object | None) -> list[FieldError]:
    """Find what is wrong with a pod, or with a change of one."""
    errors = validate_spec(obj.get("spec") or {}, "spec")
    if old and _fixed(old["spec"]) != _fixed(obj["spec"]):
        names = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`"
        names += ",`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
        why = f"pod updates may not change fields other than {names} (allow it to be set to 1 if it was negative)"
        errors.append(forbidden_field("spec", why))
    return errors


def _fixed(spec: Object) -> Object:
    fixed = {name: value for name, value in spec.items() if name not in _MUTABLE_SPEC}
    for name in ("containers", "initContainers"):
        fixed[name] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get(name) or []]
    return fixed


def validate_spec(spec: Object, path: str) -> list[FieldError]:
    """Find what is wrong with a pod's spec."""
    errors: list[FieldError] = []
    if not spec.get("containers"):
        errors.append(required(f"{path}.containers"))
    seen: set[str] = set()
    for group in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(group) or []):
            errors += _validate_container(container, f"{path}.{group}[{index}]", seen)
    if spec.get("restartPolicy", "Always") not in _RESTART_POLICIES:
        errors.append(unsupported(f"{path}.restartPolicy", spec["restartPolicy"], _RESTART_POLICIES))
    if (seconds := spec.get("terminationGracePeriodSeconds") or 0) < 0:
        errors.append(negative(f"{path}.terminationGracePeriodSeconds", seconds))
    return errors


def _validate_container(container: Object, path: str, seen: set[str]) -> list[FieldError]:
    errors = []
    name = container.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    elif why := check_dns_label(name):
        errors.append(invalid_value(f"{path}.name", name, why))
    elif name in seen:
        errors.append(FieldError("FieldValueDuplicate", f"{path}.name", f'Duplicate value: "{name}"'))
    seen.add(name)
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    for index, port in enumerate(container.get("ports") or []):
        number = port.get("containerPort", 0)
        if not 0 < number <= _MAX_PORT:
            why = "must be between 1 and 65535, inclusive"
            errors.append(invalid_value(f"{path}.ports[{index}].containerPort", number, why))
    return errors


def bind(pod: Object, binding: Object) -> None:
    """Put a pod on a node, in place.

    Raises:
        ApiError: 400 for a target that is not a node, 409 if the pod is bound or being deleted.
    """
    name = pod["metadata"]["name"]
    target = binding.get("target") or {}
    if target.get("kind", "Node") != "Node" or not target.get("name"):
        raise bad_request("a pod can only be bound to a Node")
    resource = kinds.GVR("", "v1", "pods/binding")
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict(resource, name, f"pod {name} is being deleted, cannot be assigned to a host")
    if node := pod["spec"].get("nodeName"):
        raise conflict(resource, name, f'pod {name} is already assigned to node "{node}"')
    pod["spec"]["nodeName"] = target["name"]
    conditions = [c for c in pod["status"].get("conditions") or [] if c.get("type") != "PodScheduled"]
    scheduled: Object = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
    pod["status"]["conditions"] = [*conditions, scheduled | {"lastTransitionTime": timestamp()}]


def grace_seconds(pod: Object, asked: int | None) -> int:
    """How long a pod's deletion waits for its node.

    Args:
        pod: It.
        asked: What the deletion asked for; None: nothing.

    Raises:
        ApiError: 422 for a negative period.
    """
    if asked is not None and asked < 0:
        raise ApiError(422, "Invalid", f"invalid gracePeriodSeconds: {asked}: must be non-negative")
    if not pod["spec"].get("nodeName") or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0  # nobody runs it
    own: Any = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return asked if asked is not None else own
