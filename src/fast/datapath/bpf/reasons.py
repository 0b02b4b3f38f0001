"""Every verdict of the eBPF programs by name: the one Python mirror of ``bpf/lib/reasons.h``. Nothing else.

A test compares both enums with the compiled object through BTF, and docs/develop/datapath.md with this module.
A reason's number is its place in ``fast_metrics``; numbers are never used again for something else.
"""

from __future__ import annotations

from enum import IntEnum

_FIRST_DROP = 64


class PacketDirection(IntEnum):
    """``enum fast_direction``: where a packet was seen, which is which program saw it."""

    FROM_POD = 0
    TO_POD = 1
    FROM_OVERLAY = 2
    TO_OVERLAY = 3
    FROM_UNDERLAY = 4


#: Directions that ``fast_metrics`` has room for a reason.
DIRECTION_SLOTS = 8


class Reason(IntEnum):
    """``enum fast_reason``: why a packet went where it went. From 64 on: why it was dropped."""

    description: str

    def __new__(cls, value: int, description: str) -> Reason:
        """Make the member; ``description`` completes the sentence "the packet …"."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    FORWARD_LOCAL_POD = 1, "was handed straight to a pod on this node"
    FORWARD_TUNNEL = 2, "was sent through the tunnel to another node"
    FORWARD_NATIVE = 3, "was sent to another node without a tunnel"
    FORWARD_TUNNEL_DEVICE = (
        13,
        "was sent to another node by the tunnel device, as it may not, or cannot, be skipped",
    )
    STACK_NOT_POD = 4, "went to the stack: its destination or source is no pod or node of the cluster"
    STACK_NODE = 5, "went to the stack: it is for this node itself"
    STACK_FLOW = 6, "went to the stack: its flow came through the stack, as Service traffic does"
    STACK_FRAGMENT = 7, "went to the stack: it is a fragment"
    STACK_TOO_BIG = 8, "went to the stack, which answers or fragments: it is larger than the way out carries"
    STACK_REQUESTED = 9, "went to the stack: a pod of it is marked so, for traffic shaping"
    STACK_NEIGHBOUR = 10, "went to the stack: ARP"
    STACK_LINK_LOCAL = 11, "went to the stack: link-local or multicast (neighbour discovery, MLD, DHCP)"
    STACK_TO_POD = 12, "came from the stack and went on to the pod"

    DROP_TRUNCATED = 64, "is shorter than its headers say"
    DROP_UNSUPPORTED_ETHERTYPE = 65, "is neither IPv4, IPv6 nor (from a pod) ARP"
    DROP_VLAN_TAGGED = 66, "has a VLAN tag"
    DROP_IPV6_EXTENSIONS = 67, "has more IPv6 extension headers than are looked through"
    DROP_SPOOFED_ADDRESS = 68, "has a source address that is not the pod's"
    DROP_SPOOFED_MAC = 69, "has a source MAC that is not the pod's"
    DROP_TUNNEL_PORT = 70, "is UDP from a pod to the tunnel's port, where only nodes may send"
    DROP_NO_TUNNEL_KEY = 71, "came through the vxlan device without an IPv4 tunnel key"
    DROP_WRONG_VNI = 72, "has another VXLAN network identifier than Fast's"
    DROP_UNKNOWN_SENDER = 73, "came through the tunnel from an address that is no node's"
    DROP_INNER_SOURCE = 74, "came through the tunnel from a node on which its source does not live"
    DROP_TUNNEL_TO_TUNNEL = 75, "came through the tunnel and would go back into it"
    DROP_SOURCE_ELSEWHERE = 76, "would go into the tunnel with a source that is not of this node"
    DROP_UNKNOWN_DESTINATION = 77, "is for a pod address that nobody has (or no longer has)"
    DROP_NOT_UNICAST = 78, "is multicast or broadcast, which the overlay does not carry"
    DROP_NO_DEVICE = 79, "has to leave by a device that fast_local_dev does not name"
    DROP_TUNNEL_KEY_REFUSED = 80, "could not be given its tunnel key by the kernel"
    DROP_ROGUE_ROUTER = 81, "is an ICMP redirect or router advertisement, which a pod may not send"

    @property
    def is_drop(self) -> bool:
        """Whether the packet ended here."""
        return self >= _FIRST_DROP


#: Reasons that ``fast_metrics`` has room for.
REASON_SLOTS = 128
METRIC_SLOTS = REASON_SLOTS * DIRECTION_SLOTS


def metric_index(reason: Reason, direction: PacketDirection) -> int:
    """Give the index into ``fast_metrics``."""
    return reason * DIRECTION_SLOTS + direction
