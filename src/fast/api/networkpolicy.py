"""NetworkPolicy (networking.k8s.io/v1), as the API server sends it. Its meaning is read in ``fast.policy``."""

from __future__ import annotations

import msgspec

from fast.api.meta import LabelSelector, ObjectMeta


class NetworkPolicyPort(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``ports[]``: a protocol (default TCP) with all ports, one port by number or name, or a range."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class IPBlock(msgspec.Struct, omit_defaults=True, frozen=True):
    """``ipBlock``: the addresses of ``cidr`` without those of ``except``."""

    cidr: str
    except_: tuple[str, ...] = msgspec.field(name="except", default=())


class NetworkPolicyPeer(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``from[]`` and ``to[]``: selectors, or a block. An empty selector is not an absent one."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = msgspec.field(name="ipBlock", default=None)


class NetworkPolicyIngressRule(msgspec.Struct, omit_defaults=True, frozen=True):
    """``ingress[]``: who may reach which ports; an empty list restricts nothing."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    from_: tuple[NetworkPolicyPeer, ...] = msgspec.field(name="from", default=())

    @property
    def peers(self) -> tuple[NetworkPolicyPeer, ...]:
        """The peers, under the same name as an egress rule's."""
        return self.from_


class NetworkPolicyEgressRule(msgspec.Struct, omit_defaults=True, frozen=True):
    """``egress[]``: who may be reached at which ports; an empty list restricts nothing."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    to: tuple[NetworkPolicyPeer, ...] = ()

    @property
    def peers(self) -> tuple[NetworkPolicyPeer, ...]:
        """The peers, under the same name as an ingress rule's."""
        return self.to


class NetworkPolicySpec(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``spec``. Without ``policyTypes``: Ingress, and Egress if there are egress rules."""

    pod_selector: LabelSelector = LabelSelector()
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    egress: tuple[NetworkPolicyEgressRule, ...] = ()
    policy_types: tuple[str, ...] = ()


class NetworkPolicy(msgspec.Struct, kw_only=True, rename="camel"):
    """A NetworkPolicy, whole."""

    api_version: str = "networking.k8s.io/v1"
    kind: str = "NetworkPolicy"
    metadata: ObjectMeta
    spec: NetworkPolicySpec = NetworkPolicySpec()
