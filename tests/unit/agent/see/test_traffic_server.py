"""The socket on which the agent tells of the traffic."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from fast.agent.see.event_log import EventLog
from fast.agent.see.traffic_server import TrafficServer
from unit.agent.see.test_event_log import event


@asynccontextmanager
async def served(
    path: Path, log: EventLog, drops: bytes = b"[]"
) -> AsyncIterator[tuple[TrafficServer, aiohttp.ClientSession]]:
    server = TrafficServer(path, log, lambda: drops)
    await server.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            yield server, session
    finally:
        await server.stop()


async def test_events_are_one_json_object_a_line_with_the_kept_drops_first(tmp_path):
    log = EventLog()
    log.add([event(1), event(2)])
    async with served(tmp_path / "t.sock", log) as (_, session), session.get("http://fast/events") as answer:
        lines = (await answer.text()).splitlines()
    assert [json.loads(line)["time"] for line in lines] == ["1", "2"]
    assert json.loads(lines[0])["sizeBytes"] == 60


async def test_a_follower_gets_what_happens_while_it_listens(tmp_path):
    log = EventLog()
    async with (
        served(tmp_path / "t.sock", log) as (_, session),
        session.get("http://fast/events?follow=1&kinds=flow") as answer,
    ):
        await asyncio.sleep(0.05)
        log.add([event(7, "flow")])
        async with asyncio.timeout(5):
            assert json.loads(await answer.content.readline())["time"] == "7"


async def test_a_follower_that_goes_away_is_no_longer_served(tmp_path):
    switched = []
    log = EventLog(switched.append)
    async with served(tmp_path / "t.sock", log) as (_, session):
        async with session.get("http://fast/events?follow=1"):
            await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            while switched != [frozenset({"drop"}), frozenset()]:
                log.add([event(1)])
                await asyncio.sleep(0.01)


async def test_drops_are_answered_as_they_are_given(tmp_path):
    async with (
        served(tmp_path / "t.sock", EventLog(), b'{"a": 1}') as (_, session),
        session.get("http://fast/drops") as answer,
    ):
        assert await answer.json() == {"a": 1}


async def test_only_the_owner_may_open_the_socket_and_it_is_gone_after_the_stop(tmp_path):
    path = tmp_path / "t.sock"
    async with served(path, EventLog()):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_a_socket_that_somebody_removed_is_made_again(tmp_path):
    path = tmp_path / "run" / "t.sock"
    async with served(path, EventLog()) as (server, _):
        assert not await server.ensure_socket()
        path.unlink()
        path.parent.rmdir()
        assert await server.ensure_socket()
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.get("http://fast/drops") as answer,
        ):
            assert answer.status == 200
