"""NetworkPolicies are completed, refused and shown as by a real kube-apiserver."""

import pytest

from fast_playground.apiserver.metadata import _RULE_KEY

_PLACE = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"


def _policy(called="p", **spec):
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": called}}
    return head | {"spec": {"podSelector": {}} | spec}


def _from(**peer):
    return {"ingress": [{"from": [peer]}]}


def _ports(**port):
    return {"egress": [{"ports": [{"port": 1}, port]}]}


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ["Ingress"]),
        ({"ingress": [{}]}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"egress": [{}], "policyTypes": ["Egress"]}, ["Egress"]),
    ],
)
def test_the_policy_types_follow_from_the_rules_where_none_are_given(client, spec, types):
    made = client.post(_PLACE, _policy("typed", **spec)).body
    client.delete(f"{_PLACE}/typed")
    assert made["spec"]["policyTypes"] == types
    assert made["metadata"]["generation"] == 1


def test_a_ports_protocol_is_tcp_where_none_is_given(client):
    made = client.post(_PLACE, _policy("tcp", ingress=[{"ports": [{"port": "http"}]}])).body
    client.delete(f"{_PLACE}/tcp")
    assert made["spec"]["ingress"][0]["ports"] == [{"port": "http", "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (
            _ports(port=90, endPort=80),
            "spec.egress[0].ports[1].endPort",
            "Invalid value: 90: must be greater than or equal to `port`",
        ),
        (
            _ports(endPort=80),
            "spec.egress[0].ports[1].endPort",
            "Invalid value: 80: may not be specified when `port` is not specified",
        ),
        (
            _ports(port="http", endPort=80),
            "spec.egress[0].ports[1].endPort",
            "Invalid value: 80: may not be specified when `port` is non-numeric",
        ),
        (
            _ports(port=0),
            "spec.egress[0].ports[1].port",
            "Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            _ports(port=1, endPort=65536),
            "spec.egress[0].ports[1].endPort",
            "Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            _ports(port="aUP"),
            "spec.egress[0].ports[1].port",
            'Invalid value: "aUP": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
        ),
        (
            _ports(port="a-name-of-seventeen"),
            "spec.egress[0].ports[1].port",
            'Invalid value: "a-name-of-seventeen": must be no more than 15 characters',
        ),
        (
            _ports(port=1, protocol="ICMP"),
            "spec.egress[0].ports[1].protocol",
            'Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
        ),
        (_from(), "spec.ingress[0].from[0]", "Required value: must specify a peer"),
        (
            _from(ipBlock={"cidr": "10.0.0.0/8"}, podSelector={}),
            "spec.ingress[0].from[0]",
            "Forbidden: may not specify both ipBlock and another peer",
        ),
        (
            _from(ipBlock={"cidr": "10.0.0.0"}),
            "spec.ingress[0].from[0].ipBlock.cidr",
            'Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
        ),
        (
            _from(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}),
            "spec.ingress[0].from[0].ipBlock.except[1]",
            'Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
        ),
        (
            _from(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
            'Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
        ),
        (
            _from(ipBlock={"cidr": "10.0.0.0/8", "except": ["fd00::/16"]}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
            'Invalid value: "fd00::/16": must be a strict subset of `cidr`',
        ),
        (
            {"policyTypes": ["Sideways"]},
            "spec.policyTypes",
            'Unsupported value: "Sideways": supported values: "Egress", "Ingress"',
        ),
        (
            _from(podSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            _from(podSelector={"matchExpressions": [{"key": "a b", "operator": "Exists"}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].key",
            f'Invalid value: "a b": {_RULE_KEY}',
        ),
        (
            _from(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "Near"}]}),
            "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].operator",
            'Invalid value: "Near": not a valid selector operator',
        ),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_the_field(client, spec, field, message):
    answer = client.post(_PLACE, _policy("bad", **spec))
    assert (answer.status, answer.reason) == (422, "Invalid")
    causes = {cause["field"]: cause["message"] for cause in answer.body["details"]["causes"]}
    assert causes == {field: message}


def test_an_update_is_checked_like_a_creation(client):
    client.post(_PLACE, _policy("changed"))
    patch = {"spec": _ports(port=9, endPort=8)}
    answer = client.patch(f"{_PLACE}/changed", patch)
    client.delete(f"{_PLACE}/changed")
    assert answer.status == 422


def test_the_table_shows_the_pod_selector(client):
    client.post(_PLACE, _policy("shown", podSelector={"matchLabels": {"app": "a"}}))
    shown = client.get(f"{_PLACE}/shown", accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    client.delete(f"{_PLACE}/shown")
    assert [column["name"] for column in shown["columnDefinitions"]] == ["Name", "Pod-Selector", "Age"]
    assert shown["rows"][0]["cells"][:2] == ["shown", "app=a"]
