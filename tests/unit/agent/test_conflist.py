"""What the container runtime finds."""

import errno
import json

import pytest

from fast.agent.cni.conflist import (
    CONFLIST,
    conflist,
    ensure_installed,
    install_conflist,
    install_plugin,
    uninstall,
)
from fast.agent.readiness import Readiness
from fast.errors import InvalidConfig


def plugins(binary_dir):
    return [item["type"] for item in json.loads(conflist(binary_dir))["plugins"]]


def test_fast_is_first_and_reference_plugins_stand_behind_it_where_the_node_has_them(tmp_path):
    assert plugins(tmp_path) == ["fast-cni"]
    (tmp_path / "bandwidth").touch()
    assert plugins(tmp_path) == ["fast-cni", "bandwidth"]
    (tmp_path / "portmap").touch()
    assert plugins(tmp_path) == ["fast-cni", "portmap", "bandwidth"]


def test_a_runtime_that_knows_nothing_newer_reads_a_list_in_1_0_0(tmp_path):
    written = json.loads(conflist(tmp_path))
    assert written["cniVersion"] == "1.0.0"
    assert "1.1.0" in written["cniVersions"]


def test_the_plugin_is_installed_executable_and_replaced_by_rename(tmp_path):
    source, target = tmp_path / "source", tmp_path / "bin" / "fast-cni"
    source.write_bytes(b"old")
    install_plugin(source, target.parent)
    running = target.open("rb")
    source.write_bytes(b"new")
    install_plugin(source, target.parent)
    with running:
        assert running.read() == b"old"
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["fast-cni"]


def test_a_plugin_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidConfig, match="nowhere"):
        install_plugin(tmp_path / "nowhere", tmp_path)


def test_an_uninstallation_removes_both_and_may_come_twice(tmp_path):
    (tmp_path / "fast-cni").touch()
    install_conflist(tmp_path, tmp_path / "net.d")
    assert [path.name for path in uninstall(tmp_path, tmp_path / "net.d")] == [CONFLIST, "fast-cni"]
    assert uninstall(tmp_path, tmp_path / "net.d") == []


async def test_a_directory_that_cannot_be_written_keeps_the_node_unready_until_it_can(tmp_path):
    readiness, refusals = Readiness(), [OSError(errno.EROFS, "Read-only file system", "/opt/cni/bin")]
    said = []

    def install():
        if refusals:
            raise refusals.pop()
        said.append(readiness.unmet().reason)

    await ensure_installed(install, readiness, retry_seconds=0.001)
    assert said == ["installation: [Errno 30] Read-only file system: '/opt/cni/bin'"]
    assert readiness.unmet() is None
