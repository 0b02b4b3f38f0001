"""The IpEndpoint type: one address and who holds it. Creating the object *is* the claim."""

from __future__ import annotations

import msgspec

from fast.api.ips import API_VERSION
from fast.api.meta import ObjectMeta
from fast.errors import InvalidRange
from fast.net import IPAddress, parse_record_name


class PodRef(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The pod that an address was claimed for. Its UID identifies it; a name alone does not."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class PodPort(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A container's port that has a name; policies may ask for it by that."""

    name: str
    port: int
    protocol: str = "TCP"


class IpEndpointSpec(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True, gc=False):
    """Who holds the address.

    An empty ``container_id`` means *retained*: kept for ``sticky_key``, without a sandbox. ``boot_id`` is the node's
    boot in which the sandbox was made: the sandbox of an earlier boot no longer exists. ``sticky_key`` is
    ``StatefulSet/NAMESPACE/NAME/ORDINAL`` or ``Pod/NAMESPACE/NAME``.
    """

    pool: str
    node: str = ""
    pod: PodRef = PodRef()
    container_id: str = msgspec.field(name="containerID", default="")
    interface: str = ""
    boot_id: str = msgspec.field(name="bootID", default="")
    sticky_key: str = msgspec.field(name="stickyKey", default="")
    pod_labels: dict[str, str] = msgspec.field(name="podLabels", default_factory=dict)
    named_ports: tuple[PodPort, ...] = msgspec.field(name="namedPorts", default=())
    retained_at: str = msgspec.field(name="retainedAt", default="")


class IpEndpoint(msgspec.Struct, kw_only=True, gc=False):
    """One address of the cluster (cluster-scoped, short ``ipe``); ``metadata.name`` is the address.

    No ownerReference to the Pod: the API server's own GC would free an address whose sandbox still lives.
    """

    api_version: str = msgspec.field(name="apiVersion", default=API_VERSION)
    kind: str = "IpEndpoint"
    metadata: ObjectMeta
    spec: IpEndpointSpec

    @property
    def address(self) -> IPAddress:
        """The address that the object's name spells; InvalidRange if the name spells none."""
        return parse_record_name(self.metadata.name)

    def find_address(self) -> IPAddress | None:
        """The address, or None if the object's name spells none."""
        try:
            return self.address
        except InvalidRange:
            return None
