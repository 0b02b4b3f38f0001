"""The FastNode type: what a node of Fast is, as that node's own agent writes it, and the name of its heartbeat Lease.

Nothing else copies a node's address: records name the node, and readers look the address up here (ADR 0009).
"""

from __future__ import annotations

from ipaddress import IPv4Address

import msgspec

from fast.api.ips import API_VERSION
from fast.api.meta import Condition, ObjectMeta
from fast.errors import InvalidRange
from fast.net import IPAddress, parse_address

#: How often an agent renews its Lease, and after how long without a renewal it counts as silent.
HEARTBEAT_SECONDS = 20
SILENT_SECONDS = 60
#: More addresses than an agent ever writes: one of each family.
MOST_ADDRESSES = 2
#: More problems than this are only counted.
MOST_PROBLEMS = 64

_LEASE_PREFIX = "fast-node-"


def lease_name(node: str) -> str:
    """Give the name of a node's heartbeat Lease, in Fast's namespace."""
    return f"{_LEASE_PREFIX}{node}"


class Tunnel(msgspec.Struct, frozen=True, omit_defaults=False, gc=False):
    """How other nodes encapsulate packets to this one."""

    protocol: str = "vxlan"
    port: int = 0
    vni: int = 0


class FastNodeSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    """What the node is. ``addresses`` starts with the IPv4 address of the underlay that others tunnel to."""

    node_uid: str = msgspec.field(name="nodeUID", default="")
    boot_id: str = msgspec.field(name="bootID", default="")
    addresses: tuple[str, ...] = ()
    routing: str = ""
    tunnel: Tunnel = Tunnel()
    pod_mtu: int = msgspec.field(name="podMTU", default=0)
    version: str = ""


class NodeProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something wrong on the node: which check found it, ``error`` or ``warning``, what, and what to do about it."""

    check: str
    severity: str
    problem: str
    remedy: str = ""


class FastNodeStatus(msgspec.Struct, omit_defaults=False, kw_only=True, rename="camel"):
    """How the node is. ``problem_count`` counts all problems, ``problems`` has the first MOST_PROBLEMS of them."""

    conditions: list[Condition] = []
    pod_count: int = 0
    problem_count: int = 0
    problems: list[NodeProblem] = []


class FastNode(msgspec.Struct, kw_only=True):
    """A node of Fast (cluster-scoped, plural ``fastnodes``, short ``fn``); its name is the Node's."""

    api_version: str = msgspec.field(name="apiVersion", default=API_VERSION)
    kind: str = "FastNode"
    metadata: ObjectMeta
    spec: FastNodeSpec = msgspec.field(default_factory=FastNodeSpec)
    status: FastNodeStatus | msgspec.UnsetType = msgspec.UNSET

    def find_addresses(self) -> tuple[IPAddress, ...]:
        """Give the node's addresses, at most MOST_ADDRESSES; text that is not an address is left out."""
        found = []
        for text in self.spec.addresses[:MOST_ADDRESSES]:
            try:
                found.append(parse_address(text))
            except InvalidRange:
                continue
        return tuple(found)

    def find_underlay(self) -> IPv4Address | None:
        """Give the address that others tunnel to: the first IPv4 one (the underlay is IPv4); None if there is none."""
        return next((found for found in self.find_addresses() if isinstance(found, IPv4Address)), None)
