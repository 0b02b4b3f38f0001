"""What the container runtime finds."""

import json
import shutil
import subprocess

import pytest

from fast.agent.cni.conflist import (
    CONFLIST,
    conflist,
    find_earlier,
    install_conflist,
    install_plugin,
    uninstall,
)
from fast.agent.cni.plugin_versions import PluginVersions
from fast.cni.network_config import SUPPORTED_VERSIONS
from fast.errors import InvalidConfig


def plugins(binary_dir):
    return [item["type"] for item in written(binary_dir)["plugins"]]


def written(binary_dir):
    return json.loads(conflist(PluginVersions(binary_dir)))


def a_plugin(directory, name, *versions, status=0):
    """A plugin that speaks these versions, and answers STATUS."""
    answer = json.dumps({"cniVersion": "1.0.0", "supportedVersions": versions})
    path = directory / name
    path.write_text(
        f"#!/bin/sh\ncat >/dev/null\ncase $CNI_COMMAND in VERSION) echo '{answer}';; STATUS) exit {status};; esac\n"
    )
    path.chmod(0o755)


class Containerd:
    """How containerd 2.1 with libcni 1.3 treats a list.

    It takes the newest version that both know, for every plugin, and from 1.1.0 on calls STATUS on each. One that
    fails keeps the node NotReady.
    """

    KNOWN = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

    def __init__(self, binary_dir):
        self.binary_dir = binary_dir
        self.list = written(binary_dir)
        common = [version for version in self.KNOWN if version in self.list["cniVersions"]]
        self.version = common[-1]

    def call(self, plugin, command):
        config = {"cniVersion": self.version, "name": self.list["name"], **plugin}
        environment = {"CNI_COMMAND": command, "CNI_PATH": str(self.binary_dir)}
        return subprocess.run(
            [self.binary_dir / plugin["type"]],
            env=environment,
            input=json.dumps(config).encode(),
            capture_output=True,
            check=False,
        )

    def behind(self):
        return self.list["plugins"][1:]

    def network_ready(self):
        if self.version < "1.1.0":
            return True
        return all(self.call(plugin, "STATUS").returncode == 0 for plugin in self.behind())


@pytest.mark.parametrize("names", [(), ("portmap",), ("bandwidth",), ("portmap", "bandwidth")], ids=str)
def test_containerd_2_makes_the_node_ready_with_the_reference_plugins_of_debian(tmp_path, names):
    """Those of 1.1.1 know no STATUS: they ask for a container ID, and the node would stay NotReady for ever."""
    for name in names:
        shutil.copy(f"/usr/lib/cni/{name}", tmp_path)
    runtime = Containerd(tmp_path)
    assert [plugin["type"] for plugin in runtime.behind()] == list(names)
    assert runtime.network_ready()
    assert runtime.version == ("1.0.0" if names else "1.1.0")
    for plugin in runtime.behind():
        assert runtime.version in json.loads(runtime.call(plugin, "VERSION").stdout)["supportedVersions"]


def test_with_plugins_that_know_it_status_is_promised_and_called_on_each(tmp_path):
    for name in ("portmap", "bandwidth"):
        a_plugin(tmp_path, name, *SUPPORTED_VERSIONS)
    runtime = Containerd(tmp_path)
    assert (runtime.version, runtime.network_ready()) == ("1.1.0", True)
    a_plugin(tmp_path, "portmap", *SUPPORTED_VERSIONS, status=1)
    assert not runtime.network_ready()


@pytest.mark.parametrize(
    ("portmap", "bandwidth", "promised"),
    [
        (("0.4.0", "1.0.0"), ("0.3.1", "0.4.0"), ["0.4.0"]),
        (SUPPORTED_VERSIONS, ("1.1.0",), ["1.1.0"]),
        (("0.2.0",), SUPPORTED_VERSIONS, list(SUPPORTED_VERSIONS)),
    ],
)
def test_only_versions_that_every_plugin_of_the_list_speaks_are_promised(
    tmp_path, portmap, bandwidth, promised
):
    a_plugin(tmp_path, "portmap", *portmap)
    a_plugin(tmp_path, "bandwidth", *bandwidth)
    assert written(tmp_path)["cniVersions"] == promised
    assert written(tmp_path)["cniVersion"] in promised
    expected = (
        ["fast-cni", "portmap", "bandwidth"] if set(portmap) & set(promised) else ["fast-cni", "bandwidth"]
    )
    assert plugins(tmp_path) == expected


def test_a_plugin_that_is_replaced_is_asked_again(tmp_path):
    versions = PluginVersions(tmp_path)
    a_plugin(tmp_path, "portmap", "1.0.0")
    assert json.loads(conflist(versions))["cniVersions"] == ["1.0.0"]
    a_plugin(tmp_path, "portmap", "1.0.0", "1.1.0")
    assert json.loads(conflist(versions))["cniVersions"] == ["1.0.0", "1.1.0"]


@pytest.mark.parametrize("content", ["", "#!/nowhere\n", "#!/bin/sh\necho no json\n", "#!/bin/sh\nexit 1\n"])
def test_a_plugin_that_does_not_tell_stays_in_the_list_and_keeps_status_out_of_it(tmp_path, content):
    (tmp_path / "portmap").write_text(content)
    (tmp_path / "portmap").chmod(0o755)
    assert plugins(tmp_path) == ["fast-cni", "portmap"]
    assert written(tmp_path)["cniVersions"] == ["0.3.1", "0.4.0", "1.0.0"]


@pytest.mark.parametrize(
    ("names", "earlier"),
    [
        ([], None),
        (["10-fast.conflist", "20-other.conf"], None),
        (["05-other.conflist", "01-x.conf", "10-fast.conflist"], "01-x.conf"),
        (["10-a.json"], "10-a.json"),
        ([".05-half-written.conflist", "00-README", "10-calico.conflist.bak"], None),
    ],
)
def test_what_the_runtime_would_use_instead_is_found(tmp_path, names, earlier):
    for name in names:
        (tmp_path / name).touch()
    assert find_earlier(tmp_path) == (earlier and tmp_path / earlier)


def test_fast_is_first_and_reference_plugins_stand_behind_it_where_the_node_has_them(tmp_path):
    assert plugins(tmp_path) == ["fast-cni"]
    (tmp_path / "bandwidth").touch()
    assert plugins(tmp_path) == ["fast-cni", "bandwidth"]
    (tmp_path / "portmap").touch()
    assert plugins(tmp_path) == ["fast-cni", "portmap", "bandwidth"]


def test_a_runtime_that_knows_nothing_newer_reads_a_list_in_1_0_0(tmp_path):
    found = written(tmp_path)
    assert found["cniVersion"] == "1.0.0"
    assert "1.1.0" in found["cniVersions"]


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
    install_conflist(PluginVersions(tmp_path), tmp_path / "net.d")
    assert [path.name for path in uninstall(tmp_path, tmp_path / "net.d")] == [CONFLIST, "fast-cni"]
    assert uninstall(tmp_path, tmp_path / "net.d") == []
