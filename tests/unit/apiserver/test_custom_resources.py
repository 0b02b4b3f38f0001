"""What a CustomResourceDefinition makes the server do: defaults, pruning, validation, CEL, subresources, its end."""

import copy
import time

import pytest

from unit.apiserver.conftest import DEFINITIONS, WIDGET_DEFINITION, WIDGETS, a_widget, wait_until


def _version(schema: dict) -> dict:
    schema = {"type": "object", "properties": {"text": {"type": "string"} | schema}}
    return {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}


def causes(answer) -> list[tuple[str, str]]:
    return [(cause["reason"], cause["field"]) for cause in answer.body["details"]["causes"]]


def test_defaults_are_filled_in_and_unknown_fields_pruned(client, widget):
    made = widget("plain", nope=1, parts=[{"name": "a", "nope": 2}], free={"anything": {"goes": True}})
    assert made["spec"] == {
        "size": 5,
        "least": 1,
        "colour": "red",
        "parts": [{"name": "a", "count": 1}],
        "free": {"anything": {"goes": True}},
    }


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"size": None}, "FieldValueRequired", "spec.size"),
        ({"size": "5"}, "FieldValueTypeInvalid", "spec.size"),
        ({"size": 5.5}, "FieldValueTypeInvalid", "spec.size"),
        ({"size": 101}, "FieldValueInvalid", "spec.size"),
        ({"size": -1}, "FieldValueInvalid", "spec.size"),
        ({"colour": "green"}, "FieldValueNotSupported", "spec.colour"),
        ({"name": "ABC"}, "FieldValueInvalid", "spec.name"),
        ({"name": "abcdef"}, "FieldValueTooLong", "spec.name"),
        ({"parts": [{"name": str(i)} for i in range(4)]}, "FieldValueTooMany", "spec.parts"),
        ({"parts": [{"count": 1}]}, "FieldValueRequired", "spec.parts[0].name"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "FieldValueDuplicate", "spec.parts[1]"),
        ({"size": 2, "least": 3}, "FieldValueInvalid", "spec"),
    ],
)
def test_an_object_that_breaks_the_schema_is_refused_naming_the_field(client, spec, reason, field):
    body = a_widget("broken", **spec)
    body["spec"] = {key: value for key, value in body["spec"].items() if value is not None}
    answer = client.post(WIDGETS, body)
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert (reason, field) in causes(answer)


def test_a_rule_may_compare_with_the_state_before(client, widget):
    widget("fixed")
    answer = client.patch(f"{WIDGETS}/fixed", {"spec": {"colour": "blue"}})
    assert answer.status == 422
    assert "colour is immutable" in answer.body["message"]
    assert client.patch(f"{WIDGETS}/fixed", {"spec": {"size": 6}}).status == 200


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"subnet": "10.244.0.1/16", "ips": ["10.244.10.0-10.244.90.0"]}, ""),
        ({"subnet": "10.244.0.1/16", "ips": ["10.244.10.9-10.244.10.0"]}, "spec"),
        ({"subnet": "10.244.0.1/16", "ips": ["10.245.0.1"]}, "spec"),
        ({"subnet": "nonsense"}, "spec.subnet"),
        ({}, "spec.subnet"),
    ],
)
def test_fasts_own_rules_are_those_of_the_shipped_definitions(client, spec, message):
    path = "/apis/sample.fast.io/v1alpha1/ipses"
    body = {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "Ips",
        "metadata": {"name": "ruled"},
        "spec": spec,
    }
    answer = client.post(path, body)
    assert answer.status == (422 if message else 201), answer.raw
    assert message in answer.body.get("message", "")
    client.delete(f"{path}/ruled")


def test_status_and_spec_change_by_their_own_paths_only(client, widget):
    widget("split")
    both = {"spec": {"size": 9}, "status": {"size": 4}}
    assert client.patch(f"{WIDGETS}/split/status", both).body["spec"]["size"] == 5
    after = client.patch(f"{WIDGETS}/split", {"spec": {"size": 8}, "status": {"size": 1}}).body
    assert (after["spec"]["size"], after["status"]["size"]) == (8, 4)
    assert client.patch(f"{WIDGETS}/split/status", {"status": {"size": "many"}}).status == 422


def test_scale_shows_and_sets_the_replicas(client, widget):
    widget("scaled")
    client.patch(f"{WIDGETS}/scaled/status", {"status": {"size": 3, "selector": "a=b"}})
    scale = client.get(f"{WIDGETS}/scaled/scale").body
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 5},
        {"replicas": 3, "selector": "a=b"},
    )
    scale["spec"]["replicas"] = 7
    assert client.put(f"{WIDGETS}/scaled/scale", scale).body["spec"] == {"replicas": 7}
    assert client.get(f"{WIDGETS}/scaled").body["spec"]["size"] == 7
    assert client.put(f"{WIDGETS}/scaled/scale", scale).status == 409
    assert client.patch(f"{WIDGETS}/scaled/scale", {"spec": {"replicas": 101}}).status == 422


def test_a_definition_can_change_and_go_with_all_its_objects(client):
    definition = copy.deepcopy(WIDGET_DEFINITION)
    definition["metadata"]["name"] = "gadgets.example.com"
    spec = definition["spec"]
    spec["group"] = "example.com"
    spec["names"] = {"kind": "Gadget", "plural": "gadgets"}
    path = "/apis/example.com/v1/namespaces/default/gadgets"
    made = client.post(DEFINITIONS, definition)
    assert made.status == 201
    wait_until(lambda: client.get(path).status == 200)
    gadget = a_widget("g") | {"apiVersion": "example.com/v1", "kind": "Gadget"}
    assert client.post(path, gadget).status == 201
    change = {
        "spec": {"versions": [{**spec["versions"][0], "selectableFields": [{"jsonPath": ".spec.size"}]}]}
    }
    assert client.patch(f"{DEFINITIONS}/gadgets.example.com", change).status == 200
    assert len(client.get(f"{path}?fieldSelector=spec.size%3D5").body["items"]) == 1
    watch = client.get("/apis").body
    assert "example.com" in [group["name"] for group in watch["groups"]]
    assert client.delete(f"{DEFINITIONS}/gadgets.example.com").status == 200
    wait_until(lambda: client.get(path).status == 404)
    assert client.post(DEFINITIONS, definition).status == 201
    wait_until(lambda: client.get(path).status == 200)
    assert client.get(path).body["items"] == []
    client.delete(f"{DEFINITIONS}/gadgets.example.com")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"name": "wrong.example.net"}},
        {"spec": {"versions": []}},
        {"spec": {"scope": "Everywhere"}},
        {"spec": {"names": {"kind": "", "plural": "things"}}},
        {"spec": {"versions": [_version({"pattern": "["})]}},
        {"spec": {"versions": [_version({"x-kubernetes-validations": [{"rule": "self =="}]})]}},
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(client, change):
    definition = copy.deepcopy(WIDGET_DEFINITION)
    definition["metadata"]["name"] = "things.example.net"
    definition["spec"] |= {"group": "example.net", "names": {"kind": "Thing", "plural": "things"}}
    for part, values in change.items():
        definition[part] |= values
    answer = client.post(DEFINITIONS, definition)
    assert (answer.status, answer.reason) == (422, "Invalid")


@pytest.mark.parametrize("how", ["a finalizer", "foreground deletion", "deletion of a collection"])
def test_a_definition_that_is_held_for_a_while_takes_its_objects_and_watches_along(client, server, how):
    definition = copy.deepcopy(WIDGET_DEFINITION)
    definition["metadata"] = {"name": "doodads.example.com", "labels": {"this": "one"}}
    definition["spec"] |= {"group": "example.com", "names": {"kind": "Doodad", "plural": "doodads"}}
    path, own = "/apis/example.com/v1/namespaces/default/doodads", f"{DEFINITIONS}/doodads.example.com"
    if how == "a finalizer":
        definition["metadata"]["finalizers"] = ["example.com/wait"]
    assert client.post(DEFINITIONS, definition).status == 201
    wait_until(lambda: client.get(path).status == 200)
    assert client.post(path, a_widget("d") | {"apiVersion": "example.com/v1", "kind": "Doodad"}).status == 201
    watcher = server.client()
    watch = watcher.send("GET", f"{path}?watch=1&timeoutSeconds=20")
    assert b"ADDED" in watch.readline()
    begun = time.monotonic()
    if how == "deletion of a collection":
        assert client.delete(f"{DEFINITIONS}?labelSelector=this%3Done").status == 200
    else:
        client.delete(own, {"propagationPolicy": "Foreground"} if how == "foreground deletion" else None)
    if how == "a finalizer":
        assert client.get(path).status == 200
        client.patch(own, {"metadata": {"finalizers": None}})
    wait_until(lambda: client.get(path).status == 404)
    assert b"DELETED" in watch.read()
    assert time.monotonic() - begun < 15, "the watch went on"
    watcher.close()
    assert client.post(DEFINITIONS, definition | {"metadata": {"name": "doodads.example.com"}}).status == 201
    wait_until(lambda: client.get(path).status == 200)
    assert client.get(path).body["items"] == []
    client.delete(own)


def test_the_end_of_a_text_is_no_line_break_to_a_pattern(client):
    answer = client.post(WIDGETS, a_widget("broken", name="ab\n"))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert "should match '^[a-z]+$'" in answer.body["message"]
