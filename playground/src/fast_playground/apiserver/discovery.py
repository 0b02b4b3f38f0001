"""Describes the server's resources: discovery in both forms, versions, and the OpenAPI parts that kubectl reads."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from fast_playground.apiserver.access.reviews import REVIEWS
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.registry import Kind, Registry
from fast_playground.apiserver.schema import Schema

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
#: Of subresources that differ from ``status`` and ``scale``.
_SUBRESOURCE_VERBS = {
    "binding": ["create"],
    "exec": ["create", "get"],
    "log": ["get"],
    "finalize": ["update"],
}
_SCALE = GVR("autoscaling", "v1", "scale")
#: How kube-apiserver describes kinds of its own groups.
_OWN = GVR("", "", "")
OPENAPI_V2_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
#: A media type must not have the "@" of what was asked for.
OPENAPI_V2_GIVEN = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2+fast",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}


def _kinds(registry: Registry) -> list[Kind]:
    """The kinds in discovery: those with objects, and the self reviews."""
    reviews = (Kind(gvr, name, name.lower(), False, Schema({})) for gvr, name in REVIEWS.items())
    return [*registry, *reviews]


def _common(kind: Kind) -> Object:
    """The part of a kind's description that both forms share."""
    said: Object = {"verbs": ["create"] if kind.gvr in REVIEWS else _VERBS}
    if kind.short_names:
        said["shortNames"] = list(kind.short_names)
    if kind.categories:
        said["categories"] = list(kind.categories)
    return said


def _subresources(kind: Kind) -> list[tuple[str, GVR, str, list[str]]]:
    """A kind's subresources: name, the group and version of what they take, its kind, verbs."""
    found = [(name, kind.gvr, takes) for name, takes in kind.subresources]
    if kind.scale:
        found.append(("scale", _SCALE, "Scale"))
    if kind.status:
        found.append(("status", kind.gvr, kind.kind))
    return [(*item, _SUBRESOURCE_VERBS.get(item[0], ["get", "patch", "update"])) for item in sorted(found)]


def groups(registry: Registry) -> dict[str, list[str]]:
    """The named groups and their versions."""
    found: dict[str, list[str]] = {}
    for gvr in (kind.gvr for kind in _kinds(registry)):
        if gvr.group and gvr.version not in found.setdefault(gvr.group, []):
            found[gvr.group].append(gvr.version)
    return found


def api_versions(address: str) -> Object:
    """Answer ``/api``."""
    where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}


def group_list(registry: Registry) -> Object:
    """Answer ``/apis``."""
    listed = [_group(name, versions) for name, versions in groups(registry).items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def _group(name: str, versions: list[str]) -> Object:
    served = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


def group(registry: Registry, name: str) -> Object | None:
    """Answer ``/apis/GROUP``; None if there is none."""
    versions = groups(registry).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, versions) if versions else None


def resource_list(registry: Registry, group_name: str, version: str) -> Object | None:
    """Answer ``/apis/GROUP/VERSION`` and ``/api/v1``; None if there is none."""
    resources: list[Object] = []
    for kind in _kinds(registry):
        if (kind.gvr.group, kind.gvr.version) == (group_name, version):
            resources += _resource(kind)
    if not resources:
        return None
    group_version = f"{group_name}/{version}" if group_name else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def _resource(kind: Kind) -> list[Object]:
    entry: Object = {"name": kind.gvr.resource, "singularName": kind.singular, "namespaced": kind.namespaced}
    entry |= {"kind": kind.kind} | _common(kind)
    if kind.gvr not in REVIEWS:
        digest = hashlib.sha256(f"{kind.storage}/{kind.gvr.version}/{kind.kind}".encode()).digest()
        entry["storageVersionHash"] = base64.b64encode(digest[:8]).decode()
    entries = [entry]
    for name, taken, takes, verbs in _subresources(kind):
        sub: Object = {
            "name": f"{kind.gvr.resource}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
        }
        if taken is _SCALE:
            sub |= {"group": taken.group, "version": taken.version}
        entries.append(sub | {"kind": takes, "verbs": verbs})
    return entries


def aggregated(registry: Registry, *, core: bool) -> Object:
    """Answer ``/api`` (core) or ``/apis`` in the form that tells everything at once."""
    items: dict[str, dict[str, list[Object]]] = {}
    for kind in _kinds(registry):
        if (kind.gvr.group == "") == core:
            versions = items.setdefault(kind.gvr.group, {})
            versions.setdefault(kind.gvr.version, []).append(_aggregated_resource(kind))
    listed = []
    for name, versions in items.items():
        served = [{"version": v, "resources": r, "freshness": "Current"} for v, r in versions.items()]
        listed.append({"metadata": {"name": name} if name else {}, "versions": served})
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    return head | {"items": listed}


def _response(gvr: GVR, kind: str) -> Object:
    return {"group": gvr.group, "version": gvr.version, "kind": kind}


def _aggregated_resource(kind: Kind) -> Object:
    shown = kind.gvr if kind.custom else _OWN
    entry: Object = {"resource": kind.gvr.resource, "responseKind": _response(shown, kind.kind)}
    entry |= {"scope": "Namespaced" if kind.namespaced else "Cluster", "singularResource": kind.singular}
    entry |= _common(kind)
    subresources = [
        {
            "subresource": name,
            "responseKind": _response(taken if taken is _SCALE or kind.custom else shown, takes),
            "verbs": verbs,
        }
        for name, taken, takes, verbs in _subresources(kind)
    ]
    return entry | ({"subresources": subresources} if subresources else {})


def openapi_v2() -> bytes:
    """Answer ``/openapi/v2``: a document (``openapi.v2.Document``, protobuf) that knows no kinds.

    kubectl reads it before it creates a ``kind: List``, and leaves the validation of kinds that it does not find to the
    server, which validates each object strictly.
    """
    info = b"\x0a\x04Fast" + b"\x12\x05v1.36"  # title, version
    return b"\x0a\x032.0" + b"\x12" + bytes([len(info)]) + info + b"\x42\x00"  # swagger, info, paths


def openapi_index(registry: Registry) -> Object:
    """Answer ``/openapi/v3``: where each group version's document is."""
    places = sorted({_place(kind) for kind in registry})
    return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in places}}


def _place(kind: Kind) -> str:
    return f"{'apis' if kind.gvr.group else 'api'}/{kind.gvr.group_version}"


def openapi_document(registry: Registry, place: str) -> Object | None:
    """Answer ``/openapi/v3/PLACE``: schemas, and which operations take ``fieldValidation``; None: no such place."""
    kinds = [kind for kind in registry if _place(kind) == place]
    if not kinds:
        return None
    paths: Object = {}
    schemas: Object = {}
    for kind in kinds:
        name = _schema_name(kind, registry, schemas)
        gvk = {"group": kind.gvr.group, "version": kind.gvr.version, "kind": kind.kind}
        middle = "/namespaces/{namespace}" if kind.namespaced else ""
        paths[f"/{place}{middle}/{kind.gvr.resource}"] = {"post": _operation(gvk, "post", name)}
        paths[f"/{place}{middle}/{kind.gvr.resource}/{{name}}"] = {
            verb: _operation(gvk, verb, name) for verb in ("get", "put", "patch", "delete")
        }
    info = {"title": "Fast's embedded API server", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operation(gvk: Object, verb: str, schema: str) -> Object:
    names = ["dryRun", "fieldManager", "fieldValidation"] if verb in ("post", "put", "patch") else []
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in names
    ]
    reference = {"$ref": f"#/components/schemas/{schema}"}
    content = {"content": {"application/json": {"schema": reference}}}
    operation = {"parameters": parameters, "responses": {"200": {"description": "OK"} | content}}
    return operation | {"x-kubernetes-action": verb, "x-kubernetes-group-version-kind": gvk}


def _schema_name(kind: Kind, registry: Registry, schemas: Object) -> str:
    """Add a kind's schema, and those it refers to, to a document; gives its name there."""
    specs = registry.definitions.specs
    gvk = {"group": kind.gvr.group, "version": kind.gvr.version, "kind": kind.kind}
    if kind.custom:
        name = ".".join([*reversed(kind.gvr.group.split(".")), kind.gvr.version, kind.kind])
        properties = {**(kind.schema.spec.get("properties") or {})}
        properties["metadata"] = {
            "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        }
        spec = {**kind.schema.spec, "properties": properties, "x-kubernetes-group-version-kind": [gvk]}
        schemas[name] = spec
    else:
        name = next(n for n, spec in specs.items() if gvk in spec.get("x-kubernetes-group-version-kind", ()))
        schemas[name] = spec = specs[name]
    pending: list[Any] = [spec]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            target = reference.rpartition("/")[2] if isinstance(reference, str) else ""
            if target and target not in schemas:
                schemas[target] = specs[target]
                pending.append(specs[target])
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return name
