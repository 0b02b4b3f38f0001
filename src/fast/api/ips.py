"""The Ips type: a pool of addresses as a user writes it; its validation and the addresses it contains.

The controller writes ``Ips.status`` for people; the IpEndpoint objects are the source of truth.
"""

from __future__ import annotations

import msgspec

from fast.api.meta import Condition, LabelSelector, ObjectMeta
from fast.errors import InvalidRange
from fast.net import (
    AddressRange,
    IPNetwork,
    RangeSet,
    find_special_network,
    parse_range,
    parse_subnet,
    special_ranges,
)

GROUP = "sample.fast.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

#: On a pod (template) or Namespace: the pools to take addresses from, ``NAME`` or ``NAME,NAME``.
ANNOTATION_POOLS = "fast.io/ips"
#: On a pod: the address it asks for (or one of each family, comma-separated).
ANNOTATION_ADDRESS = "fast.io/ip"
#: On a pod (template): "true" keeps the pod's address for the next pod of its name. StatefulSets need no annotation.
ANNOTATION_STICKY = "fast.io/sticky"
#: The pool of pods that name none.
DEFAULT_POOL = "default-ips"
#: Keeps a deleted pool while addresses of it are in use.
FINALIZER_IN_USE = "sample.fast.io/in-use"

#: The reason of a condition Ready=False of a pool that waits for its last address.
REASON_BEING_DELETED = "BeingDeleted"

_IPV4 = 4
_LAST_WITH_BROADCAST = 2  # a /31 or /32 (/127, /128) has no network and broadcast address


class Retention(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """Limits for addresses that are kept for a sticky key; 0: no limit."""

    seconds: int = 0
    max_per_namespace: int = msgspec.field(name="maxPerNamespace", default=0)
    max_per_workload: int = msgspec.field(name="maxPerWorkload", default=0)


class IpsSpec(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """What a user writes. Addresses stay text here; :func:`pool_addresses` reads them."""

    subnet: str
    ips: tuple[str, ...] = ()
    exclude_ips: tuple[str, ...] = msgspec.field(name="excludeIPs", default=())
    pod_affinity: LabelSelector | None = msgspec.field(name="podAffinity", default=None)
    namespace_affinity: LabelSelector | None = msgspec.field(name="namespaceAffinity", default=None)
    node_affinity: LabelSelector | None = msgspec.field(name="nodeAffinity", default=None)
    release_delay_seconds: int = msgspec.field(name="releaseDelaySeconds", default=30)
    retention: Retention | None = None


class IpsStatus(msgspec.Struct, omit_defaults=False, kw_only=True):
    """What the controller counted; ``total_ip_count`` is capped at 2**63-1 (an IPv6 /64 holds more)."""

    total_ip_count: int = msgspec.field(name="totalIPCount", default=0)
    allocated_ip_count: int = msgspec.field(name="allocatedIPCount", default=0)
    retained_ip_count: int = msgspec.field(name="retainedIPCount", default=0)
    free_ip_count: int = msgspec.field(name="freeIPCount", default=0)
    conditions: list[Condition] = []


class Ips(msgspec.Struct, kw_only=True):
    """A pool of pod addresses (cluster-scoped, plural ``ipses``)."""

    api_version: str = msgspec.field(name="apiVersion", default=API_VERSION)
    kind: str = "Ips"
    metadata: ObjectMeta
    spec: IpsSpec
    status: IpsStatus | msgspec.UnsetType = msgspec.UNSET

    @property
    def refused(self) -> bool:
        """Whether the controller found that no pod can use the pool. A pool that is being deleted still serves pods."""
        conditions = self.status.conditions if isinstance(self.status, IpsStatus) else []
        return any(
            item.type == "Ready" and item.status == "False" and item.reason != REASON_BEING_DELETED
            for item in conditions
        )


class PoolAddresses(msgspec.Struct, frozen=True):
    """The parsed addresses of a pool: its subnet, and what is usable of its ranges after exclusions."""

    subnet: IPNetwork
    usable: RangeSet

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.subnet.version


def _written_ranges(spec: IpsSpec, subnet: IPNetwork) -> list[AddressRange]:
    """The ranges of ``spec.ips``, or, if empty, the whole subnet without network and broadcast address."""
    if spec.ips:
        return [_range_inside(text, subnet, "ips") for text in spec.ips]
    whole = AddressRange.of_network(subnet)
    if whole.size <= _LAST_WITH_BROADCAST:
        return [whole]
    # IPv6 has no broadcast; its first address is the subnet-router anycast address (RFC 4291 section 2.6.1)
    last = whole.last - 1 if subnet.version == _IPV4 else whole.last
    return [AddressRange(whole.version, whole.first + 1, last)]


def _range_inside(text: str, subnet: IPNetwork, field: str) -> AddressRange:
    try:
        found = parse_range(text)
    except InvalidRange as error:
        raise InvalidRange(f"spec.{field}: {error}") from error
    if not AddressRange.of_network(subnet).covers(found):
        raise InvalidRange(f"spec.{field}: {text} is outside the subnet {subnet}")
    return found


def pool_addresses(spec: IpsSpec) -> PoolAddresses:
    """Read a pool's spec and validate it. Costs the same for a /30 and a /8.

    Raises:
        InvalidRange: The message names the field and the offending text: garbage, a reversed range, an address
            outside the subnet, mixed families, or nothing left to use.
    """
    try:
        subnet = parse_subnet(spec.subnet)
    except InvalidRange as error:
        raise InvalidRange(f"spec.subnet: {error}") from error
    written = RangeSet(_written_ranges(spec, subnet))
    excluded = RangeSet(_range_inside(text, subnet, "excludeIPs") for text in spec.exclude_ips)
    usable = written.without(excluded)
    if not usable:
        raise InvalidRange("spec.excludeIPs leaves no address to use")
    usable = usable.without(special_ranges(subnet.version))
    if not usable:
        raise InvalidRange(f"spec.ips has no address that a pod can have: {find_special_network(subnet)}")
    return PoolAddresses(subnet=subnet, usable=usable)


def owned_ranges(spec: IpsSpec) -> RangeSet:
    """Give the addresses that are the pool's: its ranges, or the whole subnet (first and last address included).

    Unlike :func:`pool_addresses`, the result is as few networks as possible: routes follow it.

    Raises:
        InvalidRange: As :func:`pool_addresses`.
    """
    usable = pool_addresses(spec)
    if spec.ips or spec.exclude_ips:
        return usable.usable
    return RangeSet([AddressRange.of_network(usable.subnet)])
