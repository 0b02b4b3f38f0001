"""DELs on disk, and carrying them out."""

import asyncio
import errno
import os
from contextlib import asynccontextmanager

import pytest
import structlog.testing

from fast.agent.cni.tombstone_replay import CONDITION, DISK_CONDITION, TombstoneReplay
from fast.agent.cni.tombstones import Tombstones
from fast.agent.readiness import Readiness
from fast.cni import CallError, CniCall, Code
from fast.cni.frames import decode_call
from fast.errors import Forbidden, NetlinkError, Unavailable

KEY = ("c1", "eth0")
CALL = CniCall({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}, b"{}")


@pytest.fixture
def tombstones(tmp_path):
    return Tombstones(tmp_path / "state" / "tombstones")


def test_there_is_none_before_the_first(tombstones):
    assert list(tombstones.waiting()) == []
    assert not tombstones.waits(KEY)
    tombstones.remove(KEY)


def test_a_call_waits_as_it_was_left_until_it_is_removed(tombstones):
    tombstones.leave(KEY, CALL)
    assert tombstones.waits(KEY)
    assert list(tombstones.waiting()) == [KEY]
    assert decode_call((tombstones.directory / "c1:eth0").read_bytes()) == CALL
    tombstones.remove(KEY)
    assert list(tombstones.waiting()) == []


def test_the_same_attachment_has_one(tombstones):
    for _ in range(3):
        tombstones.leave(KEY, CALL)
    assert len(list(tombstones.directory.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_one_that_is_damaged_still_says_which_attachment_it_is_for(tombstones, content):
    tombstones.directory.mkdir(parents=True)
    (tombstones.directory / "c1:eth0").write_bytes(content)
    assert list(tombstones.waiting()) == [KEY]


@pytest.mark.parametrize("name", [".new-17", "no-colon", ":eth0", "c1:"])
def test_files_that_are_none_are_left_alone(tombstones, name):
    tombstones.directory.mkdir(parents=True)
    (tombstones.directory / name).write_bytes(b"x")
    assert list(tombstones.waiting()) == []
    assert (tombstones.directory / name).exists()


class Replay:
    """A replay whose DELs fail as the test says."""

    def __init__(self, tombstones):
        self.tombstones, self.readiness = tombstones, Readiness(CONDITION, DISK_CONDITION)
        self.failing, self.tried = {}, []
        self.replay = TombstoneReplay(tombstones, self.carry_out, self.readiness)

    async def carry_out(self, key):
        self.tried.append(key[0])
        if key in self.failing:
            raise self.failing[key]
        self.tombstones.remove(key)

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.replay.run(0.005))
        try:
            yield
        finally:
            assert not task.done(), "it ended"
            task.cancel()

    async def until(self, holds):
        async with asyncio.timeout(10):
            while not holds(self.readiness.unmet()):  # noqa: ASYNC110 -- a condition has no event
                await asyncio.sleep(0.005)


@pytest.fixture
def replay(tombstones):
    for container_id in ("c1", "c2"):
        tombstones.leave((container_id, "eth0"), CALL)
    return Replay(tombstones)


async def test_the_node_is_ready_once_all_are_carried_out(replay):
    replay.failing[KEY] = Unavailable("the API server is away")
    async with replay.running():
        await replay.until(lambda unmet: "the API server is away" in unmet.reason)
        replay.failing.clear()
        await replay.until(lambda unmet: unmet is None)
    assert not list(replay.tombstones.waiting())


@pytest.mark.parametrize("error", [Unavailable("away"), NetlinkError("refused")])
async def test_one_that_fails_waits_on_and_keeps_no_other_from_being_carried_out(replay, error):
    replay.failing[KEY] = error
    await replay.replay.replay()
    assert replay.tried == ["c1", "c2"]
    assert list(replay.tombstones.waiting()) == [KEY]


@pytest.mark.parametrize("error", [NetlinkError("refused"), Forbidden("no right to delete")])
async def test_one_that_is_refused_for_good_is_tried_again_and_keeps_no_pod_from_the_node(replay, error):
    replay.failing[KEY] = error
    async with replay.running():
        await replay.until(lambda unmet: unmet is None and replay.tried.count("c1") > 1)


async def test_a_disk_that_refuses_keeps_the_node_from_being_ready_until_it_does_not(replay):
    replay.failing[KEY] = CallError(Code.IO_FAILURE, "cannot be removed: Read-only file system")
    async with replay.running():
        await replay.until(lambda unmet: "Read-only file system" in unmet.reason)
        replay.failing.clear()
        await replay.until(lambda unmet: unmet is None)


async def test_a_directory_that_cannot_be_read_makes_the_node_unready_for_as_long(replay, monkeypatch):
    def waiting():
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with replay.running():
        await replay.until(lambda unmet: unmet is None)
        with monkeypatch.context() as broken:
            broken.setattr(replay.tombstones, "waiting", waiting)
            await replay.until(lambda unmet: unmet and "tombstones cannot be read: Input" in unmet.reason)
        await replay.until(lambda unmet: unmet is None)


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
async def test_a_disk_on_which_no_del_could_be_kept_is_told_and_adds_are_served(replay, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    async with replay.running():
        await replay.until(lambda unmet: unmet is None)
        monkeypatch.setattr(type(replay.tombstones.directory), "write_bytes", refuse)
        await replay.until(lambda unmet: unmet is not None)
        unmet = replay.readiness.unmet()
        assert f"cannot be written: {os.strerror(error)}" in unmet.reason
        assert unmet.allows_add
        monkeypatch.undo()
        await replay.until(lambda unmet: unmet is None)


def test_the_probe_of_the_disk_leaves_nothing_and_is_no_tombstone(tombstones):
    tombstones.probe()
    assert list(tombstones.directory.iterdir()) == []
    (tombstones.directory / ".probe").touch()  # of an agent that was killed
    assert list(tombstones.waiting()) == []


def test_a_tombstone_that_is_not_there_is_removed_from_a_read_only_disk_without_a_write(
    tombstones, monkeypatch
):
    """unlink(2) says EROFS before it says ENOENT."""
    monkeypatch.setattr(os, "unlink", lambda *_: pytest.fail("unlink was called"))
    tombstones.remove(KEY)


async def test_a_standing_refusal_is_logged_once_and_again_when_its_text_changes(replay):
    replay.failing[KEY] = NetlinkError("refused")
    with structlog.testing.capture_logs() as logged:
        for text in ("refused", "refused", "otherwise", "otherwise"):
            replay.failing[KEY] = NetlinkError(text)
            await replay.replay.replay()
    told = [entry["error"] for entry in logged if entry["event"] == "tombstone not carried out"]
    assert told == ["refused", "otherwise"]
