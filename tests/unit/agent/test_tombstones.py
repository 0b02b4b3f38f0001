"""DELs on disk, and carrying them out."""

import pytest

from fast.agent.readiness import Readiness
from fast.agent.replay import CONDITION, TombstoneReplay
from fast.agent.tombstones import Tombstones
from fast.cni import CniCall
from fast.errors import NetlinkError

KEY = ("c1", "eth0")
CALL = CniCall({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}, b"{}")


@pytest.fixture
def tombstones(tmp_path):
    return Tombstones(tmp_path / "state" / "tombstones")


def test_there_is_none_before_the_first(tombstones):
    assert list(tombstones.waiting()) == []
    assert tombstones.find(KEY) is None
    tombstones.remove(KEY)


def test_a_call_is_found_as_it_was_left_until_it_is_removed(tombstones):
    tombstones.leave(KEY, CALL)
    assert list(tombstones.waiting()) == [(KEY, CALL)]
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
    ((key, call),) = tombstones.waiting()
    assert key == KEY
    assert call.env["CNI_CONTAINERID"] == "c1"


@pytest.mark.parametrize("name", [".new-17", "no-colon", ":eth0", "c1:"])
def test_files_that_are_none_are_left_alone(tombstones, name):
    tombstones.directory.mkdir(parents=True)
    (tombstones.directory / name).write_bytes(b"x")
    assert list(tombstones.waiting()) == []
    assert (tombstones.directory / name).exists()


@pytest.fixture
def readiness():
    return Readiness(CONDITION)


async def test_the_node_is_ready_once_all_are_carried_out(tombstones, readiness):
    tombstones.leave(KEY, CALL)

    async def delete(key, call):
        assert (key, call) == (KEY, CALL)
        tombstones.remove(key)
        return True

    assert await TombstoneReplay(tombstones, delete, readiness).replay() == 0


@pytest.mark.parametrize("outcome", [False, NetlinkError("refused")])
async def test_one_that_fails_waits_on_and_keeps_no_other_from_being_carried_out(
    tombstones, readiness, outcome
):
    tried = []
    for container_id in ("c1", "c2"):
        tombstones.leave((container_id, "eth0"), CALL)

    async def delete(key, call):
        tried.append(key[0])
        if key == KEY and isinstance(outcome, Exception):
            raise outcome
        return key != KEY

    assert await TombstoneReplay(tombstones, delete, readiness).replay() == 1
    assert tried == ["c1", "c2"]
