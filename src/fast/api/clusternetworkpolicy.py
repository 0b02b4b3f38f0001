"""ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2), as the API server sends it. ``fast.policy`` reads it.

Every "exactly one field" of the API is a struct whose fields may all be None: that is how a field of a later version,
which this one does not know, shows.
"""

from __future__ import annotations

import msgspec

from fast.api.meta import Condition, LabelSelector, ObjectMeta


class NamespacedPod(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """Pods by their labels and those of their namespace; both selectors are required, both may be empty."""

    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class Subject(msgspec.Struct, omit_defaults=True, frozen=True):
    """``subject``: the pods a policy applies to; exactly one field is set."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None


class ClusterPeer(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``from[]`` and ``to[]``; exactly one field is set. Nodes, networks and domain names are for egress only."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None
    nodes: LabelSelector | None = None
    networks: tuple[str, ...] = ()
    domain_names: tuple[str, ...] = ()


class PortRange(msgspec.Struct, omit_defaults=True, frozen=True):
    """``range``: both ends are included."""

    start: int
    end: int


class Port(msgspec.Struct, omit_defaults=True, frozen=True):
    """``destinationPort``: a number or a range."""

    number: int | None = None
    range: PortRange | None = None


class ProtocolMatch(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``tcp``, ``udp`` and ``sctp``: without a port, all of the protocol."""

    destination_port: Port | None = None


class ClusterProtocol(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``protocols[]``; exactly one field is set."""

    tcp: ProtocolMatch | None = None
    udp: ProtocolMatch | None = None
    sctp: ProtocolMatch | None = None
    destination_named_port: str = ""


class ClusterIngressRule(msgspec.Struct, omit_defaults=True, frozen=True):
    """``ingress[]``: ``action`` is Accept, Deny or Pass; no protocols: all of them."""

    action: str
    name: str = ""
    from_: tuple[ClusterPeer, ...] = msgspec.field(name="from", default=())
    protocols: tuple[ClusterProtocol, ...] = ()

    @property
    def peers(self) -> tuple[ClusterPeer, ...]:
        """The peers, under the same name as an egress rule's."""
        return self.from_


class ClusterEgressRule(msgspec.Struct, omit_defaults=True, frozen=True):
    """``egress[]``: ``action`` is Accept, Deny or Pass; no protocols: all of them."""

    action: str
    name: str = ""
    to: tuple[ClusterPeer, ...] = ()
    protocols: tuple[ClusterProtocol, ...] = ()

    @property
    def peers(self) -> tuple[ClusterPeer, ...]:
        """The peers, under the same name as an ingress rule's."""
        return self.to


class ClusterNetworkPolicySpec(msgspec.Struct, omit_defaults=True, frozen=True):
    """``spec``: ``tier`` is Admin or Baseline; of two policies of a tier the one with the lower priority is first."""

    tier: str
    priority: int
    subject: Subject
    ingress: tuple[ClusterIngressRule, ...] = ()
    egress: tuple[ClusterEgressRule, ...] = ()


class ClusterNetworkPolicyStatus(msgspec.Struct, omit_defaults=True):
    """``status``."""

    conditions: list[Condition] = []


class ClusterNetworkPolicy(msgspec.Struct, kw_only=True, rename="camel"):
    """A ClusterNetworkPolicy, whole."""

    api_version: str = "policy.networking.k8s.io/v1alpha2"
    kind: str = "ClusterNetworkPolicy"
    metadata: ObjectMeta
    spec: ClusterNetworkPolicySpec
    status: ClusterNetworkPolicyStatus = msgspec.field(default_factory=ClusterNetworkPolicyStatus)
