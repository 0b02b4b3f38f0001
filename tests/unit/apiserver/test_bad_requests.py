"""Requests that are malformed, too large, too deep, or never end are refused, and the server goes on serving."""

import asyncio
import copy
import socket
import time

import pytest

from fast_playground.apiserver import http_requests, runtime, streaming
from unit.apiserver.conftest import DEFINITIONS, WIDGET_DEFINITION, WIDGETS, a_widget, wait_until
from unit.apiserver.inprocess import serving

_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(autouse=True)
def still_serving(client):
    yield
    client.close()
    assert client.get("/readyz").raw == b"ok"


def test_a_body_of_more_than_3_mib_is_refused(client):
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "big"},
        "data": {"a": "x" * (3 << 20)},
    }
    answer = client.post(_MAPS, body)
    assert (answer.status, answer.reason) == (413, "RequestEntityTooLarge")


def test_nesting_without_end_is_refused(client):
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    assert client.post(WIDGETS, deep).status == 400
    template = {"not": {"type": "object"}}
    for _ in range(100):
        template = {"not": template}
    definition = copy.deepcopy(WIDGET_DEFINITION)
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["deep"] = template
    assert client.post(DEFINITIONS, definition).status in (400, 422)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'"text"', b"\xff\xfe", b'{"a": NaN}', b'{"kind": "Widget"}', b"{}"],
)
def test_a_body_that_is_no_object_of_the_kind_is_refused(client, body):
    answer = client.post(WIDGETS, body)
    assert (answer.status, answer.reason) == (400, "BadRequest")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        {"name": 5},
        {"name": ""},
        {"name": "a" * 254},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "ok", "labels": {"a b": "c"}},
        {"name": "ok", "labels": {"a": 5}},
        {"name": "ok", "labels": []},
        {"generateName": 5},
        {"name": "ok", "annotations": {"a": "x" * 300_000}},
        {"name": "ok", "finalizers": ["not qualified!"]},
        {"name": "ok", "namespace": "other"},
        {"name": "ok", "ownerReferences": [{"name": "half"}]},
    ],
)
def test_metadata_that_make_no_sense_are_refused(client, metadata):
    answer = client.post(WIDGETS, a_widget("x") | {"metadata": metadata})
    assert answer.status in (400, 422), answer.raw
    assert answer.reason in ("BadRequest", "Invalid")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/apis/example.org/v2/widgets", 404),
        ("GET", f"{WIDGETS}/a/b/c/d", 404),
        ("GET", f"{WIDGETS}/a/nope", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/openapi/v3/foo", 404),
        ("GET", "/openapi/v3/api", 404),
        ("GET", "/api/v1/namespaces/%2e%2e/pods/x", 404),
        ("POST", f"{WIDGETS}/name", 405),
        ("PUT", WIDGETS, 405),
        ("PATCH", WIDGETS, 405),
        ("POST", "/version", 405),
        ("GET", f"{WIDGETS}?watch=1&timeoutSeconds=x", 400),
        ("GET", f"{WIDGETS}?limit=99999999999999999999999", 200),
        ("DELETE", f"{WIDGETS}/none?propagationPolicy=Sideways", 404),
    ],
)
def test_a_path_or_query_that_is_none_has_its_answer(client, method, path, status):
    body = a_widget("name") if method in ("POST", "PUT", "PATCH") else None
    assert client.ask(method, path, body).status == status


def test_content_that_is_neither_json_nor_yaml_is_refused(client):
    answer = client.ask("POST", WIDGETS, b"<a/>", kind="text/xml")
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


@pytest.mark.parametrize("kind", ["application/json", "application/strategic-merge-patch+json"])
def test_a_patch_of_an_unknown_kind_is_told_which_kinds_its_object_takes(client, kind):
    answer = client.ask("PATCH", f"{WIDGETS}/x", b"{}", kind=kind)
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")
    assert "merge-patch" in answer.body["message"]
    assert "strategic" not in answer.body["message"]
    assert "strategic" in client.ask("PATCH", f"{_MAPS}/x", b"{}", kind="application/json").body["message"]


def test_yaml_that_means_more_than_it_says_is_refused(client):
    bomb = b"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n"
    assert client.ask("POST", WIDGETS, bomb, kind="application/yaml").status == 400


def test_yaml_that_looks_like_a_time_is_text(client):
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: dated}\ndata: {day: 2026-01-02, 5: five}\n"
    answer = client.ask("POST", _MAPS, text, kind="application/yaml")
    assert answer.status == 201, answer.raw
    assert answer.body["data"] == {"day": "2026-01-02", "5": "five"}
    client.delete(f"{_MAPS}/dated")


@pytest.mark.parametrize("label", [b"null: a", b"[a]: b", b"a: 5", b"a: !!set {b}"])
def test_yaml_that_is_no_json_is_refused(client, label):
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd, labels: {" + label + b"}}\n"
    assert client.ask("POST", _MAPS, text, kind="application/yaml").status == 400


def open_raw(server) -> socket.socket:
    return server.tls.wrap_socket(
        socket.create_connection(("127.0.0.1", server.port)), server_hostname="127.0.0.1"
    )


def test_a_request_that_is_no_http_is_answered_and_hung_up_on(server):
    with open_raw(server) as raw:
        raw.sendall(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert raw.recv(100).split()[1] == b"400"
    with open_raw(server) as raw:
        raw.sendall(b"GET /readyz HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n")
        assert raw.recv(100).split()[1] == b"400"


async def test_a_body_that_never_ends_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(http_requests, "BODY_SECONDS", 0.3)
    async with serving(tmp_path) as inside:
        answer = await inside.raw(
            f"POST {_MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {inside.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
            until=b'"code":408',
        )
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"Timeout"' in answer


async def test_headers_that_never_end_are_hung_up_on(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "_IDLE_SECONDS", 0.3)
    async with serving(tmp_path) as inside:
        connection = await inside.connect()
        connection.writer.write(b"GET /readyz HTTP/1.1\r\nA: b")
        await asyncio.to_thread(wait_until, lambda: inside.connections == 0)


async def test_a_watcher_that_does_not_read_is_cut_off_and_holds_up_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "WRITE_SECONDS", 0.5)
    async with serving(tmp_path) as inside:
        slow = await inside.open(f"GET {_MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n")
        quick = await inside.open(f"GET {_MAPS}?watch=1&labelSelector=a%3Db HTTP/1.1\r\nHost: x\r\n")
        begun = time.monotonic()
        for index in range(40):
            await inside.put_config_map(f"big-{index}", "x" * 500_000)
        await inside.put_config_map("last", "", a="b")
        assert b'"last"' in await quick.until(b'"last"')
        assert time.monotonic() - begun < 20
        await asyncio.to_thread(wait_until, lambda: inside.connections == 1)
        assert b'"big-39"' not in await slow.buffered()


async def test_bookmarks_tell_idle_watchers_the_newest_version(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_BOOKMARK_SECONDS", 0.2)
    async with serving(tmp_path) as inside:
        watch = await inside.open(
            "GET /api/v1/namespaces/default/secrets?watch=1&allowWatchBookmarks=true HTTP/1.1\r\nHost: x\r\n"
        )
        version = await inside.put_config_map("elsewhere", "")
        assert await watch.until(f'"resourceVersion":"{version}"'.encode())
