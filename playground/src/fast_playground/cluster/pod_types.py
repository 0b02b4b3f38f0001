"""The parts of Pod and Node that the kubelet runner reads and writes, beyond what Fast's own views have. Pure data."""

from __future__ import annotations

from typing import Any

import msgspec

from fast.api.core import ObjectReference
from fast.api.meta import ObjectMeta
from fast.api.resources import Resource


class EnvVar(msgspec.Struct):
    """``containers[].env[]``; ``valueFrom`` is ignored."""

    name: str
    value: str = ""


class ContainerPort(msgspec.Struct, rename="camel"):
    """``containers[].ports[]``."""

    container_port: int
    host_port: int = 0
    protocol: str = "TCP"
    host_ip: str = msgspec.field(name="hostIP", default="")


class Container(msgspec.Struct, rename="camel"):
    """``spec.containers[]``."""

    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    env: list[EnvVar] = []
    ports: list[ContainerPort] = []


class PodSpec(msgspec.Struct, rename="camel"):
    """``spec``."""

    containers: list[Container] = []
    node_name: str = ""
    host_network: bool = False
    restart_policy: str = "Always"


class PodStatus(msgspec.Struct, rename="camel"):
    """``status``."""

    phase: str = ""
    start_time: str = ""


class Pod(msgspec.Struct, kw_only=True):
    """The fields of a Pod that a kubelet needs."""

    metadata: ObjectMeta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)
    api_version: str = msgspec.field(name="apiVersion", default="v1")
    kind: str = "Pod"

    @property
    def terminating(self) -> bool:
        """Whether deletion was requested."""
        return self.metadata.deletion_timestamp is not None

    @property
    def finished(self) -> bool:
        """Whether its containers have ended for good."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def reference(self) -> ObjectReference:
        """The reference to it, for Events."""
        meta = self.metadata
        return ObjectReference(
            kind="Pod", name=meta.name, namespace=meta.namespace, uid=meta.uid, api_version="v1"
        )


class Node(msgspec.Struct, kw_only=True):
    """A Node, as a kubelet registers it."""

    metadata: ObjectMeta
    status: dict[str, Any] = {}
    api_version: str = msgspec.field(name="apiVersion", default="v1")
    kind: str = "Node"


PODS = Resource("", "v1", "pods", "Pod", True, Pod)
NODES = Resource("", "v1", "nodes", "Node", False, Node)
