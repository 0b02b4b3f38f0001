"""Writes schemas.json and protobuf.json of the embedded API server: the types of its built-in kinds.

Source: the published OpenAPI definitions that the development dependency kubernetes-validate carries. It keeps the
types that the server serves and whatever they refer to, without prose, and adds the tables below. Run it by hand after
changing VERSION, KINDS, DEFAULTS or MESSAGES.
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
TARGET = Path(__file__).parents[1] / "playground/src/fast_playground/apiserver"
#: Written by JSON Schema as unions; OpenAPI has its own words for them.
SPECIAL = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"x-kubernetes-int-or-string": True},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"x-kubernetes-int-or-string": True},
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    },
}


#: Defaults of a type's fields. Source: the transcripts of a kube-apiserver.
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

#: Bodies that clients send as protobuf, by message: ``number name type`` of each field (source: the generated.proto of
#: k8s.io/api). Types: ``str``, ``int``, ``bool``, ``bytes``, ``map`` (of strings), ``bytesmap``, a message, or ``skip``
#: (whatever it holds, as a status at creation). ``*``: a list; ``?``: a pointer, whose zero counts.
MESSAGES = {
    "Unknown": "1 typeMeta TypeMeta, 2 raw bytes, 3 contentEncoding str, 4 contentType str",
    "TypeMeta": "1 apiVersion str, 2 kind str",
    "ObjectMeta": "1 name str, 2 generateName str, 3 namespace str, 5 uid str, 6 resourceVersion str, 7 generation int,"
    " 8 creationTimestamp Time, 11 labels map, 12 annotations map, 13 ownerReferences *OwnerReference,"
    " 14 finalizers *str",
    "OwnerReference": "1 kind str, 3 name str, 4 uid str, 5 apiVersion str, 6 controller bool?,"
    " 7 blockOwnerDeletion bool?",
    "DeleteOptions": "1 gracePeriodSeconds int?, 2 preconditions Preconditions, 4 propagationPolicy str, 5 dryRun *str",
    "Preconditions": "1 uid str, 2 resourceVersion str",
    "LabelSelector": "1 matchLabels map, 2 matchExpressions *LabelSelectorRequirement",
    "LabelSelectorRequirement": "1 key str, 2 operator str, 3 values *str",
    "Namespace": "1 metadata ObjectMeta, 2 spec skip, 3 status skip",
    "ConfigMap": "1 metadata ObjectMeta, 2 data map, 3 binaryData bytesmap, 4 immutable bool?",
    "Secret": "1 metadata ObjectMeta, 2 data bytesmap, 3 type str, 4 stringData map, 5 immutable bool?",
    "ServiceAccount": "1 metadata ObjectMeta, 4 automountServiceAccountToken bool?",
    "Service": "1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status skip",
    "ServiceSpec": "1 ports *ServicePort, 2 selector map, 3 clusterIP str, 4 type str, 7 sessionAffinity str,"
    " 10 externalName str",
    "ServicePort": "1 name str, 2 protocol str, 3 port int, 4 targetPort IntOrString, 5 nodePort int",
    "Role": "1 metadata ObjectMeta, 2 rules *PolicyRule",
    "ClusterRole": "1 metadata ObjectMeta, 2 rules *PolicyRule",
    "PolicyRule": "1 verbs *str, 2 apiGroups *str, 3 resources *str, 4 resourceNames *str, 5 nonResourceURLs *str",
    "RoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "ClusterRoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "Subject": "1 kind str, 2 apiGroup str, 3 name str, 4 namespace str",
    "RoleRef": "1 apiGroup str, 2 kind str, 3 name str",
    "Deployment": "1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status skip",
    "DeploymentSpec": "1 replicas int?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy Strategy,"
    " 5 minReadySeconds int, 6 revisionHistoryLimit int?, 7 paused bool, 9 progressDeadlineSeconds int?",
    "Strategy": "1 type str, 2 rollingUpdate RollingUpdate",
    "RollingUpdate": "1 maxUnavailable IntOrString, 2 maxSurge IntOrString",
    "PodTemplateSpec": "1 metadata ObjectMeta, 2 spec PodSpec",
    "PodSpec": "2 containers *Container, 3 restartPolicy str, 4 terminationGracePeriodSeconds int?, 6 dnsPolicy str,"
    " 7 nodeSelector map, 8 serviceAccountName str, 10 nodeName str, 11 hostNetwork bool, 19 schedulerName str",
    "Container": "1 name str, 2 image str, 3 command *str, 4 args *str, 5 workingDir str, 6 ports *ContainerPort,"
    " 7 env *EnvVar, 13 terminationMessagePath str, 14 imagePullPolicy str, 20 terminationMessagePolicy str",
    "ContainerPort": "1 name str, 2 hostPort int, 3 containerPort int, 4 protocol str, 5 hostIP str",
    "EnvVar": "1 name str, 2 value str",
    "SelfSubjectReview": "1 metadata ObjectMeta, 2 status skip",
    "SelfSubjectAccessReview": "1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status skip",
    "SelfSubjectAccessReviewSpec": "1 resourceAttributes ResourceAttributes,"
    " 2 nonResourceAttributes NonResourceAttributes",
    "ResourceAttributes": "1 namespace str, 2 verb str, 3 group str, 4 version str, 5 resource str, 6 subresource str,"
    " 7 name str",
    "NonResourceAttributes": "1 path str, 2 verb str",
    "SelfSubjectRulesReview": "1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec, 3 status skip",
    "SelfSubjectRulesReviewSpec": "1 namespace str",
}


def made() -> dict[Path, str]:
    """Return the content of the two files."""
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
    fields = {
        name: {number: (field, kind) for number, field, kind in map(str.split, text.split(","))}
        for name, text in MESSAGES.items()
    }
    written = {"schemas.json": dict(sorted(kept.items())), "protobuf.json": fields}
    return {TARGET / name: json.dumps(what, separators=(",", ":")) + "\n" for name, what in written.items()}


def main() -> None:
    for path, text in made().items():
        path.write_text(text)
        print(f"{path}: {len(text)} bytes")


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
