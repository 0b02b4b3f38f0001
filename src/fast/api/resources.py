"""Descriptors of the resources Fast uses: where each is in the API, and the struct it is decoded into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fast.api import core
from fast.api.core import ObjectReference
from fast.api.fastnode import FastNode
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import GROUP, VERSION, Ips
from fast.api.meta import HasMetadata
from fast.api.networkpolicy import NetworkPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One resource of the Kubernetes API.

    Attributes:
        group: API group; empty for the core group.
        version: Such as ``v1``.
        plural: The name in the URL path.
        kind: The ``kind`` of its objects.
        namespaced: Whether objects live in a namespace.
        type: The struct that objects are decoded into.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    type: type[T]

    @property
    def api_version(self) -> str:
        """``group/version``, or ``version`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Give the URL path of the collection (of all namespaces if none is named), the object, or its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{place}/{self.plural}{tail}"


IPSES = Resource(GROUP, VERSION, "ipses", "Ips", False, Ips)
IPENDPOINTS = Resource(GROUP, VERSION, "ipendpoints", "IpEndpoint", False, IpEndpoint)
FASTNODES = Resource(GROUP, VERSION, "fastnodes", "FastNode", False, FastNode)
PODS = Resource("", "v1", "pods", "Pod", True, core.Pod)
NODES = Resource("", "v1", "nodes", "Node", False, core.Node)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, core.Namespace)
EVENTS = Resource("", "v1", "events", "Event", True, core.Event)
STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet", True, core.StatefulSet)
SERVICECIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False, core.ServiceCIDR)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True, core.Lease)

NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, NetworkPolicy)

#: Every descriptor, by the type its objects are decoded into.
BY_TYPE: dict[type, Resource[Any]] = {
    resource.type: resource
    for resource in (
        IPSES,
        IPENDPOINTS,
        FASTNODES,
        PODS,
        NODES,
        NAMESPACES,
        EVENTS,
        STATEFULSETS,
        SERVICECIDRS,
        LEASES,
        NETWORKPOLICIES,
    )
}


def reference_to(obj: HasMetadata) -> ObjectReference:
    """Reference an object as Events do. KeyError if no descriptor here has the object's type (a bug of the caller)."""
    resource, metadata = BY_TYPE[type(obj)], obj.metadata
    return ObjectReference(
        kind=resource.kind,
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        api_version=resource.api_version,
        resource_version=metadata.resource_version,
    )
