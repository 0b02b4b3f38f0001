"""What a write does beyond one request: concurrency, versions, generations, marks, preconditions, patches."""

import threading
import time

import pytest

from unit.apiserver.conftest import WIDGETS, a_widget

_MAPS = "/api/v1/namespaces/default/configmaps"


def version(obj) -> int:
    return int(obj["metadata"]["resourceVersion"])


def test_of_writers_with_the_same_version_one_wins_and_no_increment_is_lost(server, client, widget):
    widget("counted", size=0, least=0)
    conflicts = []

    def count(times: int) -> None:
        own = server.client()
        while times:
            seen = own.get(f"{WIDGETS}/counted").body
            seen["spec"]["size"] += 1
            answer = own.put(f"{WIDGETS}/counted", seen)
            if answer.status == 200:
                times -= 1
            else:
                assert (answer.status, answer.reason) == (409, "Conflict")
                conflicts.append(1)
        own.close()

    threads = [threading.Thread(target=count, args=(8,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert client.get(f"{WIDGETS}/counted").body["spec"]["size"] == 32
    assert client.get(f"{WIDGETS}/counted").body["metadata"]["generation"] == 33


def test_of_many_that_create_the_same_name_one_succeeds(server, client):
    answers = []

    def create() -> None:
        own = server.client()
        answers.append(
            own.post(_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}})
        )
        own.close()

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7
    assert {answer.reason for answer in answers if answer.status == 409} == {"AlreadyExists"}


def test_a_write_that_changes_nothing_keeps_the_version_and_tells_no_watcher(client, widget):
    made = widget("same")
    again = client.put(f"{WIDGETS}/same", made).body
    patched = client.patch(f"{WIDGETS}/same", {"spec": {"size": 5}}).body
    labelled = client.patch(f"{WIDGETS}/same", [], "json-patch+json").body
    assert made == again == patched == labelled
    events = client.get(f"{WIDGETS}?watch=1&resourceVersion={version(made)}&timeoutSeconds=1").raw
    assert events == b""


def test_only_what_is_wanted_counts_as_a_generation(client, widget):
    made = widget("aged")
    assert made["metadata"]["generation"] == 1
    labelled = client.patch(f"{WIDGETS}/aged", {"metadata": {"labels": {"a": "b"}}}).body
    told = client.patch(f"{WIDGETS}/aged/status", {"status": {"size": 3}}).body
    changed = client.patch(f"{WIDGETS}/aged", {"spec": {"size": 6}}).body
    assert [o["metadata"]["generation"] for o in (labelled, told, changed)] == [1, 1, 2]
    assert version(made) < version(labelled) < version(told) < version(changed)


def test_a_client_cannot_set_what_the_server_sets(client, widget):
    made = widget("honest")
    forged = made | {
        "metadata": made["metadata"] | {"generation": 70, "creationTimestamp": "2001-01-01T00:00:00Z"}
    }
    forged["metadata"].pop("uid")
    after = client.put(f"{WIDGETS}/honest", forged).body
    assert after == made
    assert client.put(f"{WIDGETS}/honest", made | {"metadata": made["metadata"] | {"uid": "x"}}).status == 409


def test_a_finalizer_holds_a_deleted_object_until_it_is_taken_away(client, widget):
    widget("held")
    client.patch(f"{WIDGETS}/held", {"metadata": {"finalizers": ["example.org/hold"]}})
    marked = client.delete(f"{WIDGETS}/held").body
    assert marked["metadata"]["deletionTimestamp"]
    assert client.delete(f"{WIDGETS}/held").body == marked
    more = client.patch(
        f"{WIDGETS}/held", {"metadata": {"finalizers": ["example.org/hold", "example.org/new"]}}
    )
    assert (more.status, more.reason) == (422, "Invalid")
    assert client.patch(f"{WIDGETS}/held", {"metadata": {"deletionTimestamp": None}}).body["metadata"][
        "deletionTimestamp"
    ]
    assert client.patch(f"{WIDGETS}/held", {"spec": {"size": 9}}).body["spec"]["size"] == 9
    client.patch(f"{WIDGETS}/held", {"metadata": {"finalizers": None}})
    assert client.get(f"{WIDGETS}/held").status == 404


@pytest.mark.parametrize(
    "wrong", [{"uid": "0"}, {"resourceVersion": "1"}, {"uid": "0", "resourceVersion": "1"}]
)
def test_a_deletion_whose_precondition_fails_is_refused(client, widget, wrong):
    made = widget("guarded")
    right = {key: made["metadata"][key] for key in wrong}
    answer = client.delete(f"{WIDGETS}/guarded", {"preconditions": wrong})
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert client.delete(f"{WIDGETS}/guarded", {"preconditions": right}).status == 200


def test_generated_names_differ(client, widget):
    body = a_widget("x")
    body["metadata"] = {"generateName": "made-"}
    names = {client.post(WIDGETS, body).body["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("made-") and len(name) == len("made-") + 5 for name in names)


def test_a_dry_run_checks_and_stores_nothing(client, widget):
    assert client.post(f"{WIDGETS}?dryRun=All", a_widget("dry")).status == 201
    assert client.get(f"{WIDGETS}/dry").status == 404
    assert client.post(f"{WIDGETS}?dryRun=All", a_widget("dry", size=-1)).status == 422
    made = widget("wet")
    assert client.patch(f"{WIDGETS}/wet?dryRun=All", {"spec": {"size": 7}}).body["spec"]["size"] == 7
    assert client.ask("DELETE", f"{WIDGETS}/wet?dryRun=All").status == 200
    assert client.get(f"{WIDGETS}/wet").body == made
    assert client.post(f"{WIDGETS}?dryRun=Some", a_widget("dry")).status == 400


def test_a_json_patch_is_all_or_nothing(client, widget):
    made = widget("patched", parts=[{"name": "a"}, {"name": "b"}])
    wrong = [{"op": "replace", "path": "/spec/size", "value": 9}, {"op": "remove", "path": "/spec/none"}]
    assert client.patch(f"{WIDGETS}/patched", wrong, "json-patch+json").status == 422
    assert client.get(f"{WIDGETS}/patched").body == made
    right = [
        {"op": "test", "path": "/spec/size", "value": 5},
        {"op": "move", "from": "/spec/parts/0", "path": "/spec/parts/1"},
        {"op": "copy", "from": "/spec/size", "path": "/spec/least"},
        {"op": "add", "path": "/spec/parts/-", "value": {"name": "c", "count": 3}},
        {"op": "add", "path": "/metadata/labels", "value": {"a~b/c": "d"}},
        {"op": "remove", "path": "/metadata/labels/a~0b~1c"},
    ]
    after = client.patch(f"{WIDGETS}/patched", right, "json-patch+json").body["spec"]
    assert [part["name"] for part in after["parts"]] == ["b", "a", "c"]
    assert after["least"] == 5


def test_a_merge_patch_removes_with_null_and_replaces_lists(client, widget):
    widget("merged", {"a": "1", "b": "2"}, parts=[{"name": "a"}], free={"x": {"y": 1, "z": 2}})
    patch = {
        "metadata": {"labels": {"a": None}},
        "spec": {"parts": [{"name": "b"}], "free": {"x": {"y": None}}},
    }
    after = client.patch(f"{WIDGETS}/merged", patch).body
    assert after["metadata"]["labels"] == {"b": "2"}
    assert after["spec"]["parts"] == [{"name": "b", "count": 1}]
    assert after["spec"]["free"] == {"x": {"z": 2}}


def test_a_strategic_merge_patch_merges_lists_by_their_keys(client):
    pods = "/api/v1/namespaces/default/pods"
    spec = {
        "schedulerName": "none",
        "containers": [
            {"name": "a", "image": "one", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]},
            {"name": "b", "image": "two"},
        ],
    }
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "strategic"}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "strategic"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "s"}},
            "template": {"metadata": {"labels": {"app": "s"}}, "spec": spec},
        },
    }
    path = "/apis/apps/v1/namespaces/default/deployments"
    assert client.post(path, deployment).status == 201
    containers = [
        {"name": "a", "env": [{"name": "K", "$patch": "delete"}, {"name": "M", "value": "3"}]},
        {"name": "c", "image": "three"},
    ]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    after = client.patch(f"{path}/strategic", patch, "strategic-merge-patch+json").body
    found = {c["name"]: c for c in after["spec"]["template"]["spec"]["containers"]}
    assert set(found) == {"a", "b", "c"}
    assert found["a"]["image"] == "one"
    assert {e["name"]: e["value"] for e in found["a"]["env"]} == {"L": "2", "M": "3"}
    assert client.post(pods, head | {"spec": spec}).status == 201
    image = {"spec": {"containers": [{"name": "b", "image": "new"}]}}
    assert client.patch(f"{pods}/strategic", image, "strategic-merge-patch+json").status == 200
    refused = client.patch(f"{pods}/strategic", {"spec": {"hostNetwork": True}}, "strategic-merge-patch+json")
    assert (refused.status, refused.reason) == (422, "Invalid")


def test_applying_takes_away_what_the_same_manager_no_longer_wants_and_leaves_others_fields(client, widget):
    def apply(manager: str, spec: dict, *, force: bool = False):
        body = a_widget("applied")
        body["spec"] = spec
        query = f"fieldManager={manager}" + ("&force=true" if force else "")
        return client.patch(f"{WIDGETS}/applied?{query}", body, "apply-patch+yaml")

    assert apply("one", {"size": 5, "name": "abc", "parts": [{"name": "a"}]}).status == 201
    assert apply("two", {"size": 5, "parts": [{"name": "b", "count": 2}]}).status == 200
    conflict = apply("two", {"size": 6})
    assert (conflict.status, conflict.reason) == (409, "Conflict")
    assert [cause["field"] for cause in conflict.body["details"]["causes"]] == [".spec.size"]
    after = apply("one", {"size": 5, "parts": [{"name": "a"}]}).body["spec"]
    assert "name" not in after
    assert [part["name"] for part in after["parts"]] == ["a", "b"]
    assert apply("two", {"size": 6}, force=True).body["spec"]["size"] == 6
    assert client.patch(f"{WIDGETS}/applied", a_widget("applied"), "apply-patch+yaml").status == 400
    client.delete(f"{WIDGETS}/applied")


def test_applying_the_same_again_changes_nothing_whatever_else_its_manager_applied(client, widget):
    def apply(path: str, content: dict) -> dict:
        body = {"apiVersion": "example.org/v1", "kind": "Widget"} | content
        return client.patch(f"{WIDGETS}/{path}?fieldManager=one", body, "apply-patch+yaml").body

    apply("again", {"spec": {"size": 5}})
    before = apply("again/status", {"status": {"size": 5}})
    time.sleep(1.1)  # times are kept in whole seconds
    assert apply("again", {"spec": {"size": 5}})["metadata"] == before["metadata"]
    assert apply("again/status", {"status": {"size": 5}})["metadata"] == before["metadata"]


def test_a_node_may_have_two_internal_addresses(client):
    pair = [{"type": "InternalIP", "address": text} for text in ("192.0.2.1", "fd00::1")]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "dual"}, "status": {"addresses": pair}}
    assert client.post("/api/v1/nodes", node).status == 201
    other = [pair[1], pair[0], {"type": "Hostname", "address": "dual"}]
    patched = client.patch("/api/v1/nodes/dual/status", {"status": {"addresses": other}})
    stored = client.get("/api/v1/nodes/dual").body["status"]["addresses"]
    client.delete("/api/v1/nodes/dual")
    assert (patched.status, stored) == (200, other)


def test_a_selector_with_an_unknown_operator_is_refused(client):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    selector = {"matchExpressions": [{"key": "a", "operator": "Near"}], "matchLabels": {"a": "b"}}
    made = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "near"}}
    made |= {"spec": {"selector": selector, "template": template}}
    answer = client.post("/apis/apps/v1/namespaces/default/replicasets", made)
    fields = [cause["field"] for cause in answer.body["details"]["causes"]]
    assert (answer.status, fields[0]) == (422, "spec.selector.matchExpressions[0].operator")
