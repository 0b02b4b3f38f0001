"""Value types: addresses, MACs, ranges. Pure: no I/O, no Kubernetes, nothing of Fast except its errors."""

from fast.net.address import (
    IPAddress,
    IPNetwork,
    from_map_key,
    map_key,
    parse_address,
    parse_record_name,
    record_name,
)
from fast.net.mac import Mac
from fast.net.ranges import AddressRange, RangeSet, parse_range, parse_subnet
from fast.net.special import SPECIAL_NETWORKS, find_special_network, special_ranges, special_use

__all__ = [
    "SPECIAL_NETWORKS",
    "AddressRange",
    "IPAddress",
    "IPNetwork",
    "Mac",
    "RangeSet",
    "find_special_network",
    "from_map_key",
    "map_key",
    "parse_address",
    "parse_range",
    "parse_record_name",
    "parse_subnet",
    "record_name",
    "special_ranges",
    "special_use",
]
