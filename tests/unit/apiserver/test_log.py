"""The log of a resource's changes: what is kept, what is too old, and who is told."""

import pytest

from fast_playground.apiserver import watch
from fast_playground.apiserver.status import ApiError
from fast_playground.apiserver.storage import Record, Store
from fast_playground.apiserver.watch import Event, EventLog, Follower
from unit.apiserver.inprocess import serving

_MAPS = "/api/v1/namespaces/default/configmaps"


def an_event(version: int) -> Event:
    return Event("ADDED", f"k{version}", Record(version, b"{}"), None)


def test_what_is_older_than_the_window_is_expired(monkeypatch):
    monkeypatch.setattr(watch, "KEPT", 8)
    log = EventLog(100)
    for version in range(101, 130):
        log.append(an_event(version))
    assert log.newest == 129
    assert 8 <= len(log.since(log.oldest)) <= 10
    with pytest.raises(ApiError) as caught:
        log.since(log.oldest - 1)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


def test_what_was_before_the_log_is_expired_and_its_beginning_is_not():
    log = EventLog(100)
    assert log.since(100) == []
    with pytest.raises(ApiError):
        log.since(99)


async def test_a_follower_is_told_of_changes_and_of_the_end():
    log = EventLog(0)
    follower = Follower([log])
    log.append(an_event(1))
    log.wake()
    await follower.moved()
    log.close()
    await follower.moved()
    follower.close()
    assert log.watchers == 0


async def test_pages_and_watches_from_before_the_window_are_answered_with_410(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "KEPT", 8)
    async with serving(tmp_path) as inside:
        old = await inside.put_config_map("first", "")
        await inside.put_config_map("second", "")
        page = await inside.open(f"GET {_MAPS}?limit=1 HTTP/1.1\r\nHost: x\r\n")
        token = (await page.until(b'"items"')).split(b'"continue":"')[1].split(b'"')[0].decode()
        for index in range(30):
            await inside.put_config_map(f"more-{index}", "")
        for query in (f"limit=1&continue={token}", f"resourceVersion={old}&resourceVersionMatch=Exact"):
            answer = await inside.open(f"GET {_MAPS}?{query} HTTP/1.1\r\nHost: x\r\n")
            assert b'"reason":"Expired"' in await answer.until(b'"code":410')
        answer = await inside.open(f"GET {_MAPS}?watch=1&resourceVersion={old} HTTP/1.1\r\nHost: x\r\n")
        assert b'"type":"ERROR"' in await answer.until(b'"code":410')


async def test_versions_from_before_a_restart_are_expired_and_new_ones_higher(tmp_path):
    async with serving(tmp_path) as inside:
        old = await inside.put_config_map("first", "")
    store = Store(tmp_path / "data" / "objects.sqlite")
    assert store.version >= int(old)
    store.close()
    async with serving(tmp_path) as inside:
        answer = await inside.open(f"GET {_MAPS}?watch=1&resourceVersion=1 HTTP/1.1\r\nHost: x\r\n")
        assert b'"reason":"Expired"' in await answer.until(b'"code":410')
        assert int(await inside.put_config_map("second", "")) > int(old)
