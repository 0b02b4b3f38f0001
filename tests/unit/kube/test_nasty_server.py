"""The nasty server's contract: apart from its faults it answers as an API server does."""

from __future__ import annotations

import json

import aiohttp

from fakes.nasty_server import COLLECTION, Fault, nasty_server


async def test_a_list_shows_objects_and_the_version_of_now():
    async with nasty_server() as nasty, aiohttp.ClientSession(nasty.url) as session:
        nasty.put("b")
        async with session.get(COLLECTION) as answer:
            found = await answer.json()
    assert [item["metadata"]["name"] for item in found["items"]] == ["a", "b"]
    assert found["metadata"]["resourceVersion"] == "11"


async def test_a_watch_tells_what_happened_since_its_version_and_what_happens_then():
    async with nasty_server() as nasty, aiohttp.ClientSession(nasty.url) as session:
        nasty.put("before")
        nasty.put("b")
        async with session.get(COLLECTION, params={"watch": "true", "resourceVersion": "11"}) as answer:
            first = json.loads(await answer.content.readline())
            nasty.remove("b")
            second = json.loads(await answer.content.readline())
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "b")
    assert (second["type"], second["object"]["metadata"]["resourceVersion"]) == ("DELETED", "13")


async def test_watches_play_the_script_and_then_its_last_fault_for_ever():
    async with (
        nasty_server(Fault.INTERNAL_ERROR, Fault.EXPIRED_STATUS) as nasty,
        aiohttp.ClientSession(nasty.url) as session,
    ):
        statuses = []
        for _ in range(3):
            async with session.get(COLLECTION, params={"watch": "true", "resourceVersion": "1"}) as answer:
                statuses.append(answer.status)
    assert statuses == [500, 410, 410]


async def test_an_object_that_is_not_there_is_a_404_with_a_status_body():
    async with (
        nasty_server() as nasty,
        aiohttp.ClientSession(nasty.url) as session,
        session.get(f"{COLLECTION}/x") as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["reason"] == "NotFound"
