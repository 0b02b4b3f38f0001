"""Write schemas.json of the embedded API server again: the schemas of its built-in kinds.

Source: the published OpenAPI definitions that the development dependency kubernetes-validate carries. Kept are the
types the server serves and whatever they refer to, without prose. Run it by hand after changing VERSION or KINDS.
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


def main() -> None:
    data = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local"
    definitions = json.loads((data / "_definitions.json").read_text())["$defs"]
    kept: dict[str, Any] = {}
    pending = [f"io.k8s.{kind}" for kind in KINDS]
    while pending:
        name = pending.pop()
        if name not in kept:
            kept[name] = SPECIAL.get(name) or openapi(definitions[name], pending)
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
