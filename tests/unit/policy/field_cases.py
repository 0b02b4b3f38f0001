"""The cases that the field tests NetworkPolicy with, as data.

The facts are those of the generators of cyclonus and policy-assistant (kubernetes-sigs/network-policy-api,
``cmd/policy-assistant/pkg/generator``): nine pods ``a`` to ``c`` in namespaces ``x`` to ``z``, each serving ports 80
and 81 over TCP, UDP and SCTP; a base policy of which one part at a time is varied; conflicts; changes in steps; and
upstream's e2e cases. What is expected comes from the oracle, not from there.

A case is a name and steps; a step is a list of events (see ``Event``) after which every packet is looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from fast.api.networkpolicy import NetworkPolicy

#: What happens: (verb, arguments); verbs are ``FieldCluster``'s methods.
Event = tuple[Any, ...]
Json = dict[str, Any]

A, C = {"matchLabels": {"pod": "a"}}, {"matchLabels": {"pod": "c"}}


def within(key: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}


BC, AB = within("pod", "b", "c"), within("pod", "a", "b")
NS_X, NS_XY, NS_YZ = {"matchLabels": {"ns": "x"}}, within("ns", "x", "y"), within("ns", "y", "z")
DNS = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


@dataclass(frozen=True)
class Base:
    """The policy that is varied: pod x/a, TCP 80 from b and c of x and y, TCP 80 to a and b of y and z, and DNS."""

    namespace: str = "x"
    selector: Json = field(default_factory=lambda: A)
    ingress_ports: list[Json] = field(default_factory=lambda: [{"protocol": "TCP", "port": 80}])
    egress_ports: list[Json] = field(default_factory=lambda: [{"protocol": "TCP", "port": 80}])
    ingress_peers: list[Json] = field(
        default_factory=lambda: [{"podSelector": BC, "namespaceSelector": NS_XY}]
    )
    egress_peers: list[Json] = field(
        default_factory=lambda: [{"podSelector": AB, "namespaceSelector": NS_YZ}]
    )
    ingress: list[Json] | None = None
    egress: list[Json] | None = None

    def policy(self) -> NetworkPolicy:
        ingress, egress = self.ingress, self.egress
        if ingress is None:
            ingress = [{"ports": self.ingress_ports, "from": self.ingress_peers}]
        if egress is None:
            egress = [{"ports": self.egress_ports, "to": self.egress_peers}, DNS]
        return make("base", self.namespace, self.selector, ingress, egress)


def make(
    name: str, namespace: str, selector: Json, ingress: list[Json] | None, egress: list[Json] | None
) -> NetworkPolicy:
    """A policy of the directions that are given."""
    spec: Json = {"podSelector": selector, "policyTypes": []}
    for direction, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            spec["policyTypes"].append(direction)
            spec[direction.lower()] = rules
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, NetworkPolicy)


def port_lists() -> Iterator[list[Json]]:
    yield []
    protocols: list[Json] = [{}, *({"protocol": name} for name in ("TCP", "UDP", "SCTP"))]
    for protocol in protocols:
        for port in ({}, {"port": 80}, {"port": 81}):
            yield [protocol | port]
    for protocol in ("TCP", "UDP", "SCTP"):
        for number in (80, 81):
            yield [{"protocol": protocol, "port": f"serve-{number}-{protocol.lower()}"}]
        for last in (80, 84):
            yield [{"protocol": protocol, "port": 53, "endPort": last}]
    for port in ("serve-81-udp", "serve-7981-udp", 7981):
        yield [{"protocol": "TCP", "port": port}]
    yield [{}, {"port": 80}]
    yield [{}, {"port": "serve-80-tcp"}]
    yield [{}, {"protocol": "UDP"}]
    yield [{"port": 80}, {"port": 81}]
    yield [{"port": 80}, {"port": "serve-81-tcp"}]
    yield [{"port": 80}, {"protocol": "UDP", "port": "serve-81-udp"}]
    yield [{"protocol": "UDP", "port": 80}, {"protocol": "UDP", "port": "serve-81-udp"}]


def single_peers(pod_ip: str) -> list[Json]:
    pods, namespaces = (None, {}, C), (None, {}, NS_X)
    selectors = [
        {
            key: value
            for key, value in (("podSelector", pod), ("namespaceSelector", namespace))
            if value is not None
        }
        for namespace, pod in itertools.product(namespaces, pods)
        if namespace is not None or pod is not None
    ]
    bits = 128 if ":" in pod_ip else 32
    wide, narrow = f"{pod_ip}/{bits - 8}", f"{pod_ip}/{bits - 4}"
    return [*selectors, {"ipBlock": {"cidr": wide}}, {"ipBlock": {"cidr": wide, "except": [narrow]}}]


def varied(pod_ip: str) -> Iterator[tuple[str, NetworkPolicy]]:
    for namespace in ("x", "y", "z"):
        yield f"subject in {namespace}", Base(namespace=namespace).policy()
    for selector in ({}, A, AB):
        yield f"subject {selector}", Base(selector=selector).policy()
    singles = single_peers(pod_ip)
    peers = [[], *([peer] for peer in singles), *(list(pair) for pair in itertools.combinations(singles, 2))]
    peers.append([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}])
    for direction in ("ingress", "egress"):
        for rules in ([], [{}]):
            yield f"{direction} rules {rules}", replace(Base(), **{direction: rules}).policy()
        for item in peers:
            yield f"{direction} peers {item}", replace(Base(), **{f"{direction}_peers": item}).policy()
        for item in port_lists():
            yield f"{direction} ports {item}", replace(Base(), **{f"{direction}_ports": item}).policy()


ALL_PODS: Json = {"namespaceSelector": {}}
NO_PODS: Json = {"namespaceSelector": {"matchLabels": {"this-will-never-happen": "qrs123"}}}
RULES: dict[str, list[Json]] = {
    "nothing": [],
    "everything": [{}],
    "all pods": [{"peers": [ALL_PODS]}],
    "no pods": [{"peers": [NO_PODS]}],
    "all addresses": [{"peers": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
    "no addresses": [{"peers": [{"ipBlock": {"cidr": "0.0.0.0/31"}}]}],
}


def conflict_policy(name: str, namespace: str, pod: str, direction: str, rules: str) -> NetworkPolicy:
    field_name = {"ingress": "from", "egress": "to"}[direction]
    written = [
        {field_name if key == "peers" else key: value for key, value in rule.items()} for rule in RULES[rules]
    ]
    given = {"ingress": None, "egress": None, direction: written}
    return make(name, namespace, {"matchLabels": {"pod": pod}}, given["ingress"], given["egress"])


def conflicts() -> Iterator[tuple[str, list[NetworkPolicy]]]:
    source, destination = ("x", "b"), ("y", "c")
    for first, second in (("nothing", "everything"), ("everything", "nothing")):
        yield (
            f"{first} out of the source, {second} into the destination",
            [
                conflict_policy("source", *source, "egress", first),
                conflict_policy("destination", *destination, "ingress", second),
            ],
        )
    pairs = (
        ("nothing", "everything"),
        ("nothing", "all pods"),
        ("nothing", "all addresses"),
        ("no addresses", "all pods"),
        ("no pods", "all addresses"),
    )
    for direction, subject in itertools.product(("ingress", "egress"), (source, destination)):
        for pair in pairs:
            yield (
                f"{direction}: {pair[0]} and {pair[1]}",
                [
                    conflict_policy(f"p{index}", *subject, direction, rules)
                    for index, rules in enumerate(pair)
                ],
            )
        for rules in ("no addresses", "no pods"):
            yield f"{direction}: {rules}", [conflict_policy("p", *subject, direction, rules)]


def changes() -> Iterator[tuple[str, list[list[Event]]]]:
    """Cases in several steps: objects that come, change and go under a policy."""
    base = Base().policy()
    yield "a policy comes and goes", [[("policy", base)], [("unpolicy", base)]]
    other = Base(ingress_ports=[{"protocol": "UDP", "port": "serve-81-udp"}]).policy()
    yield "a policy changes", [[("policy", base)], [("policy", other)]]
    yield (
        "a namespace comes and goes",
        [
            [("policy", base)],
            [("namespace", "y-2", {"ns": "y"}), ("pod", "y-2", "a"), ("pod", "y-2", "b")],
            [("namespace_gone", "y-2")],
        ],
    )
    by_ns = Base(ingress_peers=[{"namespaceSelector": {"matchLabels": {"new-ns": "qrs"}}}]).policy()
    yield (
        "a namespace's labels come and go",
        [
            [("policy", by_ns)],
            [("namespace", "y", {"ns": "y", "new-ns": "qrs"})],
            [("namespace", "y", {"ns": "y"})],
        ],
    )
    yield "a pod comes and goes", [[("policy", base)], [("pod", "x", "d")], [("pod_gone", "x", "d")]]
    by_pod = Base(
        ingress_peers=[{"podSelector": {"matchLabels": {"new-label": "abc"}}, "namespaceSelector": NS_YZ}]
    ).policy()
    yield (
        "a pod's labels come and go",
        [
            [("policy", by_pod)],
            [("pod", "y", "b", {"pod": "b", "new-label": "abc"})],
            [("pod", "y", "b", {"pod": "b"})],
        ],
    )
    named = make("named", "x", {}, [{"ports": [{"port": "serve-81-tcp"}]}], None)
    yield (
        "a pod of a new namespace comes and goes under a named port",
        [
            [("policy", named)],
            [("namespace", "w", {"ns": "w"}), ("pod", "w", "a")],
            [("pod_gone", "w", "a")],
            [("namespace_gone", "w")],
        ],
    )


def upstream() -> Iterator[tuple[str, list[list[Event]]]]:
    """What Kubernetes' own e2e suite asks for."""
    yield "default deny of ingress", [[("policy", make("p", "x", {}, [], None))]]
    yield "default deny with DNS", [[("policy", make("p", "x", {}, [], [DNS]))]]
    not_x = {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]}
    from_bc = [{"from": [{"namespaceSelector": not_x, "podSelector": BC}]}]
    yield "pod and namespace selectors", [[("policy", make("p", "x", A, from_bc, None))]]
    stacked = []
    for port in (81, 80):
        rule = {"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": port}]}
        stacked.append([("policy", make(f"allow-{port}", "x", A, [rule], None))])
    yield "stacked policies", stacked
    yield "allow all", [[("policy", make("p", "x", {}, [{}], None))]]
    yield (
        "updated policy",
        [[("policy", make("p", "x", {}, [{}], None))], [("policy", make("p", "x", {}, [], None))]],
    )
    by_ns = [{"from": [{"namespaceSelector": {"matchLabels": {"ns2": "updated"}}}]}]
    yield (
        "updated namespace",
        [[("policy", make("p", "x", A, by_ns, None))], [("namespace", "y", {"ns": "y", "ns2": "updated"})]],
    )
    by_pod = [{"from": [{"podSelector": {"matchLabels": {"pod": "b", "pod2": "updated"}}}]}]
    yield (
        "updated pod",
        [
            [("policy", make("p", "x", A, by_pod, None))],
            [("pod", "x", "b", {"pod": "b", "pod2": "updated"})],
        ],
    )
    isolated = {"matchLabels": {"target": "isolated"}}
    yield (
        "pod that becomes isolated",
        [[("policy", make("p", "x", isolated, [], None))], [("pod", "x", "a", {"target": "isolated"})]],
    )
    egress = [{"ports": [{"port": 80}, {"protocol": "UDP", "port": 53}]}]
    ingress = [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]
    yield "both directions", [[("policy", make("p", "x", A, ingress, egress))]]
    to_ya = [{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": A}]}, DNS]
    from_xa = [{"from": [{"namespaceSelector": NS_X, "podSelector": A}]}]
    yield (
        "egress denied although the server allows it",
        [
            [
                ("policy", make("to-ya", "x", A, None, to_ya)),
                ("policy", make("at-ya", "y", A, from_xa, None)),
                ("policy", make("at-yb", "y", {"matchLabels": {"pod": "b"}}, from_xa, None)),
            ]
        ],
    )
    deny = make("p", "x", {}, [], [])
    yield "policies that are deleted", [[("policy", deny)], [("unpolicy", deny)]]


def cases(pod_ip: str) -> list[tuple[str, list[list[Event]]]]:
    """Every case: its name, and the steps."""
    found: list[tuple[str, list[list[Event]]]] = []
    found += [(name, [[("policy", policy)]]) for name, policy in varied(pod_ip)]
    found += [(name, [[("policy", policy) for policy in policies]]) for name, policies in conflicts()]
    found += changes()
    found += upstream()
    return found
