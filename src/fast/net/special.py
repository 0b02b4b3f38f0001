"""Networks whose addresses no pod and no node can have (IANA's special-purpose registries). Values only."""

from __future__ import annotations

from ipaddress import ip_network

from fast.net.address import IPAddress, IPNetwork
from fast.net.ranges import AddressRange, RangeSet

#: By what they are for. ``::/80`` holds ::, ::1 and the IPv4-mapped addresses ``::ffff:0:0/96``.
SPECIAL_NETWORKS: dict[str, str] = {
    "0.0.0.0/8": "this host (unspecified)",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "224.0.0.0/4": "multicast",
    "255.255.255.255/32": "broadcast",
    "::/80": "unspecified, loopback or IPv4-mapped",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
}

_NETWORKS = [(ip_network(text), what) for text, what in SPECIAL_NETWORKS.items()]
_RANGES = {
    version: RangeSet(
        AddressRange.of_network(network) for network, _ in _NETWORKS if network.version == version
    )
    for version in (4, 6)
}


def special_use(address: IPAddress) -> str:
    """Say what a special-purpose address is for; empty for one that a pod or node can have."""
    return next((what for network, what in _NETWORKS if address in network), "")


def find_special_network(network: IPNetwork) -> str:
    """Name the special-purpose network that a network overlaps, as ``127.0.0.0/8 (loopback)``; empty if none."""
    for special, what in _NETWORKS:
        if special.version == network.version and special.overlaps(network):
            return f"{special} ({what})"
    return ""


def special_ranges(version: int) -> RangeSet:
    """Give every special-purpose address of an IP version."""
    return _RANGES[version]
