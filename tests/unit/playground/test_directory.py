"""The directory of a playground: names, lock, settings, removal."""

import pytest

from fast.errors import FastError, InvalidConfig
from fast_playground.cluster import directory
from fast_playground.cluster.directory import Settings, StateDirectory, list_directories


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "BASE", tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("name", ["", "A", "a_b", "../x", "a/b", "-a", "a-", "a" * 33])
def test_a_name_that_could_be_a_path_or_is_no_label_is_refused(name):
    with pytest.raises(InvalidConfig, match="not a valid playground name"):
        StateDirectory(name)


def test_settings_are_read_back_as_they_were_written():
    made = StateDirectory("t")
    made.make()
    assert made.find_settings() is None
    settings = Settings(nodes=3, mtu=9000, agent_args=("--routing", "native"))
    made.write_settings(settings)
    assert made.find_settings() == settings


def test_only_a_playground_whose_up_came_to_its_end_is_marked_up():
    made = StateDirectory("t")
    made.make()
    assert not made.marked_up
    made.mark_up()
    assert made.marked_up


def test_two_playgrounds_have_directories_side_by_side_and_the_last_one_removes_the_base(base):
    one, two = StateDirectory("one"), StateDirectory("two")
    one.make()
    two.make()
    assert list_directories() == {"one", "two"}
    one.remove()
    assert list_directories() == {"two"}
    two.remove()
    assert not base.exists()


def test_removing_what_is_not_there_is_fine():
    StateDirectory("t").remove()


def test_a_second_up_or_down_of_the_same_name_is_refused_while_the_first_works():
    first, second = StateDirectory("t"), StateDirectory("t")
    with (
        first.locked(),
        pytest.raises(FastError, match="another up or down of playground t"),
        second.locked(),
    ):
        pass


def test_the_lock_is_free_again_after_the_directory_was_removed_under_it(base):
    made = StateDirectory("t")
    with made.locked():
        made.remove()
    with made.locked():
        assert made.path.exists()
    made.remove()
    assert not base.exists()
