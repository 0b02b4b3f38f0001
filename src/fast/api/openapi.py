"""Structural OpenAPI v3 schemas for CustomResourceDefinitions, made from msgspec types. Knows none of Fast's types.

What a type cannot express (descriptions, lengths, rules) is an annotation by path: ``spec.ips`` is the list,
``spec.ips[]`` one of its items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import inspect

Schema = dict[str, Any]
Annotations = Mapping[str, Mapping[str, Any]]

_SCALARS: dict[type[inspect.Type], Schema] = {
    inspect.StrType: {"type": "string"},
    inspect.BoolType: {"type": "boolean"},
    inspect.IntType: {"type": "integer", "format": "int64"},
}


def object_schema(kind: type, annotations: Annotations) -> Schema:
    """Make the schema of a custom resource's root object; the API server itself validates metadata.

    Args:
        kind: The struct, with ``api_version``, ``kind``, ``metadata`` and more.
        annotations: Keys merged into the schema at each path; the root's path is the empty string.

    Raises:
        ValueError: An annotation's path does not exist, or a field of the type has no description.
        TypeError: The type holds something that no structural schema can express.
    """
    unused = set(annotations)
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType), "a resource is a struct"
    schema = _of_struct(found, "", annotations, unused)
    properties = schema["properties"]
    properties["apiVersion"] = {
        "type": "string",
        "description": "Which version of the schema this object is written in.",
    }
    properties["kind"] = {"type": "string", "description": "Which resource this object is."}
    properties["metadata"] = {"type": "object"}
    if unused:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unused))}")
    return schema


def _of(found: inspect.Type, path: str, annotations: Annotations, unused: set[str]) -> Schema:
    """The schema of the value at a path."""
    unused.discard(path)
    extra = annotations.get(path, {})
    match found:
        case inspect.StructType():
            return _of_struct(found, path, annotations, unused)
        case inspect.UnionType():
            one = [item for item in found.types if not isinstance(item, inspect.NoneType)]
            if len(one) != 1:
                raise TypeError(f"{path}: a structural schema has no unions")
            return _of(one[0], path, annotations, unused)
        case inspect.ListType() | inspect.VarTupleType():
            items = _of(found.item_type, f"{path}[]", annotations, unused)
            return _ordered({"type": "array", "items": items, **extra})
        case inspect.DictType():
            values = _of(found.value_type, f"{path}{{}}", annotations, unused)
            return _ordered({"type": "object", "additionalProperties": values, **extra})
        case _ if type(found) in _SCALARS:
            return _ordered({**_SCALARS[type(found)], **extra})
    raise TypeError(f"{path}: no schema for {found}")


def _of_struct(found: inspect.StructType, path: str, annotations: Annotations, unused: set[str]) -> Schema:
    unused.discard(path)
    properties: Schema = {}
    required: list[str] = []
    for field in found.fields:
        if not path and field.name in {"api_version", "kind", "metadata"}:
            continue
        where = f"{path}.{field.encode_name}".lstrip(".")
        schema = _of(field.type, where, annotations, unused)
        if "description" not in schema:
            raise ValueError(f"{where} has no description")
        if isinstance(field.default, str | int) and field.default:  # an empty default is the same as none
            schema = _ordered({**schema, "default": field.default})
        properties[field.encode_name] = schema
        if field.required:
            required.append(field.encode_name)
    needed = {"required": required} if required else {}
    return _ordered({"type": "object", **needed, "properties": properties, **annotations.get(path, {})})


#: The order for readers: a field's own keys first, then its children, rules last.
_ORDER = (
    *(
        "description",
        "type",
        "format",
        "default",
        "enum",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "maxItems",
    ),
    *("required", "properties", "items", "additionalProperties"),
)


def _ordered(schema: Schema) -> Schema:
    """Sort the schema's keys for readers, so that manifests are the same every time."""
    return dict(
        sorted(schema.items(), key=lambda item: _ORDER.index(item[0]) if item[0] in _ORDER else len(_ORDER))
    )
