"""What lists and watches show: consistent pages, selectors, borders of selections, initial events, expired versions."""

import json

import pytest

from unit.apiserver.conftest import WIDGETS, a_widget


def names(answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.body["items"]]


def events(answer) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in answer.raw.splitlines()]
    return [(line["type"], line["object"]["metadata"].get("name", "")) for line in lines]


def test_pages_show_one_state_whatever_is_written_between_them(client, widget):
    for index in range(6):
        widget(f"w{index}")
    first = client.get(f"{WIDGETS}?limit=2").body
    assert first["metadata"]["remainingItemCount"] == 4
    client.delete(f"{WIDGETS}/w3")
    client.patch(f"{WIDGETS}/w4", {"spec": {"size": 50}})
    widget("w22")
    seen, page = list(first["items"]), first
    while token := page["metadata"].get("continue"):
        page = client.get(f"{WIDGETS}?limit=2&continue={token}").body
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        seen += page["items"]
    assert [item["metadata"]["name"] for item in seen] == [f"w{index}" for index in range(6)]
    assert {item["spec"]["size"] for item in seen} == {5}
    assert names(client.get(WIDGETS)) == ["w0", "w1", "w2", "w22", "w4", "w5"]


def test_a_list_at_an_exact_version_shows_that_state(client, widget):
    widget("first")
    then = client.get(WIDGETS).body["metadata"]["resourceVersion"]
    widget("second")
    exact = f"{WIDGETS}?resourceVersion={then}&resourceVersionMatch=Exact"
    assert names(client.get(exact)) == ["first"]
    assert names(client.get(f"{WIDGETS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan")) == [
        "first",
        "second",
    ]
    assert client.get(f"{WIDGETS}?resourceVersionMatch=Exact").status == 422
    assert client.get(f"{WIDGETS}?continue=nonsense").status == 400
    assert client.get(f"{WIDGETS}?limit=-1").status == 400


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("labelSelector=tier%3Dfront", ["a"]),
        ("labelSelector=tier!%3Dfront", ["b", "c", "d"]),
        ("labelSelector=tier+in+(front,back)", ["a", "b"]),
        ("labelSelector=tier+notin+(front,back)", ["c", "d"]),
        ("labelSelector=tier", ["a", "b", "c"]),
        ("labelSelector=!tier", ["d"]),
        ("labelSelector=tier,tier!%3Dfront", ["b", "c"]),
        ("fieldSelector=spec.colour%3Dblue", ["b", "d"]),
        ("fieldSelector=spec.colour!%3Dblue", ["a", "c"]),
        ("fieldSelector=metadata.name%3Dc", ["c"]),
        ("fieldSelector=metadata.namespace%3Dnone", []),
        ("labelSelector=tier&fieldSelector=spec.colour%3Dblue", ["b"]),
    ],
)
def test_a_selector_finds(client, widget, selector, expected):
    widget("a", {"tier": "front"})
    widget("b", {"tier": "back"}, colour="blue")
    widget("c", {"tier": "none"})
    widget("d", None, colour="blue")
    assert names(client.get(f"{WIDGETS}?{selector}")) == expected


@pytest.mark.parametrize(
    "selector", ["labelSelector=a+b", "labelSelector=a%3D%3D%3Db", "fieldSelector=spec.size%3D5"]
)
def test_a_selector_that_is_none_is_refused(client, selector):
    answer = client.get(f"{WIDGETS}?{selector}")
    assert (answer.status, answer.reason) == (400, "BadRequest")


def test_a_watch_with_a_selector_tells_of_its_borders(client, widget):
    widget("in", {"watched": "yes"})
    widget("out", {"watched": "no"})
    begin = client.get(WIDGETS).body["metadata"]["resourceVersion"]
    for value in ("yes", "no", "yes"):
        client.patch(f"{WIDGETS}/out", {"metadata": {"labels": {"watched": value}}})
    client.patch(f"{WIDGETS}/out", {"spec": {"size": 6}})
    client.delete(f"{WIDGETS}/out")
    client.delete(f"{WIDGETS}/in")
    watch = client.get(
        f"{WIDGETS}?watch=1&labelSelector=watched%3Dyes&resourceVersion={begin}&timeoutSeconds=1"
    )
    assert events(watch) == [
        ("ADDED", "out"),
        ("DELETED", "out"),
        ("ADDED", "out"),
        ("MODIFIED", "out"),
        ("DELETED", "out"),
        ("DELETED", "in"),
    ]


def test_a_watch_of_one_object_and_namespace_sees_no_other(client, widget):
    begin = client.get(WIDGETS).body["metadata"]["resourceVersion"]
    widget("mine")
    widget("other")
    one = client.get(
        f"{WIDGETS}?watch=1&fieldSelector=metadata.name%3Dmine&resourceVersion={begin}&timeoutSeconds=1"
    )
    assert events(one) == [("ADDED", "mine")]
    elsewhere = WIDGETS.replace("default", "kube-public")
    assert events(client.get(f"{elsewhere}?watch=1&resourceVersion={begin}&timeoutSeconds=1")) == []


def test_initial_events_end_with_a_bookmark_that_says_so(client, widget):
    widget("there")
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    lines = [json.loads(line) for line in client.get(f"{WIDGETS}?{query}&timeoutSeconds=1").raw.splitlines()]
    assert [line["type"] for line in lines] == ["ADDED", "BOOKMARK"]
    assert lines[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(lines[1]["object"]["metadata"]["resourceVersion"]) >= int(
        lines[0]["object"]["metadata"]["resourceVersion"]
    )


def test_a_table_shows_the_columns_of_the_definition(client, widget):
    widget("shown", colour="blue")
    client.patch(f"{WIDGETS}/shown/status", {"status": {"ready": True}})
    table = client.get(WIDGETS, accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    columns = [(c["name"], c["type"], c["priority"]) for c in table["columnDefinitions"]]
    assert columns == [
        ("Name", "string", 0),
        ("Size", "integer", 0),
        ("Ready", "boolean", 0),
        ("Colour", "string", 1),
        ("Age", "date", 0),
    ]
    assert table["rows"][0]["cells"][:4] == ["shown", 5, True, "blue"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = client.get(
        f"{WIDGETS}?includeObject=Object", accept="application/json;as=Table;v=v1;g=meta.k8s.io"
    ).body
    assert whole["rows"][0]["object"]["spec"]["size"] == 5
    assert client.get(WIDGETS, accept="application/vnd.nope").status == 406


def test_an_object_that_never_was_can_be_made_and_read_in_another_namespace(client):
    elsewhere = WIDGETS.replace("default", "kube-public")
    assert client.post(elsewhere, a_widget("there")).status == 201
    everywhere = client.get("/apis/example.org/v1/widgets")
    assert ("kube-public", "there") in [
        (item["metadata"]["namespace"], item["metadata"]["name"]) for item in everywhere.body["items"]
    ]
    assert client.get(f"{WIDGETS}/there").status == 404
    client.delete(elsewhere)


def test_a_list_at_version_0_is_whole_whatever_its_limit(client, widget):
    for name in ("a", "b", "c"):
        widget(name)
    answer = client.get(f"{WIDGETS}?limit=1&resourceVersion=0").body
    assert [item["metadata"]["name"] for item in answer["items"]] == ["a", "b", "c"]
    assert answer["metadata"]["continue"] == ""
    assert len(client.get(f"{WIDGETS}?limit=1&resourceVersion=1").body["items"]) == 1


@pytest.mark.parametrize(
    ("query", "causes"),
    [
        (
            "resourceVersionMatch=Exact",
            ["resourceVersionMatch is forbidden unless resourceVersion is provided"],
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            ['resourceVersionMatch "exact" is forbidden for resourceVersion "0"'],
        ),
        ("sendInitialEvents=true", ["sendInitialEvents is forbidden for list"]),
        (
            "watch=1&sendInitialEvents=true",
            ["sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"],
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            ["resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"],
        ),
    ],
)
def test_list_options_that_contradict_each_other_are_refused(client, query, causes):
    answer = client.get(f"{WIDGETS}?{query}")
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.body["message"].startswith('ListOptions.meta.k8s.io "" is invalid: ')
    told = [cause["message"] for cause in answer.body["details"]["causes"]]
    assert told == [f"Forbidden: {cause}" for cause in causes]


def test_a_stream_without_initial_events_begins_with_what_comes(client, server, widget):
    widget("before")
    query = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&timeoutSeconds=20"
    other = server.client()
    try:
        stream = other.send("GET", f"{WIDGETS}?{query}")
        widget("after")
        assert json.loads(stream.readline())["object"]["metadata"]["name"] == "after"
    finally:
        other.close()


def test_a_stream_from_a_version_that_does_not_exist_yet_is_told_so(client, widget):
    widget("here")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99999999"
    assert (client.get(f"{WIDGETS}?{query}").status, client.get(WIDGETS).status) == (504, 200)
