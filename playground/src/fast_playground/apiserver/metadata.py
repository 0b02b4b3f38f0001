"""The rules of object metadata, the same for all kinds: names, labels, what only the server may set."""

from __future__ import annotations

import random
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    EVENTS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SERVICES,
)
from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.status import FieldError, forbidden_field, invalid_value, required

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_RULE_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    rf" '{_LABEL}(\.{_LABEL})*')"
)
_RULE_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    f" an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_RULE_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_RULE_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_MAX_LABEL, _MAX_SUBDOMAIN, _MAX_ANNOTATIONS = 63, 253, 262_144
#: Kubernetes' for generated names (apimachinery's util/rand): no vowels, so no words.
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH, _MAX_PREFIX = 5, 58
_PATH_SEGMENT_NAMES = {ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, EVENTS}
_LABEL_NAMES = {NAMESPACES, SERVICES}
#: What a writer cannot change; the server's own.
_SERVER_OWNED = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
_EMPTY: Object = {"labels": {}, "annotations": {}, "finalizers": [], "ownerReferences": []}
_EMPTY |= {"managedFields": [], "generateName": ""}


def timestamp(after_seconds: int = 0) -> str:
    """Now, or a time after it, as Kubernetes writes times."""
    moment = datetime.now(UTC) + timedelta(seconds=after_seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(time: str) -> float:
    """How long ago an RFC 3339 time was."""
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()


def random_suffix() -> str:
    """Make the suffix of a generated name: letters and digits that make no words."""
    return "".join(random.choices(SAFE_ALPHABET, k=_SUFFIX_LENGTH))


def prepare_new(meta: Object, kind: Kind, namespace: str | None) -> None:
    """Set what the server sets on creation, and make the name from ``generateName`` if there is none."""
    for name in (*_SERVER_OWNED, "selfLink", "resourceVersion", "managedFields"):
        meta.pop(name, None)
    prefix = meta.get("generateName")
    if not meta.get("name") and prefix and isinstance(prefix, str):  # the schema refuses other types
        meta["name"] = prefix[:_MAX_PREFIX] + random_suffix()
    if kind.namespaced:
        meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = timestamp()
    if kind.generation:
        meta["generation"] = 1
    _drop_empty(meta)


def carry_over(new: Object, old: Object) -> None:
    """Keep, in a replacement, the fields that only the server may change."""
    for name in _SERVER_OWNED:
        if name in old:
            new[name] = old[name]
        else:
            new.pop(name, None)
    new.pop("selfLink", None)
    _drop_empty(new)


def _drop_empty(meta: Object) -> None:
    """Drop empty fields that Kubernetes does not show."""
    for name, empty in _EMPTY.items():
        if name in meta and meta[name] in (None, empty):
            del meta[name]


def validate_metadata(meta: Object, kind: Kind, old: Object | None) -> list[FieldError]:
    """Find what is wrong with an object's metadata."""
    name = meta.get("name", "")
    errors: list[FieldError] = []
    if not name:
        errors.append(required("metadata.name", "name or generateName is required"))
    elif old is None and (why := check_name(kind, name)):
        errors.append(invalid_value("metadata.name", name, why))
    errors += validate_labels(meta.get("labels") or {}, "metadata.labels")
    annotations = meta.get("annotations") or {}
    errors += [
        invalid_value("metadata.annotations", key, why)
        for key in annotations
        if (why := _check_key(key.lower()))
    ]
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        errors.append(FieldError("FieldValueTooLong", "metadata.annotations", message))
    errors += [
        invalid_value("metadata.finalizers", finalizer, why)
        for finalizer in meta.get("finalizers") or ()
        if (why := _check_key(finalizer))
    ]
    owners = [owner for owner in meta.get("ownerReferences") or [] if owner.get("controller")]
    if len(owners) > 1:
        why = "Only one reference can have Controller set to true"
        errors.append(invalid_value("metadata.ownerReferences", "", why))
    if old and old.get("deletionTimestamp"):
        added = sorted(set(meta.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            why = (
                f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            )
            errors.append(forbidden_field("metadata.finalizers", why))
    return errors


def check_name(kind: Kind, name: str) -> str:
    """Tell why a name is not valid for that kind; empty if it is."""
    if kind.gvr in _PATH_SEGMENT_NAMES:
        return f"may not contain '{name}'" if name in (".", "..") or "/" in name or "%" in name else ""
    if kind.gvr in _LABEL_NAMES:
        return check_dns_label(name)
    if len(name) > _MAX_SUBDOMAIN:
        return f"must be no more than {_MAX_SUBDOMAIN} bytes"
    return "" if _DNS_SUBDOMAIN.fullmatch(name) else _RULE_SUBDOMAIN


def check_dns_label(name: str) -> str:
    """Tell why a name is not a DNS label; empty if it is."""
    if len(name) > _MAX_LABEL:
        return f"must be no more than {_MAX_LABEL} bytes"
    return "" if _DNS_LABEL.fullmatch(name) else _RULE_LABEL


def validate_labels(labels: dict[str, Any], path: str) -> list[FieldError]:
    """Find what is wrong with labels."""
    errors = [invalid_value(path, key, why) for key in labels if (why := _check_key(key))]
    for value in labels.values():
        if len(value) > _MAX_LABEL:
            errors.append(invalid_value(path, value, f"must be no more than {_MAX_LABEL} bytes"))
        elif value and not _QUALIFIED.fullmatch(value):
            errors.append(invalid_value(path, value, _RULE_VALUE))
    return errors


def validate_label_selector(selector: Object, path: str) -> list[FieldError]:
    """Find what is wrong with a LabelSelector."""
    errors = validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, item in enumerate(selector.get("matchExpressions") or []):
        where, values = f"{path}.matchExpressions[{index}]", item.get("values") or []
        if item["operator"] not in ("In", "NotIn", "Exists", "DoesNotExist"):
            why = "not a valid selector operator"
            errors.append(invalid_value(f"{where}.operator", item["operator"], why))
        elif item["operator"].endswith("In") and not values:
            errors.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif not item["operator"].endswith("In") and values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden_field(f"{where}.values", why))
        errors += validate_labels({item["key"]: ""}, f"{where}.key")
        for number, value in enumerate(values):
            errors += validate_labels({"value": value}, f"{where}.values[{number}]")
    return errors


def _check_key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and (not _DNS_SUBDOMAIN.fullmatch(prefix) or len(prefix) > _MAX_SUBDOMAIN):
        return f"prefix part {_RULE_SUBDOMAIN}"
    if not _QUALIFIED.fullmatch(name):
        return _RULE_KEY
    return f"name part must be no more than {_MAX_LABEL} bytes" if len(name) > _MAX_LABEL else ""
