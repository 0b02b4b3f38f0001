"""Objects as the tables that ``kubectl get`` shows: columns and cells. It reads objects and knows no HTTP.

kubectl prints only what the server sends; for a kind without columns of its own that is name and age.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.metadata import seconds_since
from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.scale import selector_text

_NONE, _UNKNOWN = "<none>", "<unknown>"
Cell = Callable[[Object], Any]


class Column(NamedTuple):
    """One column: what its header says, and how an object fills its cell."""

    name: str
    cell: Cell
    type: str = "string"
    wide: bool = False
    format: str = ""
    description: str = ""


def age(moment: str | None) -> str:
    """How long ago a time was, as kubectl writes it: ``5s``, ``3m20s``, ``4h``, ``12d``."""
    return duration(max(0, int(seconds_since(moment)))) if moment else _UNKNOWN


#: From kubectl's own rule: up to this many seconds, so many of the unit, with the next smaller one beside it or not.
_SPANS = [
    (120, 1, "s", 0, ""),
    (600, 60, "m", 1, "s"),
    (10_800, 60, "m", 0, ""),
    (28_800, 3600, "h", 60, "m"),
    (172_800, 3600, "h", 0, ""),
    (691_200, 86_400, "d", 3600, "h"),
    (63_072_000, 86_400, "d", 0, ""),
    (252_288_000, 31_536_000, "y", 86_400, "d"),
]


def duration(seconds: int) -> str:
    """A span of time in at most two units. Source: k8s.io/apimachinery/pkg/util/duration."""
    for below, unit, name, part, part_name in _SPANS:
        if seconds < below:
            rest = seconds % unit // part if part else 0
            return f"{seconds // unit}{name}" + (f"{rest}{part_name}" if rest else "")
    return f"{seconds // 31_536_000}y"


def read_path(obj: Any, path: str) -> Any:
    """Follow a printer column's JSONPath: fields, ``[0]``, ``[*]``, and ``[?(@.type=="Ready")]`` with equality.

    Returns:
        The first value found; None if there is none.
    """
    found: list[Any] = [obj]
    for name, index, key, value in _split_path(path):
        found = [item[name] for item in found if isinstance(item, dict) and item.get(name) is not None]
        if key:
            items = [item for item in found if isinstance(item, list)]
            found = [inner for item in items for inner in item if str(read_path(inner, key)) == value]
        elif index:
            items = [item for item in found if isinstance(item, list)]
            chosen = slice(None) if index == "*" else slice(int(index), int(index) + 1)
            found = [inner for item in items for inner in item[chosen]]
    return found[0] if found else None


def _split_path(path: str) -> Iterable[tuple[str, str, str, str]]:
    """Take a path apart into (field, index, filter's field, filter's value)."""
    rest = path.lstrip(".")
    while rest:
        end = min((i for i in (rest.find("."), rest.find("[")) if i >= 0), default=len(rest))
        name, rest = rest[:end].replace("\\", ""), rest[end:]
        index = key = value = ""
        if rest.startswith("[?(@."):
            condition, _, rest = rest[5:].partition(")]")
            key, _, value = condition.partition("==")
            key, value = key.strip(), value.strip().strip("\"'")
        elif rest.startswith("["):
            index, _, rest = rest[1:].partition("]")
        yield name, index, key, value
        rest = rest.lstrip(".")


def _statuses(pod: Object) -> list[Object]:
    found: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    return found


def _pod_ready(pod: Object) -> str:
    return f"{sum(bool(s.get('ready')) for s in _statuses(pod))}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Object) -> str:
    status = pod.get("status") or {}
    reason: str = status.get("reason") or status.get("phase") or _UNKNOWN
    for container in reversed(_statuses(pod)):
        state = container.get("state") or {}
        ended = state.get("terminated") or {}
        if waiting := (state.get("waiting") or {}).get("reason"):
            reason = waiting
        elif ended:
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
    return "Terminating" if pod["metadata"].get("deletionTimestamp") else reason


def _node_status(node: Object) -> str:
    ready = read_path(node, '.status.conditions[?(@.type=="Ready")].status')
    state = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    return state + (",SchedulingDisabled" if node["spec"].get("unschedulable") else "")


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(k.removeprefix(prefix) for k in labels if k.startswith(prefix))) or _NONE


def _of_containers(field: str) -> Cell:
    return lambda obj: ",".join(str(c.get(field, "")) for c in obj["spec"]["template"]["spec"]["containers"])


def _replicas_ready(obj: Object) -> str:
    return f"{obj['status'].get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"


def _ports(service: Object) -> str:
    ports = service["spec"].get("ports") or []
    return ",".join(f"{p['port']}/{p['protocol']}" for p in ports) or _NONE


def _event_seen(event: Object) -> str:
    return age(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp"))


def _event_object(event: Object) -> str:
    about = event["involvedObject"]
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _selector(field: str) -> Cell:
    return lambda obj: selector_text(obj["spec"].get(field) or {}) or _NONE


_WORKLOAD = "*Containers, *Images, *Selector"
#: Columns after the name, by kind: ``*`` if only shown when wide, the header, its type, and a path with what is shown
#: if the path leads nowhere. A column without a path is one of ``_CELLS``.
_TABLES = {
    "Pod": "Ready, Status, Restarts, Age, *IP=.status.podIP?<none>, *Node=.spec.nodeName?<none>,"
    " *Nominated Node=.status.nominatedNodeName?<none>, *Readiness Gates=.spec.readinessGates[0].conditionType?<none>",
    "Node": "Status, Roles, Age, Version=.status.nodeInfo.kubeletVersion,"
    ' *Internal-IP=.status.addresses[?(@.type=="InternalIP")].address?<none>,'
    ' *External-IP=.status.addresses[?(@.type=="ExternalIP")].address?<none>,'
    " *OS-Image=.status.nodeInfo.osImage?<unknown>, *Kernel-Version=.status.nodeInfo.kernelVersion?<unknown>,"
    " *Container-Runtime=.status.nodeInfo.containerRuntimeVersion?<unknown>",
    "Namespace": "Status=.status.phase, Age",
    "Event": "Last Seen, Type=.type, Reason=.reason, Object, *Subobject=.involvedObject.fieldPath,"
    " *Source=.source.component, Message=.message, *Count=.count, *Name=.metadata.name",
    "Service": "Type=.spec.type, Cluster-IP=.spec.clusterIP?<none>, External-IP=.spec.externalIPs[0]?<none>,"
    " Port(s), Age, *Selector",
    "ConfigMap": "Data:integer, Age",
    "Secret": "Type=.type, Data:integer, Age",
    "Deployment": "Ready, Up-to-date=.status.updatedReplicas?0, Available=.status.availableReplicas?0, Age, "
    + _WORKLOAD,
    "ReplicaSet": "Desired:integer=.spec.replicas?0, Current:integer=.status.replicas?0,"
    " Ready:integer=.status.readyReplicas?0, Age, " + _WORKLOAD,
    "StatefulSet": f"Ready, Age, {_WORKLOAD}",
    "NetworkPolicy": "Pod-Selector, Age",
    "Lease": "Holder=.spec.holderIdentity, Age",
    "CustomResourceDefinition": "Created At:date=.metadata.creationTimestamp",
}
#: Cells by header, or by kind and header if kinds differ.
_CELLS: dict[str, Cell] = {
    "Age": lambda obj: age(obj["metadata"].get("creationTimestamp")),
    "Ready": _replicas_ready,
    "Containers": _of_containers("name"),
    "Images": _of_containers("image"),
    "Selector": _selector("selector"),
    "Pod-Selector": _selector("podSelector"),
    "Port(s)": _ports,
    "Data": lambda obj: len(obj.get("data") or {}) + len(obj.get("binaryData") or {}),
    "Pod Ready": _pod_ready,
    "Pod Status": _pod_status,
    "Pod Restarts": lambda pod: str(sum(s.get("restartCount", 0) for s in _statuses(pod))),
    "Node Status": _node_status,
    "Node Roles": _node_roles,
    "Event Last Seen": _event_seen,
    "Event Object": _event_object,
    "Service Selector": lambda s: selector_text({"matchLabels": s["spec"].get("selector")}) or _NONE,
}
_DESCRIPTIONS = {"Age": "How long ago the object was created"}
_NAME = Column(
    "Name",
    lambda obj: obj["metadata"]["name"],
    format="name",
    description="Name of the object, unique in its namespace",
)


def _path_cell(path: str, missing: str | int) -> Cell:
    def cell(obj: Object) -> Any:
        value = read_path(obj, path)
        return missing if value in (None, "") else value

    return cell


def _built_in_column(kind: str, text: str) -> Column:
    head, _, path = text.partition("=")
    title, _, type_ = head.removeprefix("*").partition(":")
    path, mark, missing = path.rpartition("?") if path.endswith((">", "?0")) else (path, "", "")
    if path:
        cell = _path_cell(path, int(missing) if mark and missing.isdigit() else missing)
    else:
        cell = _CELLS.get(f"{kind} {title}") or _CELLS[title]
    return Column(title, cell, type_ or "string", head.startswith("*"), "", _DESCRIPTIONS.get(title, ""))


def _custom_column(spec: Object) -> Column:
    path, type_ = spec["jsonPath"], spec["type"]

    def cell(obj: Object) -> Any:
        value = read_path(obj, path)
        if value is None:
            return None
        if type_ == "date":
            return age(value) if isinstance(value, str) else "<invalid>"
        if type_ in ("integer", "number", "boolean"):
            return value if isinstance(value, (int, float)) else None
        return value if isinstance(value, str) else str(value)

    said = spec.get("description") or f"Custom resource definition column (in JSONPath format): {path}"
    return Column(spec["name"], cell, type_, bool(spec.get("priority")), spec.get("format", ""), said)


def columns_of(kind: Kind) -> list[Column]:
    """The columns of a kind's table."""
    if kind.custom:
        return [_NAME, *(_custom_column(dict(spec)) for spec in kind.columns)]
    return _built_in_columns(kind.kind)


@functools.cache
def _built_in_columns(kind: str) -> list[Column]:
    own = [_built_in_column(kind, text) for text in _TABLES.get(kind, "Age").split(", ")]
    return own if kind == "Event" else [_NAME, *own]


def table(
    kind: Kind, objects: Iterable[Object], meta: Object, include: str, *, header: bool = True
) -> Object:
    """Make a table.

    Args:
        kind: The kind of the objects.
        objects: One for each row, with kind and apiVersion.
        meta: The list's metadata.
        include: What rows carry of their objects: ``Metadata``, ``Object`` or ``None``.
        header: Whether to tell the columns; a watch does so only at first.
    """
    columns = columns_of(kind)
    definitions = [
        {
            "name": c.name,
            "type": c.type,
            "format": c.format,
            "description": c.description,
            "priority": int(c.wide),
        }
        for c in columns
    ]
    rows = []
    for obj in objects:
        row: Object = {"cells": [column.cell(obj) for column in columns]}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = partial_metadata(obj)
        rows.append(row)
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return head | {"columnDefinitions": definitions if header else None, "rows": rows}


def partial_metadata(obj: Object) -> Object:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
