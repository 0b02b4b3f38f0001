"""What becomes of objects that are deleted with others: namespaces, owners; and pods that end in their own time."""

import json

from unit.apiserver.conftest import WIDGETS, a_widget, wait_until

_NAMESPACES = "/api/v1/namespaces"
_PODS = f"{_NAMESPACES}/default/pods"


def a_pod(name: str, **spec) -> dict:
    containers = [{"name": "c", "image": "busybox"}]
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    return head | {"spec": {"containers": containers, "schedulerName": "none"} | spec}


def a_config_map(name: str, *owners: dict) -> dict:
    head = {"apiVersion": "v1", "kind": "ConfigMap"}
    references = [
        {"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"]}
        | {"uid": o["metadata"]["uid"], "blockOwnerDeletion": True}
        for o in owners
    ]
    return head | {"metadata": {"name": name, "ownerReferences": references}}


def test_a_deleted_namespace_goes_with_all_it_holds_and_takes_nothing_new(client):
    head = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short"}}
    assert client.post(_NAMESPACES, head).status == 201
    widgets = WIDGETS.replace("default", "short")
    held = a_widget("held")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    assert client.post(widgets, held).status == 201
    assert client.post(f"{_NAMESPACES}/short/configmaps", a_config_map("c")).status == 201
    marked = client.delete(f"{_NAMESPACES}/short").body
    assert marked["status"]["phase"] == "Terminating"
    wait_until(lambda: client.get(f"{_NAMESPACES}/short/configmaps").body["items"] == [])
    refused = client.post(f"{_NAMESPACES}/short/configmaps", a_config_map("d"))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert client.get(f"{_NAMESPACES}/short").status == 200  # what a finalizer holds keeps it
    assert client.patch(f"{widgets}/held", {"metadata": {"finalizers": None}}).status == 200
    wait_until(lambda: client.get(f"{_NAMESPACES}/short").status == 404)
    assert client.post(_NAMESPACES, head).status == 201
    assert client.get(widgets).body["items"] == []
    client.delete(f"{_NAMESPACES}/short")


def test_the_namespaces_of_the_system_stay(client):
    for name in ("default", "kube-system", "kube-public"):
        answer = client.delete(f"{_NAMESPACES}/{name}")
        assert (answer.status, answer.reason) == (403, "Forbidden")


def test_what_is_owned_goes_after_its_last_owner(client, widget):
    maps = f"{_NAMESPACES}/default/configmaps"
    one, two = widget("one"), widget("two")
    assert client.post(maps, a_config_map("owned", one, two)).status == 201
    client.delete(f"{WIDGETS}/one")
    wait_until(lambda: len(client.get(f"{maps}/owned").body["metadata"].get("ownerReferences") or []) == 1)
    client.delete(f"{WIDGETS}/two")
    wait_until(lambda: client.get(f"{maps}/owned").status == 404)


def test_orphans_stay_and_foreground_waits(client, widget):
    maps = f"{_NAMESPACES}/default/configmaps"
    owner = widget("owner")
    assert client.post(maps, a_config_map("orphan", owner)).status == 201
    client.delete(f"{WIDGETS}/owner", {"propagationPolicy": "Orphan"})
    wait_until(lambda: client.get(f"{WIDGETS}/owner").status == 404)
    assert "ownerReferences" not in client.get(f"{maps}/orphan").body["metadata"]
    owner = widget("owner")
    blocker = a_config_map("blocker", owner)
    blocker["metadata"]["finalizers"] = ["example.org/hold"]
    assert client.post(maps, blocker).status == 201
    client.delete(f"{WIDGETS}/owner", {"propagationPolicy": "Foreground"})
    wait_until(lambda: "deletionTimestamp" in client.get(f"{maps}/blocker").body["metadata"])
    assert client.get(f"{WIDGETS}/owner").status == 200
    client.patch(f"{maps}/blocker", {"metadata": {"finalizers": None}})
    wait_until(lambda: client.get(f"{WIDGETS}/owner").status == 404)
    client.delete(f"{maps}/orphan")


def test_a_pod_on_a_node_is_only_marked_until_its_kubelet_confirms(client):
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}}
    assert client.post("/api/v1/nodes", node).status == 201
    begin = client.post(_PODS, a_pod("slow", nodeName="node", terminationGracePeriodSeconds=30)).body
    marked = client.delete(f"{_PODS}/slow").body
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert client.delete(f"{_PODS}/slow", {"gracePeriodSeconds": 60}).body == marked  # never later
    sooner = client.delete(f"{_PODS}/slow", {"gracePeriodSeconds": 5}).body
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 5
    uid = {"preconditions": {"uid": begin["metadata"]["uid"]}}
    assert client.delete(f"{_PODS}/slow", {"gracePeriodSeconds": 0} | uid).status == 200
    assert client.get(f"{_PODS}/slow").status == 404
    version = begin["metadata"]["resourceVersion"]
    query = f"watch=1&resourceVersion={version}&fieldSelector=metadata.name%3Dslow&timeoutSeconds=1"
    lines = [json.loads(line) for line in client.get(f"{_PODS}?{query}").raw.splitlines()]
    assert [line["type"] for line in lines] == ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    client.delete("/api/v1/nodes/node")


def test_a_pod_on_no_node_goes_at_once(client):
    assert client.post(_PODS, a_pod("unbound")).status == 201
    assert client.delete(f"{_PODS}/unbound").body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert client.get(f"{_PODS}/unbound").status == 404


def test_a_pod_is_bound_once(client):
    assert client.post(_PODS, a_pod("bound")).status == 201
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}}
    first = binding | {"target": {"kind": "Node", "name": "n1"}}
    assert client.post(f"{_PODS}/bound/binding", first).status == 201
    assert client.post(f"{_PODS}/bound/binding", first).status == 409
    assert client.get(f"{_PODS}/bound").body["spec"]["nodeName"] == "n1"
    client.delete(f"{_PODS}/bound", {"gracePeriodSeconds": 0})
