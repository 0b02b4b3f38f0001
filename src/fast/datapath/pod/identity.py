"""Who an endpoint is: the container and interface it belongs to, how its veth is named, what the veth says of itself.

The host veth's alias holds the identity and the addresses (``ip link show`` prints it), so an agent that starts anew
knows its endpoints from the kernel alone. Pure; nothing is looked up here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from fast.datapath.netlink import Link
from fast.errors import InvalidConfig, InvalidRange
from fast.net import IPAddress, Mac, parse_address

#: Every device of Fast begins with this; the firewall matches on it.
DEVICE_PREFIX = "fast"
_DIGEST_CHARACTERS = 10
_ALIAS_PREFIX = "fast:"
_VIA_STACK = "via-stack"
_ALIAS_MAX = 255  # IFALIASZ, with the NUL
_IFNAME_MAX = 15


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """A pod's interface as it should be.

    Attributes:
        container_id: The sandbox's ID at the runtime.
        ifname: The interface's name inside the pod, as ``eth0``.
        netns_path: Where the sandbox's network namespace is bound.
        addresses: One or several, of either family; all of one endpoint.
        mtu: None: the node's pod MTU.
        via_stack: Keep its packets off the short cut, for what is attached to its veth (the ``bandwidth`` plugin).
    """

    container_id: str
    ifname: str
    netns_path: str
    addresses: tuple[IPAddress, ...]
    mtu: int | None = None
    via_stack: bool = False

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
        """What the host's device has to say of itself."""
        return Alias(self.container_id, self.ifname, self.addresses, self.via_stack)


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


class Alias(NamedTuple):
    """What the host's device of an endpoint says of itself; the attributes are :class:`EndpointSpec`'s."""

    container_id: str
    ifname: str
    addresses: tuple[IPAddress, ...]
    via_stack: bool = False


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
    """Spell it: ``fast:CONTAINER/IFNAME ADDRESS,ADDRESS``, with `` via-stack`` behind where that is so."""
    listed = ",".join(map(str, alias.addresses))
    marks = f" {_VIA_STACK}" if alias.via_stack else ""
    return f"{_ALIAS_PREFIX}{alias.container_id}/{alias.ifname} {listed}{marks}"


def parse_alias(text: str) -> Alias | None:
    """Read it back; None for an alias that is not Fast's."""
    identity, listed, *marks = (*text.removeprefix(_ALIAS_PREFIX).split(" "), "")[:3]
    container_id, slash, ifname = identity.rpartition("/")
    if not text.startswith(_ALIAS_PREFIX) or not slash:
        return None
    try:
        addresses = tuple(map(parse_address, listed.split(",")))
    except InvalidRange:
        return None
    return Alias(container_id, ifname, addresses, _VIA_STACK in marks)


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
    )


def endpoint_of(link: Link) -> Endpoint | None:
    """Read the endpoint that a host device belongs to; None for a device that is not an endpoint's."""
    alias = parse_alias(link.alias)
    return None if alias is None else describe(alias, link, link.mtu)
