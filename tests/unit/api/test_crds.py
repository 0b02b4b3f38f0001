"""The CustomResourceDefinitions say what the types and the design say, and their rules refuse what they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fast.api import crds
from fast.api.ips import IpsSpec, pool_addresses
from fast.api.openapi import object_schema
from fast.api.resources import IPENDPOINTS, IPSES
from fast.errors import InvalidRange
from fast_playground.apiserver.rules import Rule

ROOT = Path(__file__).parents[3]


def schema(crd: dict[str, Any]) -> dict[str, Any]:
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("name", crds.manifests())
def test_the_file_in_deploy_is_what_the_types_say(name):
    assert (ROOT / "deploy" / "crds" / name).read_text() == crds.to_yaml(crds.manifests()[name])


def test_no_file_in_deploy_is_left_over():
    assert {path.name for path in (ROOT / "deploy" / "crds").glob("*.yaml")} == set(crds.manifests())


def test_kubectl_get_ips_and_get_ipe_work_by_singular_and_short_name():
    names = crds.ips_crd()["spec"]["names"]
    assert (names["plural"], names["singular"]) == ("ipses", "ips")
    assert crds.ipendpoint_crd()["spec"]["names"]["shortNames"] == ["ipe"]
    assert crds.fastnode_crd()["spec"]["names"]["shortNames"] == ["fn"]


def test_columns_are_those_of_the_design():
    def columns(crd: dict[str, Any]) -> list[str]:
        shown = crd["spec"]["versions"][0]["additionalPrinterColumns"]
        return [column["name"].upper() for column in shown if not column.get("priority")]

    assert columns(crds.ips_crd()) == ["SUBNET", "TOTAL", "ALLOCATED", "FREE", "READY", "REASON", "AGE"]
    assert columns(crds.ipendpoint_crd()) == ["POOL", "POD", "NODE", "AGE"]
    assert columns(crds.fastnode_crd()) == ["READY", "ADDRESS", "PODS", "VERSION", "PROBLEMS", "AGE"]


def test_endpoints_can_be_selected_by_node_and_pool():
    fields = crds.ipendpoint_crd()["spec"]["versions"][0]["selectableFields"]
    assert [field["jsonPath"] for field in fields] == [".spec.node", ".spec.pool"]


def test_the_release_delay_has_the_types_default():
    spec = schema(crds.ips_crd())["properties"]["spec"]["properties"]
    assert spec["releaseDelaySeconds"]["default"] == IpsSpec(subnet="10.0.0.0/24").release_delay_seconds == 30


@pytest.mark.parametrize("resource", [IPSES, IPENDPOINTS], ids=lambda resource: resource.kind)
def test_an_annotation_of_a_field_that_does_not_exist_is_refused(resource):
    annotations = {IPSES: crds._IPS, IPENDPOINTS: crds._IPENDPOINT}[resource]
    with pytest.raises(ValueError, match=r"has no spec\.nothing"):
        object_schema(resource.type, {**annotations, "spec.nothing": {}})


def test_a_field_without_a_description_is_refused():
    with pytest.raises(ValueError, match="has no description"):
        object_schema(IPSES.type, {})


@pytest.mark.parametrize(
    "crd",
    [crds.ips_crd(), crds.ipendpoint_crd(), crds.fastnode_crd()],
    ids=lambda crd: crd["metadata"]["name"],
)
def test_every_text_that_a_rule_reads_has_a_greatest_length(crd):
    def check(node: dict[str, Any], path: str) -> None:
        if "x-kubernetes-validations" in node and node["type"] == "string":
            assert "maxLength" in node, path
        if node.get("type") == "array" and "x-kubernetes-validations" in node["items"]:
            assert "maxItems" in node, path
        for name, child in node.get("properties", {}).items():
            check(child, f"{path}.{name}")
        if "items" in node:
            check(node["items"], f"{path}[]")

    check(schema(crd), "")


def refusals(spec: dict[str, Any], crd: dict[str, Any] | None = None) -> list[str]:
    """The messages of every rule of the definition that the spec breaks."""
    found = []
    node = schema(crd or crds.ips_crd())["properties"]["spec"]

    def check(node: dict[str, Any], value: Any, path: str) -> None:
        for rule in node.get("x-kubernetes-validations", []):
            error = Rule(rule).check(value, path, None)
            if error is not None:
                found.append(f"{path}{rule.get('fieldPath', '')}: {rule['message']}")
        for name, child in node.get("properties", {}).items():
            if name in value:
                check(child, value[name], f"{path}.{name}")
        for index, item in enumerate(value if "items" in node else []):
            check(node["items"], item, f"{path}[{index}]")

    check(node, spec, "spec")
    return found


GOOD = [
    {"subnet": "10.244.0.1/16", "ips": ["10.244.10.0-10.244.90.0"]},
    {"subnet": "10.244.0.0/16"},
    {"subnet": "10.244.0.0/16", "ips": ["10.244.0.0/16"], "excludeIPs": ["10.244.0.1", "10.244.1.0/24"]},
    {"subnet": "1.0.0.0/8", "ips": ["1.0.0.0-1.255.255.255"]},
    {"subnet": "240.0.0.0/8"},
    {"subnet": "126.0.0.0/8"},
    {"subnet": "169.253.0.0/16"},
    {"subnet": "223.0.0.0/8"},
    {"subnet": "2000::/3"},
    {"subnet": "fc00::/7"},
    {"subnet": "10.0.0.0/8", "ips": ["10.9.255.255-10.10.0.0", "10.0.0.9-10.0.0.10"]},
    {"subnet": "fd00::/64", "ips": ["fd00::1-fd00::ffff", "fd00::1:0/112", "fd00::7"]},
]

BAD = [
    ({"subnet": "10.244.0.0"}, "spec.subnet: must be a subnet"),
    ({"subnet": "10.244.0.0/33"}, "spec.subnet: must be a subnet"),
    ({"subnet": "garbage"}, "spec.subnet: must be a subnet"),
    ({"subnet": "10.0.0.0/24", "ips": ["garbage"]}, "spec.ips[0]: must be an address"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1", "10.0.0"]}, "spec.ips[1]: must be an address"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-"]}, "spec.ips[0]: must be an address"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.0.2-10.0.0.3"]}, "spec.ips[0]: must be an address"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.0.256"]}, "spec.ips[0]: must be an address"),
    ({"subnet": "10.0.0.0/24", "ips": ["fd00::1-10.0.0.1"]}, "spec.ips[0]: a range must not mix"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.9-10.0.0.1"]}, "spec.ips[0]: the range is reversed"),
    ({"subnet": "10.0.0.0/8", "ips": ["10.2.0.1-10.1.255.255"]}, "spec.ips[0]: the range is reversed"),
    (
        {"subnet": "10.0.0.0/24", "excludeIPs": ["10.0.0.9-10.0.0.8"]},
        "spec.excludeIPs[0]: the range is reversed",
    ),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.1.1"]}, "spec.ips: ips must be inside"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.1.1"]}, "spec.ips: ips must be inside"),
    ({"subnet": "10.0.0.0/24", "ips": ["10.0.0.0/23"]}, "spec.ips: ips must be inside"),
    ({"subnet": "10.0.0.0/24", "ips": ["fd00::1"]}, "spec.ips: ips must be inside"),
    ({"subnet": "10.0.0.0/24", "excludeIPs": ["10.0.1.0/28"]}, "spec.excludeIPs: excludeIPs must be inside"),
]


@pytest.mark.parametrize("spec", GOOD, ids=str)
def test_a_good_pool_breaks_no_rule(spec):
    assert refusals(spec) == []


@pytest.mark.parametrize(("spec", "refusal"), BAD, ids=str)
def test_a_bad_pool_breaks_exactly_the_rule_that_says_why(spec, refusal):
    # a range that mixes families is inside no subnet, too
    found = [item for item in refusals(spec) if "mix" not in refusal or "inside" not in item]
    assert len(found) == 1
    assert found[0].startswith(refusal)


@pytest.mark.parametrize("spec", [spec for spec, _ in BAD], ids=str)
def test_what_the_rules_refuse_the_types_refuse_too(spec):
    with pytest.raises(InvalidRange):
        pool_addresses(
            IpsSpec(subnet=spec["subnet"], ips=spec.get("ips", ()), exclude_ips=spec.get("excludeIPs", ()))
        )


NAMES = {
    "10.244.10.0": True,
    "fd00-0000-0000-0000-0000-0000-0000-0001": True,
    "10.244.10": False,
    "10.244.10.256": False,
    "10-244-10-0": False,
    "fd00--1": False,
    "busybox": False,
    "1111-2222-3333-4444-5555-6666-10.0.0.10": False,
}


@pytest.mark.parametrize(("name", "good"), NAMES.items())
def test_an_endpoint_is_named_as_an_address_is_spelled(name, good):
    (rule,) = schema(crds.ipendpoint_crd())["x-kubernetes-validations"]
    error = Rule(rule).check({"metadata": {"name": name}, "spec": {"pool": "p"}}, "", None)
    assert (error is None) is good


#: Networks that no pod can use, alone, inside and around the special ones.
@pytest.mark.parametrize(
    "subnet",
    [
        *(
            "0.0.0.0/0",
            "0.0.0.0/8",
            "0.1.0.0/16",
            "127.0.0.0/8",
            "127.0.0.1/32",
            "126.0.0.0/7",
            "169.254.0.0/16",
        ),
        *(
            "169.254.169.254/32",
            "168.0.0.0/6",
            "224.0.0.0/4",
            "239.255.0.0/24",
            "240.0.0.0/4",
            "255.255.255.0/24",
        ),
        *("::/0", "::/127", "::1/128", "fe80::/64", "fe00::/8", "ff05::/64", "::/80"),
    ],
)
def test_a_pool_that_overlaps_addresses_no_pod_can_have_is_refused(subnet):
    assert any("must not overlap" in text for text in refusals({"subnet": subnet}))


def test_an_ipv4_mapped_pool_is_refused():
    assert refusals({"subnet": "::ffff:10.0.0.0/112"})


def test_a_node_has_at_most_one_address_of_each_family_and_none_of_special_use():
    node = crds.fastnode_crd()
    assert refusals({"addresses": ["192.168.77.1", "fd77::1"]}, node) == []
    for text in (
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "ff02::1",
    ):
        assert any("must not be" in refusal for refusal in refusals({"addresses": [text]}, node)), text
    assert any("must be an IP" in refusal for refusal in refusals({"addresses": ["node-1"]}, node))
    assert schema(node)["properties"]["spec"]["properties"]["addresses"]["maxItems"] == 2


def in_use(subnet: str, allocated: int | None) -> dict[str, Any]:
    status = {} if allocated is None else {"status": {"allocatedIPCount": allocated}}
    return {"metadata": {"name": "a"}, "spec": {"subnet": subnet}, **status}


@pytest.mark.parametrize(
    ("before", "after", "allocated", "refused"),
    [
        ("10.244.0.0/16", "10.99.0.0/16", 3, True),
        ("10.244.0.0/16", "10.244.1.0/24", 1, True),
        ("10.244.0.1/16", "10.244.0.0/16", 3, False),
        ("10.244.0.1/16", "10.0.0.0/8", 3, False),
        ("10.244.0.0/16", "fd00::/64", 3, True),
        ("fd00::1/64", "fd00::/48", 3, False),
        ("10.244.0.0/16", "10.99.0.0/16", 0, False),
        ("10.244.0.0/16", "10.99.0.0/16", None, False),
        ("10.244.0.0/16", "10.244.0.0/16", 3, False),
    ],
)
def test_the_subnet_of_a_pool_in_use_may_only_grow(before, after, allocated, refused):
    (spec,) = schema(crds.ips_crd())["x-kubernetes-validations"]
    found = Rule(spec).check(in_use(after, allocated), "", in_use(before, allocated))
    assert bool(found) is refused
    if refused:
        assert f"{allocated} are held; kubectl get ipe --field-selector spec.pool=a lists them" in str(found)
