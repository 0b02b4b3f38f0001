"""Structural schemas: prune, default and validate objects, for custom resources and built-in kinds alike.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ and OpenAPI v3.
Knows no kind; CEL rules are evaluated in ``rules``.
"""

from __future__ import annotations

import copy
import ipaddress
import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from fast_playground.apiserver.rules import Rule, compile_pattern, parse_cidr
from fast_playground.apiserver.status import FieldError, invalid_value, quote, required, unsupported

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
#: How deep objects may nest; deeper nesting of a recursive type could overrun the stack.
MAX_DEPTH = 60


def _parse_date_time(text: str) -> None:
    datetime.fromisoformat(text)
    if "T" not in text or not (text.endswith("Z") or text[-6] in "+-"):
        raise ValueError("no RFC 3339 time")


#: What raises ValueError for a text that is not of the format.
_FORMATS: dict[str, Callable[[str], object]] = {
    "date-time": _parse_date_time,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": parse_cidr,
}
#: Bounds of numbers: keyword, exclusive keyword, the comparison of each, and the word in messages.
_BOUNDS = (
    ("minimum", "exclusiveMinimum", operator.gt, operator.ge, "greater"),
    ("maximum", "exclusiveMaximum", operator.lt, operator.le, "less"),
)


class Schema:
    """One node of a schema, ready for use.

    Args:
        spec: The OpenAPI schema.
        definitions: What its ``$ref`` may point to; made into schemas when needed.
    """

    def __init__(self, spec: Mapping[str, Any], definitions: Definitions | None = None) -> None:
        self.spec = spec
        self.type: str = spec.get("type", "")
        self.preserve = bool(spec.get("x-kubernetes-preserve-unknown-fields"))
        self.embedded = bool(spec.get("x-kubernetes-embedded-resource"))
        self.int_or_string = bool(spec.get("x-kubernetes-int-or-string"))
        self.nullable = bool(spec.get("nullable"))
        self.list_type: str = spec.get("x-kubernetes-list-type", "")
        self.list_keys: list[str] = spec.get("x-kubernetes-list-map-keys") or []
        self.map_type: str = spec.get("x-kubernetes-map-type", "")
        self.merge_key: str = spec.get("x-kubernetes-patch-merge-key", "")
        self.strategy: str = spec.get("x-kubernetes-patch-strategy", "")
        self.required: list[str] = spec.get("required") or []
        self.rules = [Rule(rule) for rule in spec.get("x-kubernetes-validations") or []]
        self._definitions = definitions
        self._parts: dict[str, Schema] | None = None
        self._combined = {
            word: [Schema(part) for part in spec[word]]
            for word in ("allOf", "anyOf", "oneOf")
            if spec.get(word)
        }
        self._not = Schema(spec["not"]) if spec.get("not") else None
        self._items: Schema | None = None
        self._additional: Schema | None = None
        self._pattern = compile_pattern(spec["pattern"]) if spec.get("pattern") else None

    @property
    def properties(self) -> dict[str, Schema]:
        """The schemas of the named fields."""
        if self._parts is None:  # lazily: types may refer to themselves
            self._parts = {
                name: self._sub(part) for name, part in (self.spec.get("properties") or {}).items()
            }
        return self._parts

    @property
    def items(self) -> Schema | None:
        """The schema of a list's items."""
        if self._items is None and isinstance(self.spec.get("items"), Mapping):
            self._items = self._sub(self.spec["items"])
        return self._items

    @property
    def additional(self) -> Schema | None:
        """The schema of a map's values."""
        if self._additional is None and isinstance(self.spec.get("additionalProperties"), Mapping):
            self._additional = self._sub(self.spec["additionalProperties"])
        return self._additional

    def _sub(self, spec: Mapping[str, Any]) -> Schema:
        if self._definitions is not None and "$ref" in spec:
            found = self._definitions.get(spec["$ref"])
            beside = {name: value for name, value in spec.items() if name != "$ref"}  # as a default
            return Schema({**found.spec, **beside}, self._definitions) if beside else found
        return Schema(spec, self._definitions)

    def field(self, name: str) -> Schema | None:
        """The schema of one field or map value."""
        return self.properties.get(name) or self.additional

    def prune(self, value: Any, path: str = "", *, drop_null: bool = False, depth: int = 0) -> list[str]:
        """Remove, in place, the fields that the schema does not know.

        Args:
            value: An object, list or scalar.
            path: Its path, for the answer.
            drop_null: Remove null fields too: to the built-in kinds they are the same as missing.
            depth: How deep ``value`` lies.

        Returns:
            The paths of what was unknown.
        """
        if depth > MAX_DEPTH:
            raise invalid_value(path, "object", f"nested more than {MAX_DEPTH} levels deep")
        unknown: list[str] = []
        if isinstance(value, list) and self.items:
            for index, item in enumerate(value):
                unknown += self.items.prune(item, f"{path}[{index}]", drop_null=drop_null, depth=depth + 1)
        elif isinstance(value, dict):
            for name in list(value):
                inner = self.field(name)
                where = f"{path}.{name}" if path else name
                if inner is None:
                    known = self.preserve or (self.embedded and name in ("apiVersion", "kind", "metadata"))
                    if not known and (self.properties or self.type == "object"):
                        del value[name]
                        unknown.append(where)
                elif value[name] is None and (drop_null or (not inner.nullable and "default" in inner.spec)):
                    del value[name]
                else:
                    unknown += inner.prune(value[name], where, drop_null=drop_null, depth=depth + 1)
        return unknown

    def default(self, value: Any) -> None:
        """Fill in the defaults of missing fields, in place."""
        if isinstance(value, dict):
            for name, inner in self.properties.items():
                if name not in value and "default" in inner.spec:
                    value[name] = copy.deepcopy(inner.spec["default"])
            for name, item in value.items():
                if (field := self.field(name)) is not None and isinstance(item, (dict, list)):
                    field.default(item)
        elif isinstance(value, list) and self.items:
            for item in value:
                self.items.default(item)

    def validate(self, value: Any, path: str = "", old: Any = None) -> list[FieldError]:
        """Find what is wrong with a value.

        Args:
            value: It.
            path: Its path, for the answer.
            old: What it was, for rules about transitions; None if it is new.
        """
        if value is None and self.nullable:
            return []
        if wrong := self._wrong_type(value, path):
            return [wrong]
        errors: list[FieldError] = []
        if isinstance(value, dict):
            errors += self._validate_object(value, path, old)
        elif isinstance(value, list):
            errors += self._validate_list(value, path, old)
        elif isinstance(value, str):
            errors += self._validate_string(value, path)
        elif not isinstance(value, bool) and isinstance(value, (int, float)):
            errors += self._validate_number(value, path)
        if (allowed := self.spec.get("enum")) and value not in allowed:
            errors.append(unsupported(path, value, allowed))
        errors += self._validate_combined(value, path)
        if not errors:  # rules may rely on what the schema promises
            errors += [error for rule in self.rules if (error := rule.check(value, path, old))]
        return errors

    def _wrong_type(self, value: Any, path: str) -> FieldError | None:
        if self.int_or_string:
            if isinstance(value, (str, int, float)) and not isinstance(value, bool):
                return None
            expected = "integer,string"
        elif not self.type or type(value) in _TYPES[self.type]:
            return None
        elif self.type == "integer" and isinstance(value, float):
            if value.is_integer():
                return None
            expected = "integer"
        else:
            expected = self.type
        found = "null" if value is None else _NAMES[type(value)]
        message = f'Invalid value: "{found}": {path} in body must be of type {expected}: "{found}"'
        return FieldError("FieldValueTypeInvalid", path, message)

    def _validate_object(self, value: dict[str, Any], path: str, old: Any) -> list[FieldError]:
        errors = [
            required(f"{path}.{name}" if path else name) for name in self.required if value.get(name) is None
        ]
        old = old if isinstance(old, dict) else {}
        for name, item in value.items():
            if (inner := self.field(name)) is not None and not (item is None and name in self.required):
                errors += inner.validate(item, f"{path}.{name}" if path else name, old.get(name))
        bounds = (self.spec.get("minProperties", 0), self.spec.get("maxProperties"))
        return errors + _check_count(len(value), bounds, path, "properties")

    def _validate_list(self, value: list[Any], path: str, old: Any) -> list[FieldError]:
        errors = _check_count(
            len(value), (self.spec.get("minItems", 0), self.spec.get("maxItems")), path, "items"
        )
        before: dict[Any, Any] = {}
        if self.list_type == "map" and isinstance(old, list):
            before = {self._identity(item): item for item in old if isinstance(item, dict)}
        seen: set[Any] = set()
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            identity = self._identity(item)
            if identity is not None and identity in seen:
                shown = quote(item) if not isinstance(item, dict) else repr(dict(identity))
                errors.append(FieldError("FieldValueDuplicate", where, f"Duplicate value: {shown}"))
            seen.add(identity)
            if self.items:
                errors += self.items.validate(item, where, before.get(identity))
        return errors

    def _identity(self, item: Any) -> Any:
        """What makes an item of a set or map unique; None if nothing does.

        For the built-in kinds nothing does: kube-apiserver does not check their list types, so that, for example, a
        Node may have two addresses of one type.
        """
        if self._definitions is not None:
            return None
        if self.list_type == "map" and isinstance(item, dict):
            return tuple((key, str(item.get(key))) for key in self.list_keys)
        if self.list_type == "set" or self.spec.get("uniqueItems"):
            return item if isinstance(item, (str, int, float, bool)) else repr(item)
        return None

    def _validate_string(self, value: str, path: str) -> list[FieldError]:
        errors = []
        if (least := self.spec.get("minLength")) is not None and len(value) < least:
            errors.append(invalid_value(path, value, f"{path} in body should be at least {least} chars long"))
        if (most := self.spec.get("maxLength")) is not None and len(value) > most:
            message = f"Too long: may not be more than {most} bytes"
            errors.append(FieldError("FieldValueTooLong", path, message))
        if self._pattern and not self._pattern.search(value):
            why = f"{path} in body should match '{self.spec['pattern']}'"
            errors.append(invalid_value(path, value, why))
        name = self.spec.get("format", "")
        if parse := _FORMATS.get(name):
            try:
                parse(value)
            except ValueError:
                errors.append(invalid_value(path, value, f'{path} in body must be of type {name}: "{value}"'))
        return errors

    def _validate_number(self, value: float, path: str) -> list[FieldError]:
        errors = []
        for word, exclusive, above, at_least, how in _BOUNDS:
            bound, strict = self.spec.get(word), self.spec.get(exclusive)
            if bound is not None and not (above if strict else at_least)(value, bound):
                relation = f"{how} than" if strict else f"{how} than or equal to"
                errors.append(invalid_value(path, value, f"{path} in body should be {relation} {bound}"))
        if (step := self.spec.get("multipleOf")) and value % step:
            errors.append(invalid_value(path, value, f"{path} in body should be a multiple of {step}"))
        return errors

    def _validate_combined(self, value: Any, path: str) -> list[FieldError]:
        errors: list[FieldError] = []
        for word, parts in self._combined.items():
            fitting = sum(not part.validate(value, path) for part in parts)
            if word == "allOf" and fitting < len(parts):
                errors += [error for part in parts for error in part.validate(value, path)]
            elif (word == "anyOf" and not fitting) or (word == "oneOf" and fitting != 1):
                how = "at least one schema" if word == "anyOf" else "one and only one schema"
                why = f'"{path}" must validate {how}'
                errors.append(FieldError("FieldValueInvalid", path, f'Invalid value: "": {why} ({word})'))
        if self._not and not self._not.validate(value, path):
            why = f'"{path}" must not validate the schema (not)'
            errors.append(FieldError("FieldValueInvalid", path, f'Invalid value: "": {why}'))
        return errors


def _check_count(count: int, bounds: tuple[int, int | None], path: str, what: str) -> list[FieldError]:
    least, most = bounds
    if count < least:
        return [invalid_value(path, count, f"{path} in body should have at least {least} {what}")]
    if most is not None and count > most:
        message = f"Too many: {count}: must have at most {most} {what}"
        return [FieldError("FieldValueTooMany", path, message)]
    return []


class Definitions:
    """Named schemas that refer to each other.

    Args:
        specs: OpenAPI schemas by name.
    """

    def __init__(self, specs: Mapping[str, Any]) -> None:
        self.specs = specs
        self._made: dict[str, Schema] = {}

    def get(self, reference: str) -> Schema:
        """The schema of a name, or of a ``$ref`` ending in one."""
        name = reference.rpartition("/")[2]
        if (found := self._made.get(name)) is None:
            found = self._made[name] = Schema(self.specs[name], self)
        return found
