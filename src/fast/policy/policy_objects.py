"""What goes into the computation, as values: pods, addresses, namespaces, problems. No decisions.

Nothing here is a string made of several parts: a namespace, a name, a label's key and its value stay apart, so no
label can look like something of Fast's own.
"""

from __future__ import annotations

from enum import Enum, IntEnum

import msgspec

from fast.net.address import IPAddress, map_key

#: On a NetworkPolicy, ClusterNetworkPolicy or Namespace (for its NetworkPolicies): tell, never drop.
ANNOTATION_MODE = "fast.io/policy-mode"
MODE_AUDIT = "audit"

#: IP protocol numbers by the names that both APIs use.
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Direction(Enum):
    """Of a packet, as seen by the pod whose rules are asked."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Tier(IntEnum):
    """In the order of precedence."""

    ADMIN = 0
    NETWORK_POLICY = 1
    BASELINE = 2


class Action(Enum):
    """What a rule does with what it matches; a NetworkPolicy's rule accepts."""

    ACCEPT = "Accept"
    DENY = "Deny"
    PASS = "Pass"  # noqa: S105 - an action, not a word of secrecy


class PolicyRef(msgspec.Struct, frozen=True, order=True):
    """Which policy: ``kind`` is NetworkPolicy or ClusterNetworkPolicy (no namespace)."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NamedPort(msgspec.Struct, frozen=True, order=True):
    """A container's port that has a name. ``protocol`` is an IP protocol number."""

    name: str
    protocol: int
    port: int


class Namespace(msgspec.Struct, frozen=True):
    """A namespace's labels, and whether its NetworkPolicies are only audited."""

    name: str
    labels: dict[str, str]
    audit: bool = False


class PodAddress(msgspec.Struct, frozen=True):
    """An address of a pod somewhere in the cluster, as its IpEndpoint tells."""

    address: IPAddress
    namespace: str
    labels: dict[str, str]
    named_ports: tuple[NamedPort, ...] = ()


class NodeAddress(msgspec.Struct, frozen=True):
    """An address of a node; host-network pods are the node."""

    address: IPAddress
    node: str
    labels: dict[str, str]


class LocalPod(msgspec.Struct, frozen=True):
    """A pod of this node: rules are made for it. ``uid`` is what it is known by."""

    uid: str
    namespace: str
    name: str
    labels: dict[str, str]
    addresses: tuple[IPAddress, ...]
    named_ports: tuple[NamedPort, ...] = ()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The addresses as map keys."""
        return tuple(map_key(address) for address in self.addresses)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Packet(msgspec.Struct, frozen=True):
    """What a verdict depends on: the first packet of a flow, after the stack's DNAT and before its SNAT.

    ``from_own_node``: no input device, and the source is an address of this node (design §6, step 3).
    """

    source: IPAddress
    destination: IPAddress
    protocol: int
    port: int = 0
    from_own_node: bool = False


class ProblemKind(Enum):
    """What is wrong with a policy, as a condition's reason."""

    INVALID = "PolicyInvalid"
    UNSUPPORTED = "PolicyUnsupported"
    UNKNOWN_NAMED_PORT = "NamedPortUnknown"
    TOO_LARGE = "PolicyTooLarge"


class Problem(msgspec.Struct, frozen=True):
    """One policy that is not, or not wholly, in force. ``path`` is the field, ``message`` a sentence for people."""

    kind: ProblemKind
    policy: PolicyRef
    path: str
    message: str
