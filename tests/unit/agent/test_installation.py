"""Fast's files for the container runtime: when they appear, that they come back, what makes them useless."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from fast.agent.cni.conflist import CONFLIST
from fast.agent.cni.installation import CONDITION, Installation, Place
from fast.agent.readiness import Readiness


class Node:
    """A node's directories, and an installation that looks after them every few milliseconds."""

    def __init__(self, root):
        self.bin, self.conf, self.source = root / "bin", root / "net.d", root / "fast-cni"
        self.source.write_bytes(b"plugin")
        self.readiness = Readiness("other", CONDITION)
        self.restored, self.installed = [], 0

    def _installed(self):
        self.installed += 1

    @asynccontextmanager
    async def running(self, *, ready=True, plugin=True, conflist=True):
        if ready:
            self.readiness.met("other")
        place = Place(
            binary_dir=self.bin,
            config_dir=self.conf,
            plugin=self.source if plugin else None,
            conflist=conflist,
        )
        installation = Installation(place, self.readiness, self.restored.append, interval_seconds=0.005)
        task = asyncio.create_task(installation.run(self._installed))
        try:
            yield
        finally:
            assert not task.done(), "it ended"
            task.cancel()

    async def until(self, holds):
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 -- files have no event
                await asyncio.sleep(0.005)

    @property
    def conflist(self):
        return self.conf / CONFLIST

    @property
    def plugin(self):
        return self.bin / "fast-cni"


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


async def test_the_plugin_comes_at_once_and_the_configuration_only_when_the_node_can_take_pods(node):
    async with node.running(ready=False):
        await node.until(node.plugin.exists)
        await asyncio.sleep(0.05)
        assert not node.conflist.exists()
        assert node.installed == 0
        node.readiness.met("other")
        await node.until(node.conflist.exists)
        await node.until(lambda: node.installed == 1)
    assert node.readiness.unmet() is None
    assert node.restored == []


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("damage", ["removed", "changed", "directory removed"])
@pytest.mark.parametrize("which", ["plugin", "conflist"])
async def test_what_somebody_removes_or_changes_is_put_back_and_told(node, which, damage, ready):
    async with node.running():
        await node.until(lambda: node.installed)
        path = getattr(node, which)
        before = path.read_bytes()
        if not ready:
            node.readiness.missing("other", "broken for a while")
        if damage == "changed":
            path.write_bytes(b"{}")
        else:
            path.unlink()
        if damage == "directory removed":
            path.parent.rmdir()
        await node.until(lambda: path.exists() and path.read_bytes() == before)
        await node.until(lambda: node.restored)
    assert path.name in node.restored[0]
    assert node.installed == 1


async def test_another_configuration_that_sorts_first_is_told_and_adds_are_served(node):
    async with node.running():
        await node.until(lambda: node.installed)
        (node.conf / "05-other.conflist").touch()
        await node.until(lambda: node.readiness.unmet() is not None)
        unmet = node.readiness.unmet()
        assert "05-other.conflist comes before 10-fast.conflist" in unmet.reason
        assert unmet.allows_add
        (node.conf / "05-other.conflist").unlink()
        await node.until(lambda: node.readiness.unmet() is None)


async def test_a_node_where_the_runtime_uses_another_network_still_gets_its_files(node):
    """That is how a migration begins."""
    node.conf.mkdir()
    (node.conf / "05-other.conflist").touch()
    async with node.running():
        await node.until(node.conflist.exists)


async def test_a_directory_that_cannot_be_written_keeps_the_node_unready_until_it_can(node):
    node.bin.touch()  # no directory
    async with node.running():
        await node.until(lambda: "directory" in getattr(node.readiness.unmet(), "reason", ""))
        assert not node.readiness.unmet().allows_add
        assert not node.conflist.exists()
        node.bin.unlink()
        await node.until(lambda: node.readiness.unmet() is None)


async def test_the_list_follows_the_plugins_behind_fast(node):
    async with node.running():
        await node.until(lambda: node.installed)
        assert "1.1.0" in json.loads(node.conflist.read_bytes())["cniVersions"]
        (node.bin / "portmap").touch()  # does not tell its versions
        await node.until(lambda: "1.1.0" not in json.loads(node.conflist.read_bytes())["cniVersions"])


async def test_without_a_plugin_of_its_own_an_agent_leaves_the_one_that_is_there_and_puts_one_back(
    node, monkeypatch
):
    monkeypatch.setenv("FAST_CNI_BINARY", str(node.source))
    node.bin.mkdir()
    node.plugin.write_bytes(b"an init container's")
    node.plugin.chmod(0o755)
    async with node.running(plugin=False):
        await node.until(lambda: node.installed)
        assert node.plugin.read_bytes() == b"an init container's"
        node.plugin.unlink()
        await node.until(lambda: node.plugin.exists() and node.plugin.read_bytes() == b"plugin")


async def test_an_operator_who_writes_the_configuration_keeps_it(node):
    node.conf.mkdir()
    node.conflist.write_text("mine")
    async with node.running(conflist=False):
        await node.until(lambda: node.installed)
        await asyncio.sleep(0.05)
    assert node.conflist.read_text() == "mine"
