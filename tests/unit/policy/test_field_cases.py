"""The field's cases, on both families, with every other pod on this node."""

from __future__ import annotations

import itertools
from ipaddress import ip_address

import pytest

from fast.policy import NamedPort, Packet
from unit.policy import field_cases
from unit.policy.node import Node

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
SERVED = tuple(
    NamedPort(f"serve-{port}-{name}", number, port) for name, number in PROTOCOLS.items() for port in (80, 81)
)


class FieldCluster:
    """Namespaces x, y, z with pods a, b, c; odd ones are local, the others on other nodes."""

    def __init__(self, prefix: str) -> None:
        self.node = Node()
        self.prefix = prefix
        self.pods: dict[tuple[str, str], str] = {}
        self.locals: dict[tuple[str, str], object] = {}
        for namespace in "xyz":
            self.namespace(namespace, {"ns": namespace})
            for pod in "abc":
                self.pod(namespace, pod)

    def namespace(self, name: str, labels: dict[str, str]) -> None:
        self.node.namespace(name, labels)

    def namespace_gone(self, name: str) -> None:
        for namespace, pod in list(self.pods):
            if namespace == name:
                self.pod_gone(namespace, pod)
        del self.node.world.namespaces[name]
        self.node.tables.remove_namespace(name)

    def pod(self, namespace: str, name: str, labels: dict[str, str] | None = None) -> None:
        key = (namespace, name)
        address = self.pods.setdefault(key, f"{self.prefix}{len(self.pods) + 3}")
        labels = {"pod": name} if labels is None else labels
        if int(address.rsplit(self.prefix[-1], 1)[1]) % 2:
            self.locals[key] = self.node.local(name, namespace, labels, (address,), SERVED)
        else:
            self.node.remote(address, namespace, labels, SERVED)

    def pod_gone(self, namespace: str, name: str) -> None:
        address = self.pods.pop((namespace, name))
        if (namespace, name) in self.locals:
            self.node.local_gone(self.locals.pop((namespace, name)))
        else:
            self.node.remote_gone(address)

    def policy(self, policy) -> None:
        self.node.policy(policy)

    def unpolicy(self, policy) -> None:
        self.node.unpolicy(policy)

    def packets(self) -> list[Packet]:
        addresses = [ip_address(address) for address in self.pods.values()]
        here = {pod.addresses[0] for pod in self.node.world.pods}
        return [
            Packet(source, destination, protocol, port)
            for source, destination in itertools.product(addresses, addresses)
            for protocol in PROTOCOLS.values()
            for port in (53, 80, 81)
            if source in here or destination in here
        ]


@pytest.mark.parametrize("prefix", ["10.244.0.", "fd00:10:244::"])
def test_every_case_of_the_field_is_judged_as_the_text_says(prefix):
    cluster = FieldCluster(prefix)
    cluster.node.plan()
    cases = field_cases.cases(f"{prefix}4")
    every = 3 if ":" in prefix else 1  # the families differ in blocks only
    for name, steps in cases[::every]:
        for step in steps:
            for verb, *arguments in step:
                getattr(cluster, verb)(*arguments)
                cluster.node.plan()
            try:
                cluster.node.check(cluster.packets())
            except AssertionError as error:
                raise AssertionError(f"case {name}") from error
        for policy in list(cluster.node.world.policies):
            cluster.unpolicy(policy)
        for namespace in "xyz":
            cluster.namespace(namespace, {"ns": namespace})
            for pod in "abc":
                cluster.pod(namespace, pod)
        cluster.node.plan()
    assert len(cases) > 230


def test_a_policy_that_matches_by_both_selectors_lets_exactly_those_pods_in():
    cluster = FieldCluster("10.244.0.")
    cluster.policy(field_cases.Base().policy())
    cluster.node.plan()
    subject = cluster.pods[("x", "a")]
    allowed = {
        key
        for key, address in cluster.pods.items()
        if cluster.node.expected(Packet(ip_address(address), ip_address(subject), 6, 80))[1]
        and address != subject
    }
    assert allowed == {("x", "b"), ("x", "c"), ("y", "b"), ("y", "c")}
