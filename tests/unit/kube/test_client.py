"""The client's verbs: what is sent, and what each answer becomes."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest

from fakes.nasty_server import COLLECTION, Seen, endpoint, nasty_server, status
from fast.api.core import Pod
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import IPENDPOINTS, LEASES, PODS
from fast.errors import Conflict, Expired, Invalid, NotFound, Throttled, Unauthorized, Unavailable
from fast.kube import ClusterConfig, KubeClient
from fast.kube.credentials import Grant


@asynccontextmanager
async def client_of(nasty, **options):
    async with KubeClient(ClusterConfig(nasty.url), **options) as client:
        yield client


def claim(name: str = "10.0.0.1") -> IpEndpoint:
    return IpEndpoint(metadata=ObjectMeta(name=name), spec=IpEndpointSpec(pool="p"))


def refuse(code: int, reason: str, headers: dict[str, str] | None = None):
    return lambda _: (code, status(code, reason), headers or {})


async def test_get_reads_one_object():
    async with nasty_server() as nasty, client_of(nasty) as client:
        found = await client.get(IPENDPOINTS, "a")
    assert (found.metadata.name, found.metadata.uid, found.spec.pool) == ("a", "uid-a", "p")


async def test_get_of_nothing_is_not_found_and_says_of_what():
    async with nasty_server() as nasty, client_of(nasty) as client:
        with pytest.raises(NotFound, match="get ipendpoints nothing: "):
            await client.get(IPENDPOINTS, "nothing")


async def test_create_posts_the_object_and_gives_the_servers():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = lambda _: (201, endpoint("10.0.0.1", 12))
        created = await client.create(IPENDPOINTS, claim())
    (seen,) = nasty.seen
    assert (seen.method, seen.path) == ("POST", COLLECTION)
    assert json.loads(seen.body) == {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "IpEndpoint",
        "metadata": {"name": "10.0.0.1"},
        "spec": {"pool": "p"},
    }
    assert created.metadata.resource_version == "12"


async def test_a_name_that_is_taken_is_a_conflict_of_that_kind():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = refuse(409, "AlreadyExists")
        with pytest.raises(Conflict) as caught:
            await client.create(IPENDPOINTS, claim())
    assert caught.value.already_exists


async def test_update_puts_to_the_object():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = lambda _: (200, endpoint("10.0.0.1", 12))
        await client.update(IPENDPOINTS, claim())
    assert [(seen.method, seen.path.removeprefix(COLLECTION)) for seen in nasty.seen] == [
        ("PUT", "/10.0.0.1")
    ]


async def test_a_view_is_never_sent_back_whole():
    async with nasty_server() as nasty, client_of(nasty) as client:
        with pytest.raises(TypeError, match="Pod is a view"):
            await client.update(PODS, Pod(metadata=ObjectMeta(name="p", namespace="default")))
    assert nasty.seen == []


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("merge", "application/merge-patch+json"),
        ("strategic", "application/strategic-merge-patch+json"),
        ("json", "application/json-patch+json"),
    ],
)
async def test_each_kind_of_patch_has_its_content_type(kind, content_type):
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = lambda _: (200, {"metadata": {"name": "p"}})
        await client.patch(PODS, "p", {"metadata": {}}, "default", subresource="status", kind=kind)
    (seen,) = nasty.seen
    assert (seen.method, seen.path) == ("PATCH", "/api/v1/namespaces/default/pods/p/status")
    assert seen.headers["content-type"] == content_type


async def test_delete_sends_its_preconditions_and_grace():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = lambda _: (200, {"kind": "Status", "status": "Success"})
        await client.delete(IPENDPOINTS, "a", uid="u", resource_version="7", grace_period_seconds=0)
        await client.delete(IPENDPOINTS, "a")
    first, second = (json.loads(seen.body) for seen in nasty.seen)
    assert first["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    assert first["gracePeriodSeconds"] == 0
    assert second.keys() == {"apiVersion", "kind"}


async def test_a_namespaced_object_needs_its_namespace():
    async with nasty_server() as nasty, client_of(nasty) as client:
        with pytest.raises(ValueError, match="namespace"):
            await client.get(LEASES, "x")


async def test_a_name_from_outside_reaches_no_other_url():
    async with nasty_server() as nasty, client_of(nasty) as client:
        with pytest.raises(NotFound):
            await client.get(IPENDPOINTS, "../pods?x=1")
    assert nasty.seen[0].path == f"{COLLECTION}/..%2Fpods%3Fx%3D1"


async def test_list_follows_its_pages_and_keeps_the_selectors():
    async with nasty_server() as nasty, client_of(nasty) as client:
        tokens = []

        def answer(seen: Seen):
            tokens.append(seen.query.get("continue"))
            assert seen.query["labelSelector"] == "a in (b,c)"
            assert seen.query["limit"] == "2"
            number = len(tokens)
            return 200, nasty.page([endpoint(f"e{number}", number)], "" if number == 3 else f"t{number}+/=")

        nasty.answer = answer
        listed = await client.list(IPENDPOINTS, label_selector="a in (b,c)", limit=2)
    assert tokens == [None, "t1+/=", "t2+/="]
    assert [item.metadata.name for item in listed.items] == ["e1", "e2", "e3"]
    assert listed.resource_version == "10"


async def test_list_begins_anew_where_it_expired_between_pages_and_at_last_asks_for_all_at_once():
    async with nasty_server() as nasty, client_of(nasty) as client:
        asked = []

        def answer(seen: Seen):
            asked.append((seen.query.get("limit"), "continue" in seen.query))
            if "continue" in seen.query:
                return 410, status(410, "Expired")
            more = "token" if "limit" in seen.query else ""
            return 200, nasty.page([endpoint(f"e{len(asked)}", 1)], more)

        nasty.answer = answer
        listed = await client.list(IPENDPOINTS, limit=2)
    assert asked == [("2", False), ("2", True), ("20", False), ("20", True), (None, False)]
    assert [item.metadata.name for item in listed.items] == ["e5"]


async def test_an_expiry_of_the_first_page_is_raised():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = refuse(410, "Expired")
        with pytest.raises(Expired):
            await client.list(IPENDPOINTS)


async def test_list_tells_objects_that_do_not_fit_beside_the_good_ones():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.put("odd", spec={"pool": 1})
        listed = await client.list(IPENDPOINTS)
    assert [item.metadata.name for item in listed.items] == ["a"]
    assert "int" in listed.undecodable["odd"].error
    assert listed.undecodable["odd"].metadata.uid == "uid-odd"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]"])
async def test_an_answer_that_is_no_list_is_an_error_not_an_empty_list(body):
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = lambda _: (200, body)
        with pytest.raises(Invalid):
            await client.list(IPENDPOINTS)


async def test_an_answer_that_does_not_fit_the_type_is_an_error():
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = lambda _: (200, {"metadata": {}, "spec": {}})
        with pytest.raises(Invalid, match="does not fit IpEndpoint"):
            await client.get(IPENDPOINTS, "a")


async def test_a_throttled_request_is_sent_again_after_the_time_the_server_asks_for():
    async with nasty_server() as nasty, client_of(nasty) as client:
        answers = iter([(429, status(429, "TooManyRequests"), {"Retry-After": "0.2"}), None])
        nasty.answer = lambda _: next(answers)
        began = asyncio.get_running_loop().time()
        await client.get(IPENDPOINTS, "a")
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert len(nasty.seen) == 2


@pytest.mark.parametrize(("retry_after", "tries"), [("0", 4), ("100", 1)])
async def test_waiting_out_a_throttling_server_is_bounded(retry_after, tries):
    async with nasty_server() as nasty, client_of(nasty, retry_seconds=1) as client:
        nasty.answer = refuse(429, "TooManyRequests", {"Retry-After": retry_after})
        with pytest.raises(Throttled) as caught:
            await client.get(IPENDPOINTS, "a")
    assert caught.value.retry_after_seconds == float(retry_after)
    assert len(nasty.seen) == tries


@pytest.mark.parametrize("code", [500, 503, 504, 301])
async def test_a_server_that_cannot_serve_is_unavailable_and_asked_only_once(code):
    async with nasty_server() as nasty, client_of(nasty) as client:
        nasty.answer = refuse(code, "X", {"Location": "/elsewhere"})
        with pytest.raises(Unavailable):
            await client.create(IPENDPOINTS, claim())
    assert len(nasty.seen) == 1


async def test_no_server_is_unavailable():
    async with KubeClient(ClusterConfig("http://127.0.0.1:9")) as client:
        with pytest.raises(Unavailable, match="get ipendpoints a: "):
            await client.get(IPENDPOINTS, "a")


async def test_an_answer_that_never_comes_is_unavailable_after_the_time_limit():
    async with nasty_server() as nasty, client_of(nasty, timeout_seconds=0.2) as client:
        server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
        client.config.server = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable, match="timed out"):
            await client.get(IPENDPOINTS, "a")
        server.close()


class TwoTokens:
    """Credentials whose first token the server no longer takes."""

    def __init__(self) -> None:
        self.token = "old"

    async def grant(self) -> Grant:
        return Grant(f"Bearer {self.token}")

    def refuse(self) -> None:
        self.token = "new"


async def test_a_refused_token_is_replaced_once_and_the_request_sent_again():
    async with nasty_server() as nasty:
        nasty.answer = lambda seen: (
            (401, status(401, "Unauthorized")) if seen.headers["authorization"] == "Bearer old" else None
        )
        async with KubeClient(ClusterConfig(nasty.url, TwoTokens())) as client:
            await client.get(IPENDPOINTS, "a")
            await client.get(IPENDPOINTS, "a")
    assert [seen.headers["authorization"] for seen in nasty.seen] == [
        "Bearer old",
        "Bearer new",
        "Bearer new",
    ]


async def test_a_request_refused_with_fresh_credentials_too_is_unauthorized():
    async with nasty_server() as nasty, KubeClient(ClusterConfig(nasty.url, TwoTokens())) as client:
        nasty.answer = refuse(401, "Unauthorized")
        with pytest.raises(Unauthorized):
            await client.get(IPENDPOINTS, "a")
    assert len(nasty.seen) == 2


async def test_requests_share_one_kept_connection():
    async with nasty_server() as nasty, client_of(nasty) as client:
        for _ in range(5):
            await client.get(IPENDPOINTS, "a")
        with pytest.raises(NotFound):
            await client.get(IPENDPOINTS, "nothing")
        await client.get(IPENDPOINTS, "a")
    assert nasty.connections == 1


async def test_a_read_is_sent_again_where_the_kept_connection_was_closed_meanwhile():
    async with nasty_server() as nasty, client_of(nasty) as client:
        await client.get(IPENDPOINTS, "a")
        nasty.cut()
        assert (await client.get(IPENDPOINTS, "a")).metadata.name == "a"


async def test_after_close_the_client_can_be_closed_again():
    async with nasty_server() as nasty, client_of(nasty) as client:
        await client.get(IPENDPOINTS, "a")
        await client.close()
        await client.close()


async def test_the_server_is_told_who_asks():
    async with nasty_server() as nasty, client_of(nasty, user_agent="fast-agent") as client:
        await client.get(IPENDPOINTS, "a")
    assert nasty.seen[0].headers["user-agent"].startswith("fast-agent/")


async def test_what_the_server_adds_to_a_type_does_not_matter():
    async with nasty_server() as nasty, client_of(nasty) as client:
        more = endpoint("a", 1)
        more["metadata"]["managedFields"] = [{"manager": "kubectl"}]
        more["later"] = {"x": 1}
        nasty.answer = lambda _: (200, more)
        found = await client.get(IPENDPOINTS, "a")
    assert msgspec.to_builtins(found)["metadata"] == {"name": "a", "uid": "uid-a", "resourceVersion": "1"}


@pytest.mark.parametrize("ahead", [0, 90, -3600])
async def test_how_far_the_clock_is_ahead_of_the_servers_is_known_from_any_answer(ahead):
    date = format_datetime(datetime.now(UTC) - timedelta(seconds=ahead), usegmt=True)
    async with nasty_server() as nasty, client_of(nasty) as client:
        assert client.clock_ahead_seconds() is None
        nasty.answer = refuse(404, "NotFound", {"Date": date})
        with pytest.raises(NotFound):
            await client.get(IPENDPOINTS, "nothing")
        assert client.clock_ahead_seconds() == pytest.approx(ahead, abs=2)
        nasty.answer = refuse(404, "NotFound", {"Date": "yesterday"})
        with pytest.raises(NotFound):
            await client.get(IPENDPOINTS, "nothing")
        assert client.clock_ahead_seconds() is None
