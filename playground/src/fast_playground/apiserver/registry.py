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

_ADMISSION = "admissionregistration.k8s.io/v1"
_EXTENSION = "cluster generation update_needs_version api-extensions"


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


_POD_FIELDS = (
    "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork"
    " status.phase status.podIP status.nominatedNodeName"
)
_EVENT_FIELDS = (
    "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid"
    " involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath"
    " reason reportingComponent type source.component"
)


#: Built-in kinds: apiVersion, kind, short names, flags, and the fields that field selectors may name. The flag
#: ``cluster`` means not namespaced, ``all`` is a category, and the others are attributes of Kind that are true.
_BUILT_IN = [
    ("v1", "Namespace", "ns", "cluster status", "status.phase"),
    ("v1", "Node", "no", "cluster status", "spec.unschedulable"),
    ("v1", "Pod", "po", "all status generation returns_deleted", _POD_FIELDS),
    ("v1", "Event", "ev", "", _EVENT_FIELDS),
    ("v1", "ServiceAccount", "sa", "returns_deleted", ""),
    ("v1", "Service", "svc", "all status returns_deleted", "spec.clusterIP spec.type"),
    ("v1", "ConfigMap", "cm", "", ""),
    ("v1", "Secret", "", "", "type"),
    ("apps/v1", "Deployment", "deploy", "all status generation scale", ""),
    ("apps/v1", "ReplicaSet", "rs", "all status generation scale", "status.replicas"),
    ("apps/v1", "StatefulSet", "sts", "all status generation scale", ""),
    ("networking.k8s.io/v1", "NetworkPolicy", "netpol", "generation", ""),
    ("coordination.k8s.io/v1", "Lease", "", "update_needs_version", ""),
    ("rbac.authorization.k8s.io/v1", "Role", "", "", ""),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "", "", ""),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "", "cluster", ""),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "cluster", ""),
    (_ADMISSION, "ValidatingAdmissionPolicy", "", f"{_EXTENSION} status", ""),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding", "", _EXTENSION, ""),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "crd crds", f"{_EXTENSION} status", ""),
]
_SUBRESOURCES = {
    "Namespace": (("finalize", "Namespace"),),
    "Pod": (("binding", "Binding"), ("exec", "PodExecOptions"), ("log", "Pod")),
}
#: Where the schemas of a group's types are, if not at ``api.GROUP``.
_PACKAGES = {
    "": "api.core",
    "apiextensions.k8s.io": "apiextensions-apiserver.pkg.apis.apiextensions",
}


@functools.cache
def load_definitions() -> Definitions:
    """Read the schemas of the built-in kinds, with their defaults."""
    text = importlib.resources.files("fast_playground.apiserver").joinpath("schemas.json").read_bytes()
    return Definitions(msgspec.json.decode(text))


def _built_in(definitions: Definitions) -> Iterator[Kind]:
    for api_version, name, short, flags, selectable in _BUILT_IN:
        group, _, version = api_version.rpartition("/")
        package = _PACKAGES.get(group, f"api.{group.partition('.')[0]}")
        words = set(flags.split())
        true: dict[str, Any] = dict.fromkeys(words - {"cluster", "all", "api-extensions", "scale"}, True)
        yield Kind(
            GVR(group, version, re.sub("y$", "ie", name.lower()) + "s"),
            name,
            name.lower(),
            "cluster" not in words,
            definitions.get(f"io.k8s.{package}.{version}.{name}"),
            name + "List",
            tuple(short.split()),
            tuple(sorted(words & {"all", "api-extensions"})),
            scale=Scale() if "scale" in words else None,
            subresources=_SUBRESOURCES.get(name, ()),
            selectable=frozenset(selectable.split()),
            **true,
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
        self._kinds: dict[GVR, Kind] = {kind.gvr: kind for kind in _built_in(self.definitions)}

    def find(self, gvr: GVR) -> Kind | None:
        """The kind of a resource; None if it is not served."""
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
