"""NetworkPolicies in a line each."""

from __future__ import annotations

from fast.api.meta import LabelSelector, ObjectMeta
from fast.api.networkpolicy import (
    IPBlock,
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)


def pods(labels: dict[str, str], namespace: dict[str, str] | None = None) -> NetworkPolicyPeer:
    return NetworkPolicyPeer(
        pod_selector=LabelSelector(labels),
        namespace_selector=None if namespace is None else LabelSelector(namespace),
    )


def block(cidr: str, *holes: str) -> NetworkPolicyPeer:
    return NetworkPolicyPeer(ip_block=IPBlock(cidr, holes))


def _policy(namespace: str, labels: dict[str, str], **spec) -> NetworkPolicy:
    name = f"p{abs(hash(repr((labels, spec))))}"
    return NetworkPolicy(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=NetworkPolicySpec(pod_selector=LabelSelector(labels), **spec),
    )


def _ports(ports) -> tuple[NetworkPolicyPort, ...]:
    return tuple(NetworkPolicyPort(protocol, port) for protocol, port in ports)


def ingress(namespace: str, labels: dict[str, str], peers, ports) -> NetworkPolicy:
    rule = NetworkPolicyIngressRule(_ports(ports), tuple(peers))
    return _policy(namespace, labels, ingress=(rule,), policy_types=("Ingress",))


def egress(namespace: str, labels: dict[str, str], peers, ports) -> NetworkPolicy:
    rule = NetworkPolicyEgressRule(_ports(ports), tuple(peers))
    return _policy(namespace, labels, egress=(rule,), policy_types=("Egress",))


def deny(namespace: str, *types: str) -> NetworkPolicy:
    return _policy(namespace, {}, policy_types=types)
