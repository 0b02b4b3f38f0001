"""Reading Kubernetes' protobuf bodies, which kubectl's typed clients send (``create namespace``, ``auth can-i`` …).

Only what kubectl sends: the fields that are not in the table here must be empty, else the body is refused, and the
client has to send JSON. Answers are always JSON. Source of the numbers: ``generated.proto`` in kubernetes/api.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterator
from typing import Any

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.status import ApiError, bad_request

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
#: What every such body begins with.
MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32

#: ``number name type``. Types: ``str``, ``int``, ``bool``, ``bytes``, ``map`` (of strings), ``bytesmap``, a message, or
#: ``skip`` (whatever it holds, as a status at creation). ``*``: a list; ``?``: a pointer, whose zero counts.
_MESSAGES = {
    "Unknown": "1 typeMeta TypeMeta, 2 raw bytes, 3 contentEncoding str, 4 contentType str",
    "TypeMeta": "1 apiVersion str, 2 kind str",
    "ObjectMeta": "1 name str, 2 generateName str, 3 namespace str, 5 uid str, 6 resourceVersion str, 7 generation int,"
    " 8 creationTimestamp Time, 11 labels map, 12 annotations map, 13 ownerReferences *OwnerReference,"
    " 14 finalizers *str",
    "OwnerReference": "1 kind str, 3 name str, 4 uid str, 5 apiVersion str, 6 controller bool?,"
    " 7 blockOwnerDeletion bool?",
    "DeleteOptions": "1 gracePeriodSeconds int?, 2 preconditions Preconditions, 4 propagationPolicy str, 5 dryRun *str",
    "Preconditions": "1 uid str, 2 resourceVersion str",
    "LabelSelector": "1 matchLabels map, 2 matchExpressions *LabelSelectorRequirement",
    "LabelSelectorRequirement": "1 key str, 2 operator str, 3 values *str",
    "Namespace": "1 metadata ObjectMeta, 2 spec skip, 3 status skip",
    "ConfigMap": "1 metadata ObjectMeta, 2 data map, 3 binaryData bytesmap, 4 immutable bool?",
    "Secret": "1 metadata ObjectMeta, 2 data bytesmap, 3 type str, 4 stringData map, 5 immutable bool?",
    "ServiceAccount": "1 metadata ObjectMeta, 4 automountServiceAccountToken bool?",
    "Service": "1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status skip",
    "ServiceSpec": "1 ports *ServicePort, 2 selector map, 3 clusterIP str, 4 type str, 7 sessionAffinity str,"
    " 10 externalName str",
    "ServicePort": "1 name str, 2 protocol str, 3 port int, 4 targetPort IntOrString, 5 nodePort int",
    "Role": "1 metadata ObjectMeta, 2 rules *PolicyRule",
    "ClusterRole": "1 metadata ObjectMeta, 2 rules *PolicyRule",
    "PolicyRule": "1 verbs *str, 2 apiGroups *str, 3 resources *str, 4 resourceNames *str, 5 nonResourceURLs *str",
    "RoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "ClusterRoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "Subject": "1 kind str, 2 apiGroup str, 3 name str, 4 namespace str",
    "RoleRef": "1 apiGroup str, 2 kind str, 3 name str",
    "Deployment": "1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status skip",
    "DeploymentSpec": "1 replicas int?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy Strategy,"
    " 5 minReadySeconds int, 6 revisionHistoryLimit int?, 7 paused bool, 9 progressDeadlineSeconds int?",
    "Strategy": "1 type str, 2 rollingUpdate RollingUpdate",
    "RollingUpdate": "1 maxUnavailable IntOrString, 2 maxSurge IntOrString",
    "PodTemplateSpec": "1 metadata ObjectMeta, 2 spec PodSpec",
    "PodSpec": "2 containers *Container, 3 restartPolicy str, 4 terminationGracePeriodSeconds int?, 6 dnsPolicy str,"
    " 7 nodeSelector map, 8 serviceAccountName str, 10 nodeName str, 11 hostNetwork bool, 19 schedulerName str",
    "Container": "1 name str, 2 image str, 3 command *str, 4 args *str, 5 workingDir str, 6 ports *ContainerPort,"
    " 7 env *EnvVar, 13 terminationMessagePath str, 14 imagePullPolicy str, 20 terminationMessagePolicy str",
    "ContainerPort": "1 name str, 2 hostPort int, 3 containerPort int, 4 protocol str, 5 hostIP str",
    "EnvVar": "1 name str, 2 value str",
    "SelfSubjectReview": "1 metadata ObjectMeta, 2 status skip",
    "SelfSubjectAccessReview": "1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status skip",
    "SelfSubjectAccessReviewSpec": "1 resourceAttributes ResourceAttributes,"
    " 2 nonResourceAttributes NonResourceAttributes",
    "ResourceAttributes": "1 namespace str, 2 verb str, 3 group str, 4 version str, 5 resource str, 6 subresource str,"
    " 7 name str",
    "NonResourceAttributes": "1 path str, 2 verb str",
    "SelfSubjectRulesReview": "1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec, 3 status skip",
    "SelfSubjectRulesReviewSpec": "1 namespace str",
}


def _fields(text: str) -> dict[int, tuple[str, str]]:
    parts = (field.split() for field in text.split(","))
    return {int(number): (name, kind) for number, name, kind in parts}


_TABLE = {name: _fields(text) for name, text in _MESSAGES.items()}


def decode(body: bytes) -> Object:
    """Read an object.

    Args:
        body: Kubernetes' envelope: ``k8s``, a zero byte, and a ``runtime.Unknown``.

    Returns:
        The object as JSON would have it.

    Raises:
        ApiError: 400 for what is no such body, 415 for kinds and fields that are not known here.
    """
    if not body.startswith(MAGIC):
        raise bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        envelope = _message("Unknown", memoryview(body)[len(MAGIC) :], 0)
        head = envelope.get("typeMeta", {})
        if head.get("kind") not in _TABLE:
            raise _unsupported(str(head.get("kind")))
        raw = base64.b64decode(envelope.get("raw", ""))
        made: Object = head | _message(head["kind"], memoryview(raw), 0)
    except (IndexError, ValueError, OverflowError) as error:
        raise bad_request(f"the body is no protobuf message: {error}") from error
    return made


def _message(name: str, data: memoryview, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    found: Object = {}
    for number, value in _wire_fields(data):
        field, kind = _TABLE[name].get(number, ("", ""))
        if not kind:
            if value:
                raise _unsupported(f"field {number} of {name}")
            continue
        if kind == "skip":
            continue
        if kind.startswith("*"):
            found.setdefault(field, []).append(_value(kind[1:], value, depth))
        elif kind.endswith("map"):
            found.setdefault(field, {}).update([_entry(kind, value)])
        elif kind.endswith("?") or (made := _value(kind, value, depth)):
            found[field] = _value(kind[:-1], value, depth) if kind.endswith("?") else made
    return found


def _value(kind: str, value: int | memoryview, depth: int) -> Any:
    """Turn a field's value on the wire into what JSON has for its type."""
    if isinstance(value, int):
        if kind not in ("int", "bool"):
            raise ValueError(f"a number where a {kind} should be")
        return bool(value) if kind == "bool" else value - (1 << 64) * (value >> 63)
    if kind == "str":
        return str(value, "utf-8")
    if kind == "bytes":
        return base64.b64encode(value).decode("ascii")
    if kind == "Time":
        seconds = next((number for field, number in _wire_fields(value) if field == 1), 0)
        if not isinstance(seconds, int):
            raise ValueError("a time without seconds")
        return (
            datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            if seconds
            else None
        )
    if kind == "IntOrString":
        parts = dict(_wire_fields(value))
        return str(parts.get(3, b""), "utf-8") if parts.get(1) else parts.get(2)  # type: ignore[arg-type]
    if kind not in _TABLE:
        raise ValueError(f"bytes where a {kind} should be")
    return _message(kind, value, depth + 1)


def _entry(kind: str, value: int | memoryview) -> tuple[str, str]:
    """Read one entry of a map."""
    nothing = memoryview(b"")
    parts = {} if isinstance(value, int) else dict(_wire_fields(value))
    content = "bytes" if kind == "bytesmap" else "str"
    return _value("str", parts.get(1, nothing), 0), _value(content, parts.get(2, nothing), 0)


def _wire_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Go through a message: field numbers, with numbers as they are on the wire and the rest as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == _VARINT:
            number, position = _varint(data, position)
            yield tag >> 3, number
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            length, position = _varint(data, position)
        if length is None or position + length > len(data):
            raise ValueError("cut off, or of an unknown wire type")
        yield tag >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that more follows
            return value & (1 << 64) - 1, position
        if shift >= 70:  # noqa: PLR2004 -- ten bytes of seven bits
            raise ValueError("a number that does not end")


def _unsupported(what: str) -> ApiError:
    message = f"{what} is not supported as protobuf by this server: send JSON (kubectl create -f or apply -f)"
    return ApiError(415, "UnsupportedMediaType", message)
