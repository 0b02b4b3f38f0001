"""Write schemas.json of the embedded API server again: the schemas of its built-in kinds.

Source: the published OpenAPI definitions that the development dependency kubernetes-validate carries. It keeps the
types that the server serves and whatever they refer to, without prose, and adds the defaults below. Run it by hand
after changing VERSION, KINDS or DEFAULTS.
"""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

VERSION = "1.34.0"
KINDS = [
    *(f"api.core.v1.{kind}" for kind in ("Namespace", "Node", "Pod", "Event", "ServiceAccount", "Service")),
    *(f"api.core.v1.{kind}" for kind in ("ConfigMap", "Secret")),
    *(f"api.apps.v1.{kind}" for kind in ("Deployment", "ReplicaSet", "StatefulSet")),
    *(f"api.rbac.v1.{kind}" for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")),
    "api.coordination.v1.Lease",
    "api.networking.v1.NetworkPolicy",
    *(f"api.admissionregistration.v1.ValidatingAdmissionPolicy{part}" for part in ("", "Binding")),
    "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
]
TARGET = Path(__file__).parents[1] / "playground/src/fast_playground/apiserver/schemas.json"
#: Written by JSON Schema as unions; OpenAPI has its own words for them.
SPECIAL = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"x-kubernetes-int-or-string": True},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"x-kubernetes-int-or-string": True},
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    },
}


#: What fields of a type are if they are not given. Source: the transcripts of a kube-apiserver.
DEFAULTS: dict[str, dict[str, Any]] = {
    "api.core.v1.Container": {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    },
    "api.core.v1.ContainerPort": {"protocol": "TCP"},
    "api.core.v1.PodSpec": {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    },
    "api.core.v1.PodCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "api.core.v1.NodeCondition": {"lastHeartbeatTime": None, "lastTransitionTime": None},
    "api.core.v1.ProjectedVolumeSource": {"defaultMode": 420},
    "api.core.v1.SecretVolumeSource": {"defaultMode": 420},
    "api.core.v1.ConfigMapVolumeSource": {"defaultMode": 420},
    "api.core.v1.ObjectFieldSelector": {"apiVersion": "v1"},
    "api.core.v1.Probe": {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    },
    "api.core.v1.HTTPGetAction": {"scheme": "HTTP"},
    "api.core.v1.Secret": {"type": "Opaque"},
    "api.core.v1.ServicePort": {"protocol": "TCP"},
    "api.core.v1.ServiceSpec": {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"],
    },
    "api.core.v1.ServiceStatus": {"loadBalancer": {}},
    "api.core.v1.Service": {"status": {"loadBalancer": {}}},
    "api.core.v1.Event": {
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "source": {},
        "reportingComponent": "",
        "reportingInstance": "",
    },
    "api.core.v1.NodeStatus": {
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": "",
            "osImage": "",
            "containerRuntimeVersion": "",
            "kubeletVersion": "",
            "kubeProxyVersion": "",
            "operatingSystem": "",
            "architecture": "",
        },
    },
    "api.core.v1.Node": {"spec": {}, "status": {}},
    "api.apps.v1.DeploymentSpec": {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    },
    "api.apps.v1.Deployment": {"status": {}},
    "api.apps.v1.ReplicaSetSpec": {"replicas": 1},
    "api.apps.v1.ReplicaSet": {"status": {"replicas": 0}},
    "api.apps.v1.StatefulSetSpec": {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    "api.apps.v1.StatefulSet": {"status": {"replicas": 0, "availableReplicas": 0}},
    "api.rbac.v1.Role": {"rules": None},
    "api.rbac.v1.ClusterRole": {"rules": None},
    "api.networking.v1.NetworkPolicyPort": {"protocol": "TCP"},
    "api.networking.v1.NetworkPolicySpec": {"podSelector": {}},
    "api.admissionregistration.v1.MatchResources": {
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
    },
    "api.admissionregistration.v1.NamedRuleWithOperations": {"scope": "*"},
    "api.admissionregistration.v1.ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec": {
        "conversion": {"strategy": "None"}
    },
}


def main() -> None:
    data = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local"
    definitions = json.loads((data / "_definitions.json").read_text())["$defs"]
    kept: dict[str, Any] = {}
    pending = [f"io.k8s.{kind}" for kind in KINDS]
    while pending:
        name = pending.pop()
        if name not in kept:
            kept[name] = SPECIAL.get(name) or openapi(definitions[name], pending)
    for name, defaults in DEFAULTS.items():
        properties = kept[f"io.k8s.{name}"]["properties"]
        for key, value in defaults.items():
            properties[key] |= {"default": value} | ({"nullable": True} if value is None else {})
    TARGET.write_text(json.dumps(dict(sorted(kept.items())), separators=(",", ":")) + "\n")
    print(f"{TARGET}: {len(kept)} types, {TARGET.stat().st_size} bytes")


def openapi(schema: dict[str, Any], references: list[str]) -> dict[str, Any]:
    """Translate one JSON schema; the types it refers to are appended to ``references``."""
    if reference := schema.get("$ref"):
        references.append(reference.removeprefix("#/$defs/"))
        return {"$ref": "#/components/schemas/" + reference.removeprefix("#/$defs/")}
    made = {
        k: v
        for k, v in schema.items()
        if k in ("format", "required", "enum") or k.startswith("x-kubernetes-")
    }
    if isinstance(kind := schema.get("type"), list):
        (made["type"],) = [name for name in kind if name != "null"]
    elif kind:
        made["type"] = kind
    elif "oneOf" in schema or not made:  # "any JSON": what CRDs' default, example and enum hold
        made["x-kubernetes-preserve-unknown-fields"] = True
    if properties := schema.get("properties"):
        made["properties"] = {name: openapi(value, references) for name, value in properties.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(value := schema.get(key), dict):
            made[key] = openapi(value, references)
    if made.get("enum") and "x-kubernetes-group-version-kind" not in made:
        made["enum"] = [value for value in made["enum"] if value is not None]
    return made


if __name__ == "__main__":
    main()
