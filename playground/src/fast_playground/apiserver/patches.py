"""JSON patch, merge patch and strategic merge patch: an object and a patch make a new object. No storage, no kinds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.schema import Schema
from fast_playground.apiserver.status import ApiError, bad_request

#: Operations one JSON patch may have, as in kube-apiserver.
MAX_OPERATIONS = 10_000


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: nulls remove, objects merge, everything else replaces."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Object, operations: Any) -> Object:
    """RFC 6902. Raises ApiError: 400 for an invalid patch, 422 for one that does not fit the object."""
    if not isinstance(operations, list) or not all(isinstance(op, Mapping) for op in operations):
        raise bad_request("json: cannot unmarshal into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise ApiError(413, "RequestEntityTooLarge", message, {})
    document: Any = {"": copy.deepcopy(target)}
    try:
        for operation in operations:
            _operate(document, operation)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", message, {}) from error
    made = document[""]
    if not isinstance(made, dict):
        raise bad_request("a patch must leave an object")
    return made


def _operate(document: Any, operation: Mapping[str, Any]) -> None:
    kind, path = operation["op"], operation["path"]
    holder, key = _locate(document, path)
    if kind == "test":
        if _read(holder, key) != operation["value"]:
            raise ValueError("test failed")
    elif kind == "add":
        _insert(holder, key, copy.deepcopy(operation["value"]))
    elif kind == "replace":
        _read(holder, key)
        holder[_index(holder, key) if isinstance(holder, list) else key] = copy.deepcopy(operation["value"])
    elif kind == "remove":
        _remove(holder, key)
    elif kind in ("move", "copy"):
        source, source_key = _locate(document, operation["from"])
        value = copy.deepcopy(_read(source, source_key))
        if kind == "move":
            _remove(source, source_key)
        _insert(*_locate(document, path), value)
    else:
        raise ValueError(f"unknown operation {kind!r}")


def _locate(document: Any, pointer: str) -> tuple[Any, str]:
    """Find what holds a JSON pointer's target, and under which key."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("a pointer begins with a slash")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]
    holder = document
    for part in parts[:-1]:
        holder = _read(holder, part)
    return holder, parts[-1]


def _index(items: list[Any], key: str) -> int:
    if not key.isdecimal() or (len(key) > 1 and key[0] == "0"):
        raise ValueError(f"{key!r} is no index")
    return int(key)


def _read(holder: Any, key: str) -> Any:
    return holder[_index(holder, key)] if isinstance(holder, list) else holder[key]


def _insert(holder: Any, key: str, value: Any) -> None:
    if not isinstance(holder, list):
        holder[key] = value
    elif key == "-":
        holder.append(value)
    else:
        index = _index(holder, key)
        if index > len(holder):
            raise IndexError(key)
        holder.insert(index, value)


def _remove(holder: Any, key: str) -> None:
    del holder[_index(holder, key) if isinstance(holder, list) else key]


def strategic_merge(target: Any, patch: Any, schema: Schema | None) -> Any:
    """Kubernetes' strategic merge patch: lists merge by the keys that the schema names.

    Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md

    Args:
        target: What is to be changed; not touched.
        patch: The change, which may hold ``$patch``, ``$retainKeys``, ``$setElementOrder/x`` and
            ``$deleteFromPrimitiveList/x``.
        schema: The schema of both; None: nothing is known, so lists are replaced.

    Raises:
        ApiError: 400 for a directive that is none.
    """
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if directive not in (None, "merge"):
        raise bad_request(f"Unknown patch type found: {directive}")
    merged = dict(target) if isinstance(target, Mapping) else {}
    if (retained := patch.get("$retainKeys")) is not None:
        merged = {key: value for key, value in merged.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [item for item in merged.get(field) or [] if item not in value]
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
            continue
        inner = schema.field(key) if schema else None
        if isinstance(value, list) and inner is not None and inner.strategy.startswith("merge"):
            order = patch.get(f"$setElementOrder/{key}")
            merged[key] = _merge_lists(merged.get(key) or [], value, inner, order)
        elif merged.get(key) is None and isinstance(value, Mapping):
            merged[key] = strategic_merge({}, value, inner)
        else:
            merged[key] = strategic_merge(merged.get(key), value, inner)
    return merged


def _merge_lists(live: list[Any], patch: list[Any], schema: Schema, order: list[Any] | None) -> list[Any]:
    if not schema.merge_key:
        merged = [*live, *(item for item in patch if item not in live)]
        return _arrange(live, merged, [str(item) for item in (order or patch)], str)
    key = schema.merge_key
    if any(not isinstance(item, Mapping) for item in patch):
        raise bad_request("expected a list of objects")
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if "$patch" not in item]
    found = {str(item.get(key)): item for item in live}
    for item in patch:
        if key not in item:
            raise bad_request(f"map: {dict(item)} does not contain declared merge key: {key}")
        name = str(item[key])
        if item.get("$patch") == "delete":
            found.pop(name, None)
        else:
            found[name] = strategic_merge(found.get(name, {}), item, schema.items)
    wanted = [str(item[key]) if isinstance(item, Mapping) else str(item) for item in (order or patch)]
    return _arrange(live, list(found.values()), wanted, lambda item: str(item.get(key)))


def _arrange(live: list[Any], merged: list[Any], wanted: list[str], name: Any) -> list[Any]:
    """Order a merged list: the patch's items in its order, the others where they were, after the patch in doubt."""
    place = {name(item): index for index, item in enumerate(live)}
    items = {name(item): item for item in merged}
    named = [item for item in dict.fromkeys(wanted) if item in items]
    rest = [item for item in items if item not in set(named)]
    made: list[str] = []
    while named and rest:
        known = place.get(named[0])
        made.append(rest.pop(0) if known is not None and place.get(rest[0], known) < known else named.pop(0))
    return [items[item] for item in made + named + rest]
