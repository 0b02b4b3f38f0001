"""Which kinds the server serves and what each is like: the built-in ones and those of CustomResourceDefinitions.

What writing a kind does beyond its schema lives in ``strategy``; how it is printed in ``tables``.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.schema import Definitions, Schema

_ADMISSION = "io.k8s.api.admissionregistration.v1."
_CORE = "io.k8s.api.core.v1."


@dataclass(frozen=True)
class Scale:
    """Where a kind keeps what its scale subresource shows; paths as ``spec.replicas``."""

    spec_path: str = "spec.replicas"
    status_path: str = "status.replicas"
    selector_path: str = "spec.selector"


@dataclass(frozen=True)
class Kind:
    """One kind in one version.

    Attributes:
        gvr: Its resource.
        kind: Its name, as ``Pod``.
        singular: As ``pod``.
        namespaced: Whether its objects live in namespaces.
        schema: What its objects look like.
        list_kind: As ``PodList``.
        short_names: As ``po``.
        categories: As ``all``.
        status: Whether it has the status subresource.
        scale: Whether and how it has the scale subresource.
        subresources: Others, with the kind that each takes, as ``("binding", "Binding")``.
        generation: Whether ``metadata.generation`` counts the changes of what is wanted.
        selectable: The fields that field selectors may name, beyond name and namespace.
        columns: Printer columns of a custom kind.
        custom: Whether a CustomResourceDefinition made it.
        update_needs_version: Whether a replacement must carry a resourceVersion.
        returns_deleted: Whether a deletion answers with the object, not with a Status.
    """

    gvr: GVR
    kind: str
    singular: str
    namespaced: bool
    schema: Schema
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale: Scale | None = None
    subresources: tuple[tuple[str, str], ...] = ()
    generation: bool = False
    selectable: frozenset[str] = frozenset()
    columns: tuple[Mapping[str, Any], ...] = ()
    custom: bool = False
    update_needs_version: bool = False
    returns_deleted: bool = False
    prefix: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make what an object's JSON begins with."""
        head = msgspec.json.encode({"apiVersion": self.gvr.group_version, "kind": self.kind})
        object.__setattr__(self, "prefix", head[:-1] + b",")

    @property
    def storage(self) -> str:
        """What the store calls the resource, whatever the version."""
        return f"{self.gvr.group}/{self.gvr.resource}"

    def key(self, name: str, namespace: str | None) -> str:
        """What the store calls an object."""
        return f"{namespace}/{name}" if self.namespaced else name

    def selects(self, path: str) -> bool:
        """Whether field selectors may name the field."""
        return (
            path == "metadata.name"
            or (path == "metadata.namespace" and self.namespaced)
            or path in self.selectable
        )

    def whole(self, obj: Object) -> Object:
        """Complete a stored object by its kind and apiVersion."""
        return {"apiVersion": self.gvr.group_version, "kind": self.kind} | obj


_NODE_INFO = ["machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion"]
_NODE_INFO += ["kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"]

#: What fields of the built-in types are when they are not given; by type. Source: the transcripts of a kube-apiserver.
_DEFAULTS: dict[str, dict[str, Any]] = {
    _CORE + "Container": {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    },
    _CORE + "ContainerPort": {"protocol": "TCP"},
    _CORE + "PodSpec": {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    },
    _CORE + "PodCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    _CORE + "NodeCondition": {"lastHeartbeatTime": None, "lastTransitionTime": None},
    _CORE + "ProjectedVolumeSource": {"defaultMode": 420},
    _CORE + "SecretVolumeSource": {"defaultMode": 420},
    _CORE + "ConfigMapVolumeSource": {"defaultMode": 420},
    _CORE + "ObjectFieldSelector": {"apiVersion": "v1"},
    _CORE + "Probe": {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
    _CORE + "HTTPGetAction": {"scheme": "HTTP"},
    _CORE + "Secret": {"type": "Opaque"},
    _CORE + "ServicePort": {"protocol": "TCP"},
    _CORE + "ServiceSpec": {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"],
    },
    _CORE + "ServiceStatus": {"loadBalancer": {}},
    _CORE + "Service": {"status": {"loadBalancer": {}}},
    _CORE + "Event": {
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "source": {},
        "reportingComponent": "",
        "reportingInstance": "",
    },
    _CORE + "NodeStatus": {
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": dict.fromkeys(_NODE_INFO, ""),
    },
    _CORE + "Node": {"spec": {}, "status": {}},
    "io.k8s.api.apps.v1.DeploymentSpec": {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    },
    "io.k8s.api.apps.v1.Deployment": {"status": {}},
    "io.k8s.api.apps.v1.ReplicaSetSpec": {"replicas": 1},
    "io.k8s.api.apps.v1.ReplicaSet": {"status": {"replicas": 0}},
    "io.k8s.api.apps.v1.StatefulSetSpec": {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    "io.k8s.api.apps.v1.StatefulSet": {"status": {"replicas": 0, "availableReplicas": 0}},
    "io.k8s.api.rbac.v1.Role": {"rules": None},
    "io.k8s.api.rbac.v1.ClusterRole": {"rules": None},
    _ADMISSION + "MatchResources": {
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
    },
    _ADMISSION + "NamedRuleWithOperations": {"scope": "*"},
    _ADMISSION + "ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "io.k8s.api.networking.v1.NetworkPolicyPort": {"protocol": "TCP"},
    "io.k8s.api.networking.v1.NetworkPolicySpec": {"podSelector": {}},
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec": {
        "conversion": {"strategy": "None"},
    },
}

_POD_FIELDS = (
    "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork"
    " status.phase status.podIP status.nominatedNodeName"
)
_EVENT_FIELDS = (
    "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid"
    " involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath"
    " reason reportingComponent type source.component"
)


@functools.cache
def load_definitions() -> Definitions:
    """Read the schemas of the built-in kinds, with their defaults."""
    text = importlib.resources.files("fast_playground.apiserver").joinpath("schemas.json").read_bytes()
    specs: dict[str, Any] = msgspec.json.decode(text)
    for name, defaults in _DEFAULTS.items():
        for key, value in defaults.items():
            nullable = {"nullable": True} if value is None else {}
            specs[name]["properties"][key] = specs[name]["properties"][key] | {"default": value} | nullable
    return Definitions(specs)


def _builtins(definitions: Definitions) -> Iterator[Kind]:
    def kind(version: str, name: str, flags: str = "", short: str = "", **more: Any) -> Kind:
        """``flags``: ``cluster`` (not namespaced), ``all`` (that category), and the Kind's own that are true."""
        group, _, version = version.rpartition("/")
        package = {
            "rbac.authorization.k8s.io": "api.rbac",
            "coordination.k8s.io": "api.coordination",
            "networking.k8s.io": "api.networking",
            "admissionregistration.k8s.io": "api.admissionregistration",
            "apiextensions.k8s.io": "apiextensions-apiserver.pkg.apis.apiextensions",
        }.get(group, f"api.{group or 'core'}")
        schema = definitions.get(f"io.k8s.{package}.{version}.{name}")
        more |= dict.fromkeys(set(flags.split()) - {"cluster", "all"}, True)
        if "all" in flags.split():
            more["categories"] = ("all",)
        return Kind(
            GVR(group, version, re.sub("y$", "ie", name.lower()) + "s"),
            name,
            name.lower(),
            "cluster" not in flags.split(),
            schema,
            name + "List",
            tuple(short.split()),
            **more | {"selectable": frozenset(more.get("selectable", "").split())},
        )

    bind = (("binding", "Binding"), ("exec", "PodExecOptions"))
    yield kind(
        "v1",
        "Namespace",
        "cluster status",
        "ns",
        selectable="status.phase",
        subresources=(("finalize", "Namespace"),),
    )
    yield kind("v1", "Node", "cluster status", "no", selectable="spec.unschedulable")
    yield kind(
        "v1", "Pod", "all status generation returns_deleted", "po", selectable=_POD_FIELDS, subresources=bind
    )
    yield kind("v1", "Event", "", "ev", selectable=_EVENT_FIELDS)
    yield kind("v1", "ServiceAccount", "returns_deleted", "sa")
    yield kind("v1", "Service", "all status returns_deleted", "svc", selectable="spec.clusterIP spec.type")
    yield kind("v1", "ConfigMap", "", "cm")
    yield kind("v1", "Secret", selectable="type")
    workload = "all status generation"
    yield kind("apps/v1", "Deployment", workload, "deploy", scale=Scale())
    yield kind("apps/v1", "ReplicaSet", workload, "rs", scale=Scale(), selectable="status.replicas")
    yield kind("apps/v1", "StatefulSet", workload, "sts", scale=Scale())
    yield kind("networking.k8s.io/v1", "NetworkPolicy", "generation", "netpol")
    yield kind("coordination.k8s.io/v1", "Lease", "update_needs_version")
    for name in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        yield kind("rbac.authorization.k8s.io/v1", name, "cluster" if name.startswith("Cluster") else "")
    policy = "cluster generation update_needs_version"
    extends: dict[str, Any] = {"categories": ("api-extensions",)}
    yield kind("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", f"{policy} status", **extends)
    yield kind("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", policy, **extends)
    yield kind(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "cluster status generation update_needs_version",
        "crd crds",
        **extends,
    )


#: Custom objects' metadata is checked like everybody's.
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def custom_kinds(definitions: Definitions, crd: Object) -> Iterator[Kind]:
    """Make the kinds that a CustomResourceDefinition defines, one for each served version.

    Raises:
        ValueError: A pattern or CEL rule in its schema does not compile.
    """
    spec, names = crd["spec"], crd["spec"]["names"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        open_schema = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        yield Kind(
            GVR(spec["group"], version["name"], names["plural"]),
            names["kind"],
            names.get("singular") or names["kind"].lower(),
            spec["scope"] == "Namespaced",
            _with_metadata(open_schema, definitions),
            names.get("listKind") or names["kind"] + "List",
            tuple(names.get("shortNames") or ()),
            tuple(names.get("categories") or ()),
            status="status" in subresources,
            scale=Scale(
                scale["specReplicasPath"].removeprefix("."),
                scale["statusReplicasPath"].removeprefix("."),
                scale.get("labelSelectorPath", "").removeprefix("."),
            )
            if scale
            else None,
            generation=True,
            selectable=frozenset(
                f["jsonPath"].removeprefix(".") for f in version.get("selectableFields") or ()
            ),
            columns=tuple(
                version.get("additionalPrinterColumns")
                or [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
            ),
            custom=True,
            update_needs_version=True,
        )


def _with_metadata(spec: Mapping[str, Any], definitions: Definitions) -> Schema:
    """A custom kind's schema, completed by what every object has."""
    text: dict[str, Any] = {"type": "string"}
    schema = Schema(spec)
    schema.properties.setdefault("apiVersion", Schema(text))
    schema.properties.setdefault("kind", Schema(text))
    schema.properties["metadata"] = definitions.get(_OBJECT_META)
    return schema


class Registry:
    """All kinds that are served now."""

    def __init__(self) -> None:
        self.definitions = load_definitions()
        self._kinds: dict[GVR, Kind] = {kind.gvr: kind for kind in _builtins(self.definitions)}

    def find(self, gvr: GVR) -> Kind | None:
        """The kind of a resource; None where it is not served."""
        return self._kinds.get(gvr)

    def find_kind(self, group_version: str, kind: str) -> Kind | None:
        """The kind of an object's apiVersion and kind."""
        for found in self._kinds.values():
            if found.kind == kind and found.gvr.group_version == group_version:
                return found
        return None

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._kinds.values()))

    def install(self, crd: Object) -> None:
        """Serve what a CustomResourceDefinition defines, instead of what an earlier state of it did."""
        made = list(custom_kinds(self.definitions, crd))
        self.remove(crd)
        self._kinds.update((kind.gvr, kind) for kind in made)

    def remove(self, crd: Object) -> None:
        """Serve it no longer."""
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        for gvr in [
            g for g, k in self._kinds.items() if k.custom and (g.group, g.resource) == (group, plural)
        ]:
            del self._kinds[gvr]
