"""An endpoint's identity: its container and interface, the names and MACs of its veth, its gateways, its alias.

The host veth's alias holds identity and addresses (``ip link show`` prints it), so that a restarted agent finds its
endpoints in the kernel. Pure; nothing is looked up here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from fast.datapath.netlink import Link
from fast.errors import InvalidConfig, InvalidRange
from fast.net import IPAddress, Mac, parse_address

#: Every device of Fast begins with this; the firewall matches on it.
DEVICE_PREFIX = "fast"
_DIGEST_CHARACTERS = 10
_ALIAS_PREFIX = "fast:"
_VIA_STACK, _METADATA = "via-stack", "metadata"
_ALIAS_MAX = 255  # IFALIASZ, with the NUL
_IFNAME_MAX = 15

#: A pod's next hop: on-link, with a permanent neighbour entry; nobody answers for it.
GATEWAY4 = IPv4Address("169.254.1.1")
GATEWAY6 = IPv6Address("fe80::1")


def gateway_of(address: IPAddress) -> IPAddress:
    """Return the next hop of a pod with this address."""
    return GATEWAY4 if isinstance(address, IPv4Address) else GATEWAY6


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """A pod's interface as it should be.

    Attributes:
        container_id: The sandbox's ID at the runtime.
        ifname: The interface's name inside the pod, as ``eth0``.
        netns_path: Where the sandbox's network namespace is bound.
        addresses: One or several, of either family; all of one endpoint.
        mtu: None: the node's pod MTU.
        via_stack: Keep its packets off the fast path, for what is attached to its veth (the ``bandwidth`` plugin).
        metadata_allowed: Whether it reaches cloud metadata although the node blocks it.
    """

    container_id: str
    ifname: str
    netns_path: str
    addresses: tuple[IPAddress, ...]
    mtu: int | None = None
    via_stack: bool = False
    metadata_allowed: bool = False

    def __post_init__(self) -> None:
        if not self.container_id or not self.addresses:
            raise InvalidConfig("an endpoint needs a container ID and at least one address")
        if not 0 < len(self.ifname) <= _IFNAME_MAX or any(c.isspace() or c in "/:" for c in self.ifname):
            raise InvalidConfig(f"{self.ifname!r} is no name for an interface")
        if len(format_alias(self.alias)) >= _ALIAS_MAX:
            raise InvalidConfig(
                f"container ID {self.container_id!r} with {len(self.addresses)} addresses is too long"
            )

    @property
    def alias(self) -> Alias:
        """The alias of the host's device."""
        return Alias(self.container_id, self.ifname, self.addresses, self.via_stack, self.metadata_allowed)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod's interface as it is in the kernel.

    Attributes:
        ifindex: Of the host's end of the veth, ``host_device``.
        mtu: In bytes.
    """

    container_id: str
    ifname: str
    addresses: tuple[IPAddress, ...]
    ifindex: int
    host_device: str
    host_mac: Mac
    pod_mac: Mac
    mtu: int
    via_stack: bool = False
    metadata_allowed: bool = False


class Alias(NamedTuple):
    """The alias of an endpoint's host device; the attributes are those of :class:`EndpointSpec`."""

    container_id: str
    ifname: str
    addresses: tuple[IPAddress, ...]
    via_stack: bool = False
    metadata_allowed: bool = False


def host_device_name(container_id: str, ifname: str) -> str:
    """Name the host's end of the veth: ``fast`` and ten hex digits, 14 of the kernel's 15 characters."""
    digest = hashlib.sha256(f"{container_id}/{ifname}".encode()).hexdigest()
    return DEVICE_PREFIX + digest[:_DIGEST_CHARACTERS]


def macs_of(container_id: str, ifname: str) -> tuple[Mac, Mac]:
    """Give the MACs of the host's and the pod's end.

    They are set, not left to the kernel: systemd-udevd rewrites random ones (MACAddressPolicy=persistent).
    """
    name = f"{container_id}/{ifname}"
    return Mac.derived(f"host {name}"), Mac.derived(f"pod {name}")


def format_alias(alias: Alias) -> str:
    """Spell it: ``fast:CONTAINER/IFNAME ADDRESS,ADDRESS``, and behind it the marks ``via-stack`` and ``metadata``."""
    words = [f"{_ALIAS_PREFIX}{alias.container_id}/{alias.ifname}", ",".join(map(str, alias.addresses))]
    words += [_VIA_STACK] if alias.via_stack else []
    words += [_METADATA] if alias.metadata_allowed else []
    return " ".join(words)


def parse_alias(text: str) -> Alias | None:
    """Read it back; None for an alias that is not Fast's."""
    identity, listed, *marks = (*text.removeprefix(_ALIAS_PREFIX).split(" "), "")
    container_id, slash, ifname = identity.rpartition("/")
    if not text.startswith(_ALIAS_PREFIX) or not slash:
        return None
    try:
        addresses = tuple(map(parse_address, listed.split(",")))
    except InvalidRange:
        return None
    return Alias(container_id, ifname, addresses, _VIA_STACK in marks, _METADATA in marks)


def describe(alias: Alias, link: Link, mtu: int) -> Endpoint:
    """Give the endpoint of that alias behind that host device."""
    host_mac, pod_mac = macs_of(alias.container_id, alias.ifname)
    return Endpoint(
        alias.container_id,
        alias.ifname,
        alias.addresses,
        link.index,
        link.name,
        host_mac,
        pod_mac,
        mtu,
        alias.via_stack,
        alias.metadata_allowed,
    )


def endpoint_of(link: Link) -> Endpoint | None:
    """Read the endpoint that a host device belongs to; None for a device that is not an endpoint's."""
    alias = parse_alias(link.alias)
    return None if alias is None else describe(alias, link, link.mtu)
