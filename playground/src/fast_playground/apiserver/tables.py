"""Objects as the tables that ``kubectl get`` shows: columns and cells. Reads objects; knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fast_playground.apiserver import kinds
from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.metadata import seconds_since
from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.scale import selector_text

_NONE, _UNKNOWN = "<none>", "<unknown>"


class Column(NamedTuple):
    """One column: what its header says, and how an object fills its cell."""

    name: str
    cell: Callable[[Object], Any]
    type: str = "string"
    wide: bool = False
    format: str = ""
    description: str = ""


def age(moment: str | None) -> str:
    """How long ago a time was, as kubectl writes it: ``5s``, ``3m20s``, ``4h``, ``12d``."""
    if not moment:
        return _UNKNOWN
    return duration(max(0, int(seconds_since(moment))))


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
        The first value found; None where there is none.
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


def _text(path: str, missing: str | int = "") -> Callable[[Object], Any]:
    def cell(obj: Object) -> Any:
        value = read_path(obj, path)
        return missing if value in (None, "") else value

    return cell


def _created(obj: Object) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


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
    if pod["metadata"].get("deletionTimestamp"):
        return _UNKNOWN if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _pod_restarts(pod: Object) -> str:
    return str(sum(s.get("restartCount", 0) for s in _statuses(pod)))


def _node_status(node: Object) -> str:
    ready = read_path(node, '.status.conditions[?(@.type=="Ready")].status')
    state = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    return state + (",SchedulingDisabled" if node["spec"].get("unschedulable") else "")


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(k.removeprefix(prefix) for k in labels if k.startswith(prefix))) or _NONE


def _containers(field: str) -> Callable[[Object], str]:
    def cell(obj: Object) -> str:
        return ",".join(str(c.get(field, "")) for c in obj["spec"]["template"]["spec"]["containers"])

    return cell


def _selector(obj: Object) -> str:
    return selector_text(obj["spec"].get("selector") or {}) or _NONE


def _of_replicas(obj: Object) -> str:
    return f"{obj['status'].get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"


def _ports(service: Object) -> str:
    ports = service["spec"].get("ports") or []
    return ",".join(f"{p['port']}/{p['protocol']}" for p in ports) or _NONE


def _event_seen(event: Object) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return age(series or event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp"))


def _event_object(event: Object) -> str:
    about = event["involvedObject"]
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _subjects(kind: str) -> Callable[[Object], str]:
    def cell(binding: Object) -> str:
        subjects = [s for s in binding.get("subjects") or [] if s.get("kind") == kind]
        return ", ".join(
            f"{s.get('namespace')}/{s['name']}" if kind == "ServiceAccount" else s["name"] for s in subjects
        )

    return cell


def _role(binding: Object) -> str:
    return f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}"


def _wide(name: str, cell: Callable[[Object], Any]) -> Column:
    return Column(name, cell, wide=True)


def _number(name: str, path: str) -> Column:
    return Column(name, _text(path, 0), "integer")


_NAME = Column(
    "Name",
    lambda obj: obj["metadata"]["name"],
    format="name",
    description="Name of the object, unique in its namespace",
)
_AGE = Column("Age", _created, description="How long ago the object was created")
_CREATED = Column("Created At", _text(".metadata.creationTimestamp"), "date")
_WORKLOAD = [
    _wide("Containers", _containers("name")),
    _wide("Images", _containers("image")),
    _wide("Selector", _selector),
]
_BINDING = [
    Column("Role", _role),
    _AGE,
    _wide("Users", _subjects("User")),
    _wide("Groups", _subjects("Group")),
    _wide("ServiceAccounts", _subjects("ServiceAccount")),
]

_COLUMNS: dict[GVR, list[Column]] = {
    kinds.PODS: [
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        _AGE,
        _wide("IP", _text(".status.podIP", _NONE)),
        _wide("Node", _text(".spec.nodeName", _NONE)),
        _wide("Nominated Node", _text(".status.nominatedNodeName", _NONE)),
        _wide("Readiness Gates", lambda _: _NONE),
    ],
    kinds.NODES: [
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _text(".status.nodeInfo.kubeletVersion")),
        _wide("Internal-IP", _text('.status.addresses[?(@.type=="InternalIP")].address', _NONE)),
        _wide("External-IP", _text('.status.addresses[?(@.type=="ExternalIP")].address', _NONE)),
        _wide("OS-Image", _text(".status.nodeInfo.osImage", _UNKNOWN)),
        _wide("Kernel-Version", _text(".status.nodeInfo.kernelVersion", _UNKNOWN)),
        _wide("Container-Runtime", _text(".status.nodeInfo.containerRuntimeVersion", _UNKNOWN)),
    ],
    kinds.NAMESPACES: [Column("Status", _text(".status.phase")), _AGE],
    kinds.EVENTS: [
        Column("Last Seen", _event_seen),
        Column("Type", _text(".type")),
        Column("Reason", _text(".reason")),
        Column("Object", _event_object),
        _wide("Subobject", _text(".involvedObject.fieldPath")),
        _wide("Source", _text(".source.component")),
        Column("Message", lambda event: str(event.get("message", "")).strip()),
        _wide("First Seen", lambda event: age(event.get("firstTimestamp") or event.get("eventTime"))),
        _wide("Count", lambda event: event.get("count") or 1),
        _wide("Name", lambda event: event["metadata"]["name"]),
    ],
    kinds.SERVICE_ACCOUNTS: [Column("Secrets", lambda a: len(a.get("secrets") or []), "integer"), _AGE],
    kinds.SERVICES: [
        Column("Type", _text(".spec.type")),
        Column("Cluster-IP", _text(".spec.clusterIP", _NONE)),
        Column("External-IP", _text(".spec.externalIPs[0]", _NONE)),
        Column("Port(s)", _ports),
        _AGE,
        _wide(
            "Selector",
            lambda s: ",".join(f"{k}={v}" for k, v in (s["spec"].get("selector") or {}).items()) or _NONE,
        ),
    ],
    kinds.CONFIG_MAPS: [
        Column("Data", lambda m: len(m.get("data") or {}) + len(m.get("binaryData") or {}), "integer"),
        _AGE,
    ],
    kinds.SECRETS: [
        Column("Type", _text(".type")),
        Column("Data", lambda s: len(s.get("data") or {}), "integer"),
        _AGE,
    ],
    kinds.DEPLOYMENTS: [
        Column("Ready", _of_replicas),
        Column("Up-to-date", _text(".status.updatedReplicas", 0)),
        Column("Available", _text(".status.availableReplicas", 0)),
        _AGE,
        *_WORKLOAD,
    ],
    kinds.REPLICA_SETS: [
        _number("Desired", ".spec.replicas"),
        _number("Current", ".status.replicas"),
        _number("Ready", ".status.readyReplicas"),
        _AGE,
        *_WORKLOAD,
    ],
    kinds.STATEFUL_SETS: [Column("Ready", _of_replicas), _AGE, *_WORKLOAD[:2]],
    kinds.NETWORK_POLICIES: [
        Column(
            "Pod-Selector", lambda policy: selector_text(policy["spec"].get("podSelector") or {}) or _NONE
        ),
        _AGE,
    ],
    kinds.LEASES: [Column("Holder", _text(".spec.holderIdentity")), _AGE],
    kinds.ROLES: [_CREATED],
    kinds.CLUSTER_ROLES: [_CREATED],
    kinds.ROLE_BINDINGS: _BINDING,
    kinds.CLUSTER_ROLE_BINDINGS: _BINDING,
    kinds.CUSTOM_RESOURCE_DEFINITIONS: [_CREATED],
}
#: Kinds whose table does not begin with the name.
_NAMELESS = {kinds.EVENTS}


def columns_of(kind: Kind) -> list[Column]:
    """The columns of a kind's table."""
    if not kind.custom:
        own = _COLUMNS.get(kind.gvr, [_AGE])
        return own if kind.gvr in _NAMELESS else [_NAME, *own]
    made = [_NAME]
    for spec in kind.columns:
        path, type_ = spec["jsonPath"], spec["type"]
        description = (
            spec.get("description") or f"Custom resource definition column (in JSONPath format): {path}"
        )
        made.append(
            Column(
                spec["name"],
                _custom_cell(path, type_),
                type_,
                wide=bool(spec.get("priority")),
                format=spec.get("format", ""),
                description=description,
            )
        )
    return made


def _custom_cell(path: str, kind: str) -> Callable[[Object], Any]:
    def cell(obj: Object) -> Any:
        value = read_path(obj, path)
        if value is None:
            return None
        if kind == "date":
            return age(value) if isinstance(value, str) else "<invalid>"
        if kind in ("integer", "number", "boolean"):
            return value if isinstance(value, (int, float)) else None
        return value if isinstance(value, str) else str(value)

    return cell


def table(
    kind: Kind, objects: Iterable[Object], meta: Object, include: str, *, header: bool = True
) -> Object:
    """Make a table.

    Args:
        kind: Of what.
        objects: The rows' objects, with kind and apiVersion.
        meta: The list's metadata.
        include: What rows carry of their objects: ``Metadata``, ``Object`` or ``None``.
        header: Whether to tell the columns; a watch does so only at first.
    """
    columns = columns_of(kind)
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": int(column.wide),
        }
        for column in columns
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
