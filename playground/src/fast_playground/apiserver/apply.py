"""Server-side apply: who owns which field, and how a manager's fields are merged into an object.

Ownership is kept in ``metadata.managedFields`` for those who apply; a field changed by another kind of write leaves its
appliers' hands. Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.metadata import timestamp
from fast_playground.apiserver.schema import Schema
from fast_playground.apiserver.status import ApiError

#: Path of a field: ``f:name`` for fields, ``k:{…}`` for items of keyed lists, ``v:…`` for members of sets.
Path = tuple[str, ...]
_NOT_OWNED = {"apiVersion", "kind"}
_META_NOT_OWNED = {"name", "namespace", "resourceVersion", "uid", "creationTimestamp", "generation"} | {
    "managedFields",
    "selfLink",
}


def field_paths(value: Any, schema: Schema | None, path: Path = ()) -> dict[Path, Any]:
    """List the leaves of an object with their values; atomic lists and maps are leaves."""
    if isinstance(value, dict) and value and not (schema and schema.map_type == "atomic"):
        leaves: dict[Path, Any] = {}
        for name, item in value.items():
            if (path == () and name in _NOT_OWNED) or (path == ("f:metadata",) and name in _META_NOT_OWNED):
                continue
            leaves |= field_paths(item, schema.field(name) if schema else None, (*path, f"f:{name}"))
        return leaves
    if isinstance(value, list) and value and schema and schema.list_type in ("map", "set"):
        leaves = {}
        for item in value:
            key = _item_key(item, schema)
            leaves |= {(*path, key): item}
            if isinstance(item, dict):
                leaves |= field_paths(item, schema.items, (*path, key))
        return leaves
    return {path: value}


def _item_key(item: Any, schema: Schema) -> str:
    if schema.list_type == "set":
        return "v:" + msgspec.json.encode(item).decode()
    keys = {key: item.get(key) for key in sorted(schema.list_keys) if item.get(key) is not None}
    return "k:" + msgspec.json.encode(keys).decode()


def to_fields_v1(paths: set[Path]) -> Object:
    """Write paths as Kubernetes keeps them."""
    made: Object = {}
    for path in sorted(paths):
        node = made
        for part in path:
            node = node.setdefault(part, {})
    return made


def from_fields_v1(fields: Object, path: Path = ()) -> set[Path]:
    """Read them back."""
    paths: set[Path] = set()
    for part, inner in fields.items():
        if not inner or part.startswith(("k:", "v:")):
            paths.add((*path, part))
        paths |= from_fields_v1(inner, (*path, part))
    return paths


def apply_patch(
    live: Object, wanted: Object, schema: Schema, manager: str, subresource: str, *, force: bool
) -> Object:
    """Merge what a manager wants into an object.

    Args:
        live: The object as it is; empty if it is to be made.
        wanted: What the manager applies: only fields that it has an opinion about.
        schema: The kind's.
        manager: Its name.
        subresource: ``status``, or empty.
        force: Take over fields that others own.

    Returns:
        A new object with ``managedFields`` brought up to date.

    Raises:
        ApiError: 409 naming the fields that others own.
    """
    entries = (live.get("metadata") or {}).get("managedFields") or []
    leaves = field_paths(wanted, schema)
    present = field_paths(live, schema)
    owned = {_entry_key(entry): from_fields_v1(entry["fieldsV1"]) for entry in entries}
    me = manager, subresource
    others = {who: paths for who, paths in owned.items() if who != me}
    changed = {path for path, value in leaves.items() if _changes(path, value, present)}
    conflicts = [(who, p) for (who, _), paths in others.items() for p in sorted(changed & paths)]
    if conflicts and not force:
        raise _conflict(conflicts)
    others = {who: paths - changed for who, paths in others.items()}
    made: Object = _merge(live, wanted, schema)
    kept = set(leaves).union(*others.values())
    mine = owned.get(me, set())
    for path in sorted(mine - kept, key=len):  # a list's item before its fields, which tell it from others
        _remove(made, path, schema)
    owned |= others | {me: set(leaves)}
    before = {_entry_key(entry): entry for entry in entries}
    made["metadata"]["managedFields"] = [
        _entry(who, wanted["apiVersion"], paths, before.get(who)) for who, paths in owned.items() if paths
    ]
    return made


def _changes(path: Path, value: Any, present: dict[Path, Any]) -> bool:
    """Whether applying a leaf changes something. An empty map or list changes nothing if there is none yet."""
    if path[-1].startswith("k:") or (value in ({}, []) and path not in present):
        return False
    return bool(present.get(path) != value)


def release_fields(old: Object, new: Object, schema: Schema) -> None:
    """End the ownership of fields that a write other than apply changed, in place."""
    entries = old["metadata"].get("managedFields")
    if not entries:
        new["metadata"].pop("managedFields", None)
        return
    before, after = field_paths(old, schema), field_paths(new, schema)
    changed = {path for path in before if after.get(path) != before[path]}
    new["metadata"]["managedFields"] = [
        entry | {"fieldsV1": to_fields_v1(paths)}
        for entry in entries
        if (paths := from_fields_v1(entry["fieldsV1"]) - changed)
    ]
    if not new["metadata"]["managedFields"]:
        del new["metadata"]["managedFields"]


def _entry_key(entry: Object) -> tuple[str, str]:
    return entry["manager"], entry.get("subresource", "")


def _entry(key: tuple[str, str], api_version: str, paths: set[Path], before: Object | None) -> Object:
    """Record who owns what, since now or, if unchanged, since the time recorded before."""
    fields = to_fields_v1(paths)
    if before and before["fieldsV1"] == fields:
        return before
    entry = {"manager": key[0], "operation": "Apply", "apiVersion": api_version, "fieldsType": "FieldsV1"}
    if key[1]:
        entry["subresource"] = key[1]
    return entry | {"fieldsV1": fields, "time": timestamp()}


def _conflict(conflicts: list[tuple[str, Path]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{who}"', "field": _dotted(path)}
        for who, path in conflicts
    ]
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    texts = [f"{cause['message']}: {cause['field']}" for cause in causes]
    message = (
        f"Apply failed with {count}: {texts[0]}" if len(texts) == 1 else f"Apply failed with {count}: {texts}"
    )
    return ApiError(409, "Conflict", message, {"causes": causes})


def _dotted(path: Path) -> str:
    return "".join(f".{part[2:]}" if part.startswith("f:") else f"[{part[2:]}]" for part in path)


def _merge(live: Any, wanted: Any, schema: Schema | None) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict) and not (schema and schema.map_type == "atomic"):
        made = dict(live)
        for name, value in wanted.items():
            made[name] = _merge(made.get(name), value, schema.field(name) if schema else None)
        return made
    if isinstance(wanted, list) and isinstance(live, list) and schema and schema.list_type in ("map", "set"):
        items = {_item_key(item, schema): item for item in live}
        for item in wanted:
            key = _item_key(item, schema)
            items[key] = _merge(items.get(key), item, schema.items)
        return list(items.values())
    return copy.deepcopy(wanted)


def _remove(value: Any, path: Path, schema: Schema | None) -> None:
    """Remove one leaf from an object, in place, if it is there."""
    part, rest = path[0], path[1:]
    if part.startswith("f:"):
        name = part[2:]
        if not isinstance(value, dict) or name not in value:
            return
        if not rest:
            del value[name]
            return
        _remove(value[name], rest, schema.field(name) if schema else None)
        if value[name] in ({}, []):
            del value[name]
    elif isinstance(value, list) and schema:
        for item in value:
            if _item_key(item, schema) == part:
                if rest:
                    _remove(item, rest, schema.items)
                else:
                    value.remove(item)
                return
