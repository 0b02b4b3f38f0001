"""A definition in the manner of ClusterNetworkPolicy is enforced like any other: unions, ranges, CIDRs."""

import pytest

from unit.apiserver.conftest import DEFINITIONS, wait_until

_PLACE = "/apis/policy.example.org/v1alpha2/fencings"
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_RANGE = {
    "type": "object",
    "required": ["start", "end"],
    "properties": {"start": _PORT, "end": _PORT},
    "x-kubernetes-validations": [{"rule": "self.start < self.end", "message": "Start must be less than End"}],
}
_CIDR = {
    "type": "string",
    "maxLength": 43,
    "x-kubernetes-validations": [{"rule": "isCIDR(self)", "message": "not a CIDR"}],
}
_PEER = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "properties": {
        "namespaces": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "networks": {"type": "array", "minItems": 1, "maxItems": 25, "items": _CIDR},
    },
}
_SPEC = {
    "type": "object",
    "required": ["tier", "priority"],
    "properties": {
        "tier": {"type": "string", "enum": ["Admin", "Baseline"]},
        "priority": {"type": "integer", "minimum": 0, "maximum": 1000},
        "to": {"type": "array", "items": _PEER},
        "range": _RANGE,
    },
}


@pytest.fixture(scope="module")
def place(server):
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": _SPEC}}
    version = {"name": "v1alpha2", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Fencing", "plural": "fencings", "singular": "fencing"}
    spec = {"group": "policy.example.org", "scope": "Cluster", "names": names, "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    made = server.client().post(
        DEFINITIONS, head | {"metadata": {"name": "fencings.policy.example.org"}, "spec": spec}
    )
    assert made.status == 201, made.body
    wait_until(lambda: server.client().get(_PLACE).status == 200)
    return _PLACE


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({}, None),
        ({"to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}, {"namespaces": {}}]}, None),
        ({"range": {"start": 1, "end": 2}}, None),
        ({"tier": "Custom"}, "spec.tier"),
        ({"priority": 1001}, "spec.priority"),
        ({"to": [{}]}, "spec.to[0]"),
        ({"to": [{"networks": ["10.0.0.0/8"], "namespaces": {}}]}, "spec.to[0]"),
        ({"to": [{"networks": ["10.0.0.0/8", "10.0.0.1"]}]}, "spec.to[0].networks[1]"),
        ({"to": [{"networks": []}]}, "spec.to[0].networks"),
        ({"range": {"start": 2, "end": 2}}, "spec.range"),
        ({"range": {"start": 0, "end": 2}}, "spec.range.start"),
    ],
)
def test_a_policy_is_checked_by_its_definition(client, place, changed, field):
    spec = {"tier": "Admin", "priority": 1} | changed
    head = {"apiVersion": "policy.example.org/v1alpha2", "kind": "Fencing", "metadata": {"name": "f"}}
    answer = client.post(f"{place}?dryRun=All", head | {"spec": spec})
    causes = [c["field"] for c in answer.body.get("details", {}).get("causes", ())]
    assert (answer.status, causes) == ((422, [field]) if field else (201, []))
