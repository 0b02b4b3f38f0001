"""Views of Kubernetes' own types: only the fields Fast reads. Never sent back whole; write with a patch."""

from __future__ import annotations

import contextlib

import msgspec

from fast.api.meta import ObjectMeta
from fast.errors import InvalidRange
from fast.net import IPAddress, parse_address

TAINT_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
#: On a mirror pod (a static pod's copy at the API server): the static pod's own UID, which kubelet calls a hash.
ANNOTATION_MIRROR = "kubernetes.io/config.mirror"


class ContainerPort(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``ports[]`` of a container."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A container; ``restart_policy`` Always makes an init container a sidecar."""

    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""


class PodSpec(msgspec.Struct, rename="camel", omit_defaults=True):
    """``spec`` of a Pod."""

    node_name: str = ""
    host_network: bool = False
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(msgspec.Struct, omit_defaults=True):
    """``status.podIPs[]`` of a Pod."""

    ip: str = ""


class PodStatus(msgspec.Struct, omit_defaults=True):
    """``status`` of a Pod."""

    phase: str = ""
    reason: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] = msgspec.field(name="podIPs", default_factory=list)
    host_ip: str = msgspec.field(name="hostIP", default="")


class Pod(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A view of a Pod."""

    metadata: ObjectMeta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def sandbox_uid(self) -> str:
        """The UID by which kubelet and the container runtime know the pod; records name this one.

        A static pod and its mirror at the API server have different UIDs: the mirror gets a new one whenever somebody
        deletes it, while the static pod and its sandbox live on.
        """
        return self.metadata.annotations.get(ANNOTATION_MIRROR) or self.metadata.uid

    @property
    def ports(self) -> tuple[ContainerPort, ...]:
        """The ports of the containers that run as long as the pod does."""
        sidecars = (item for item in self.spec.init_containers if item.restart_policy == "Always")
        return tuple(port for container in (*self.spec.containers, *sidecars) for port in container.ports)

    @property
    def terminating(self) -> bool:
        """Whether deletion was requested."""
        return self.metadata.deletion_timestamp is not None

    @property
    def finished(self) -> bool:
        """Whether its containers have ended for good."""
        return self.status.phase in {"Succeeded", "Failed"}


class Taint(msgspec.Struct, omit_defaults=True):
    """``spec.taints[]`` of a Node."""

    key: str
    effect: str = ""
    value: str = ""


class NodeSpec(msgspec.Struct, omit_defaults=True):
    """``spec`` of a Node."""

    taints: list[Taint] = []
    unschedulable: bool = False


class NodeAddress(msgspec.Struct):
    """``status.addresses[]`` of a Node."""

    type: str
    address: str


class NodeStatus(msgspec.Struct, omit_defaults=True):
    """``status`` of a Node."""

    addresses: list[NodeAddress] = []


class Node(msgspec.Struct, omit_defaults=True):
    """A view of a Node."""

    metadata: ObjectMeta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """The addresses of type InternalIP, in the Node's order."""
        return tuple(item.address for item in self.status.addresses if item.type == "InternalIP")

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The addresses of type InternalIP or ExternalIP; texts that are no address are left out."""
        found = []
        for item in self.status.addresses:
            if item.type in {"InternalIP", "ExternalIP"}:
                with contextlib.suppress(InvalidRange):
                    found.append(parse_address(item.address))
        return tuple(found)

    @property
    def out_of_service(self) -> bool:
        """Whether an administrator fenced the node: its pods are then known not to run."""
        return any(taint.key == TAINT_OUT_OF_SERVICE for taint in self.spec.taints)


class Namespace(msgspec.Struct, omit_defaults=True):
    """A view of a Namespace."""

    metadata: ObjectMeta


class ServiceCIDRSpec(msgspec.Struct, omit_defaults=True):
    """``spec`` of a ServiceCIDR."""

    cidrs: list[str] = []


class ServiceCIDR(msgspec.Struct, omit_defaults=True):
    """A view of a ServiceCIDR: networks that Services get addresses from (Kubernetes 1.33 and later)."""

    metadata: ObjectMeta
    spec: ServiceCIDRSpec = msgspec.field(default_factory=ServiceCIDRSpec)


class StatefulSetSpec(msgspec.Struct, omit_defaults=True):
    """``spec`` of a StatefulSet."""

    replicas: int = 1
    ordinals: dict[str, int] = {}


class StatefulSet(msgspec.Struct, omit_defaults=True):
    """A view of a StatefulSet."""

    metadata: ObjectMeta
    spec: StatefulSetSpec = msgspec.field(default_factory=StatefulSetSpec)


class LeaseSpec(msgspec.Struct, rename="camel", omit_defaults=True):
    """``spec`` of a Lease; times are RFC 3339 with microseconds."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str = ""
    renew_time: str = ""
    lease_transitions: int = 0


class Lease(msgspec.Struct, kw_only=True):
    """A complete Lease: leader election writes it."""

    api_version: str = msgspec.field(name="apiVersion", default="coordination.k8s.io/v1")
    kind: str = "Lease"
    metadata: ObjectMeta
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


class ObjectReference(msgspec.Struct, rename="camel", omit_defaults=True):
    """The object that an Event is about."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""


class EventSource(msgspec.Struct, omit_defaults=True):
    """Who reports an Event."""

    component: str = ""
    host: str = ""


class Event(msgspec.Struct, kw_only=True):
    """A complete core/v1 Event: the recorder writes it."""

    api_version: str = msgspec.field(name="apiVersion", default="v1")
    kind: str = "Event"
    metadata: ObjectMeta
    involved_object: ObjectReference = msgspec.field(name="involvedObject")
    type: str = "Normal"
    reason: str = ""
    message: str = ""
    count: int = 1
    first_timestamp: str | None = msgspec.field(name="firstTimestamp", default=None)
    last_timestamp: str | None = msgspec.field(name="lastTimestamp", default=None)
    source: EventSource = msgspec.field(default_factory=EventSource)
