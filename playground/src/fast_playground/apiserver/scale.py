"""The scale subresource: a kind's replicas as an ``autoscaling/v1`` Scale, and back."""

from __future__ import annotations

from typing import Any

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.selectors import read_field
from fast_playground.apiserver.status import bad_request, invalid, negative

_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(kind: Kind, obj: Object) -> Object:
    """Show an object as its Scale."""
    assert kind.scale is not None
    status: Object = {"replicas": read_field(obj, kind.scale.status_path) or 0}
    selector = read_field(obj, kind.scale.selector_path) if kind.scale.selector_path else None
    if isinstance(selector, str):
        status["selector"] = selector
    elif selector:
        status["selector"] = selector_text(selector)
    meta = {name: obj["metadata"][name] for name in _META if name in obj["metadata"]}
    spec = {"replicas": read_field(obj, kind.scale.spec_path) or 0}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def selector_text(selector: Object) -> str:
    """Write a LabelSelector object as ``a=b,c in (d,e)``."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or []:
        operator = item["operator"]
        if operator in ("In", "NotIn"):
            parts.append(f"{item['key']} {operator.lower()} ({','.join(sorted(item.get('values') or []))})")
        else:
            parts.append(("!" if operator == "DoesNotExist" else "") + item["key"])
    return ",".join(parts)


def set_scale(kind: Kind, old: Object, scale: Object) -> Object:
    """Make the object that a changed Scale asks for. Raises ApiError: 400 or 422 for a body that is not a Scale."""
    assert kind.scale is not None
    spec = scale.get("spec") if isinstance(scale, dict) else None
    replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
    if scale.get("kind") != "Scale" or not isinstance(replicas, int):
        raise bad_request("the object provided is unrecognized (must be of type Scale)")
    name = old["metadata"]["name"]
    if replicas < 0:
        raise invalid(kind.gvr, "Scale", name, [negative("spec.replicas", replicas)])
    *path, last = kind.scale.spec_path.split(".")
    new = dict(old)
    node: Any = new
    for part in path:
        node[part] = dict(node.get(part) or {})
        node = node[part]
    node[last] = replicas
    meta = scale.get("metadata") or {}
    new["metadata"] = {**old["metadata"], "name": meta.get("name", name)}
    new["metadata"]["resourceVersion"] = meta.get("resourceVersion") or old["metadata"]["resourceVersion"]
    return new
