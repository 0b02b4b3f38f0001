"""What a claim is made of: who asks (attachment, node), and for what (pools, one address, a sticky key).

Reads annotations and labels; decides nothing about addresses and does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fast.api.core import Namespace, Pod
from fast.api.ipendpoint import PodPort, PodRef
from fast.api.ips import ANNOTATION_ADDRESS, ANNOTATION_POOLS, DEFAULT_POOL
from fast.errors import InvalidConfig, InvalidRange
from fast.ipam.rules.annotations import misspelt
from fast.ipam.rules.sticky_keys import former_sticky_key_of, sticky_key_of
from fast.net import IPAddress, parse_address

#: Identity of an attachment: (container_id, ifname). A pod's name never is one.
AttachmentKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The node on whose behalf this process claims and releases.

    Attributes:
        name: The Node object's name.
        boot_id: ``/proc/sys/kernel/random/boot_id``: sandboxes of another boot are gone.
        labels: The Node's labels, for pools with a nodeAffinity.
    """

    name: str
    boot_id: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one sandbox.

    Attributes:
        container_id: The sandbox, as the container runtime names it.
        ifname: The interface in it.
        pod: Whom it is for; None if the runtime names no pod, as cnitool does.
        addresses: The addresses that the runtime asks for; empty for any.
        pod_labels: The pod's labels, for its records.
        named_ports: The pod's ports that have a name, likewise.
    """

    container_id: str
    ifname: str
    pod: PodRef | None = None
    addresses: tuple[IPAddress, ...] = ()
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    named_ports: tuple[PodPort, ...] = ()

    @property
    def key(self) -> AttachmentKey:
        """(container_id, ifname)."""
        return (self.container_id, self.ifname)


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a pod asks for.

    Attributes:
        pools: Names of Ips in order: the next one of a family serves where the one before is exhausted.
        pools_named: False where nobody named a pool: ``addresses`` may then lie in any pool that allows the pod.
        addresses: At most one of each family: these and no others.
        sticky_key: See ``fast.ipam.rules.sticky_keys``; empty if the pod's address may change when it is recreated.
        former_sticky_key: The key that an earlier version of Fast gave this pod; empty if none did.
        pod_labels: For pools with a podAffinity.
        namespace_labels: For pools with a namespaceAffinity.
        misspelt: Annotations that were probably meant for Fast, each with the right key.
    """

    pools: tuple[str, ...] = (DEFAULT_POOL,)
    pools_named: bool = True
    addresses: tuple[IPAddress, ...] = ()
    sticky_key: str = ""
    former_sticky_key: str = ""
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    misspelt: tuple[tuple[str, str], ...] = ()

    @property
    def sticky_keys(self) -> tuple[str, ...]:
        """The present key and the former one, as far as there are any."""
        return tuple(key for key in (self.sticky_key, self.former_sticky_key) if key)


def named_ports(pod: Pod) -> tuple[PodPort, ...]:
    """Return the pod's ports that have a name, as records have them."""
    return tuple(PodPort(port.name, port.container_port, port.protocol) for port in pod.ports if port.name)


def resolve_pools(pod: Pod, namespace: Namespace | None = None) -> ClaimRequest:
    """Read what the pod asks for: its own annotations, else its namespace's, else the pool ``default-ips``.

    Args:
        pod: The pod, as read from the API.
        namespace: Its namespace; None if it is not known, which counts as one without annotations and labels.

    Raises:
        InvalidConfig: An annotation that cannot be read; the message names it and the offending text.
    """
    of_pod = pod.metadata.annotations.get(ANNOTATION_POOLS)
    of_namespace = namespace.metadata.annotations.get(ANNOTATION_POOLS) if namespace else None
    written = of_pod if of_pod is not None else of_namespace
    return ClaimRequest(
        pools=(DEFAULT_POOL,) if written is None else parse_pool_names(written),
        pools_named=written is not None,
        addresses=parse_requested_addresses(pod.metadata.annotations.get(ANNOTATION_ADDRESS)),
        sticky_key=sticky_key_of(pod),
        former_sticky_key=former_sticky_key_of(pod),
        pod_labels=pod.metadata.labels,
        namespace_labels=namespace.metadata.labels if namespace else {},
        misspelt=tuple(misspelt(pod)),
    )


def parse_pool_names(text: str) -> tuple[str, ...]:
    """Read the value of ``fast.io/ips``: ``NAME`` or ``NAME,NAME``; order is kept, repetition dropped.

    Raises:
        InvalidConfig: No name in it, or an empty one between commas.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidConfig(f"annotation {ANNOTATION_POOLS}: {text!r} is no list of Ips names, as a or a,b")
    return tuple(dict.fromkeys(names))


def parse_requested_addresses(text: str | None) -> tuple[IPAddress, ...]:
    """Read the value of ``fast.io/ip``: one address, or one of each family separated by a comma.

    Raises:
        InvalidConfig: An address that is none, or two of one family.
    """
    if text is None:
        return ()
    try:
        addresses = tuple(parse_address(part) for part in text.split(","))
    except InvalidRange as error:
        raise InvalidConfig(f"annotation {ANNOTATION_ADDRESS}: {error}") from error
    if len({address.version for address in addresses}) != len(addresses):
        raise InvalidConfig(f"annotation {ANNOTATION_ADDRESS}: {text!r} asks for two addresses of one family")
    return addresses
