"""A node where the datapath cannot come up: the agent says why, is not ready, and leaves nothing half made."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from fast.agent.node.keeper import CONDITION, DatapathKeeper
from fast.agent.readiness import Readiness
from fast.datapath.bpf.features import FEATURES, _helper
from fast.datapath.bpf.spec import DATAPATH
from fast.datapath.datapath_config import DatapathConfig
from fast.datapath.node.node_datapath import NodeDatapath
from kernel.bpf.sources import compile_changed
from kernel.fastlab import POD_SUBNETS, node_ip
from kernel.lab import underlay

SECONDS = 30.0
UNKNOWN_HELPER = 99_999
# Without this the verifier cannot know that the packet is long enough.
UNCHECKED = ("lib/parse.h", r"if \(data \+ offset \+ size > packet_data_end\(skb\)\)\n\t\treturn NULL;", "")


class PlacedDatapath(NodeDatapath):
    """A node's datapath that the agent, which runs here, brings up on a machine."""

    def __init__(self, machine, config):
        super().__init__(config)
        self._machine = machine

    def ensure(self):
        return self._machine.call(super().ensure)


class Agent:
    """The part of an agent that keeps the datapath up, and what it says of it."""

    def __init__(self, machine):
        config = DatapathConfig(node_name="n1", node_ip=node_ip(1), pod_subnets=POD_SUBNETS)
        self.readiness = Readiness(CONDITION)
        self.keeper = DatapathKeeper(
            PlacedDatapath(machine, config),
            self.readiness,
            verify_interval_seconds=0.05,
            came_up=lambda: None,
        )

    @contextlib.asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.keeper.run())
        try:
            async with asyncio.timeout(SECONDS):
                yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def says(self, text: str) -> str:
        """Wait until what it is not ready for has the text."""
        while (unmet := self.readiness.unmet()) is None or text not in unmet.reason:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return unmet.reason


@pytest.fixture
def machine():
    with underlay() as net:
        yield net.join("n1", 1)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return replace(DATAPATH, path=compile_changed(tmp_path_factory.mktemp("broken"), UNCHECKED))


def assert_nothing_is_left(machine):
    assert "fast" not in machine.run("ip -o link; ip rule; ip route; nft list tables")
    pins = "/sys/fs/bpf/fast"
    assert machine.run(f"[ ! -d {pins} ] || find {pins} -type f") == ""


async def test_programs_that_the_verifier_refuses_keep_the_node_unready_until_they_load(
    machine, broken, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("fast.datapath.node.node_datapath.DATAPATH", broken)
        async with Agent(machine).running() as agent:
            reason = await agent.says("verifier refused")
            assert "fast.bpf.o" in reason
            assert not agent.keeper.up.is_set()
        assert_nothing_is_left(machine)
    async with Agent(machine).running() as agent:
        await agent.readiness.wait()
        assert agent.keeper.up.is_set()
    assert "fast_vxlan" in machine.run("ip -o link")


@pytest.fixture(scope="module")
def too_new(tmp_path_factory):
    """Programs that call a helper which no kernel has, as all of them are to a kernel that is too old."""
    unknown = ("lib/forward.h", r"bpf_redirect_peer\(", f"((long (*)(__u32, __u64)){UNKNOWN_HELPER})(")
    return replace(DATAPATH, path=compile_changed(tmp_path_factory.mktemp("new"), unknown))


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES if feature.needed])
async def test_a_kernel_that_lacks_a_feature_is_told_which_and_since_when_it_exists(
    machine, too_new, monkeypatch, name
):
    # The programs do not load for want of a helper; which it is, the real probes are asked, one of them for another.
    lacking = [
        replace(each, probe=_helper(UNKNOWN_HELPER)) if each.name == name else each for each in FEATURES
    ]
    monkeypatch.setattr("fast.datapath.bpf.features.FEATURES", lacking)
    monkeypatch.setattr("fast.datapath.node.node_datapath.DATAPATH", too_new)
    since = next(each.kernel for each in FEATURES if each.name == name)
    async with Agent(machine).running() as agent:
        assert f"this kernel lacks {name} (Linux {since} has it)" in await agent.says("lacks")
        assert not agent.keeper.up.is_set()
    assert_nothing_is_left(machine)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda each: each.name)
def test_the_kernel_that_the_tests_run_on_has_every_feature(feature):
    assert feature.probe()
    feature.require()


def test_a_helper_that_no_kernel_has_is_told_to_be_missing():
    assert not _helper(UNKNOWN_HELPER)()


async def test_a_node_without_a_bpf_filesystem_is_told_how_to_mount_one(machine):
    machine.run("umount /sys/fs/bpf")
    async with Agent(machine).running() as agent:
        await agent.says("mount -t bpf")
    assert_nothing_is_left(machine)


async def test_a_node_that_breaks_later_is_unready_until_it_is_mended(machine):
    async with Agent(machine).running() as agent:
        await agent.readiness.wait()
        machine.run("ip addr del 192.168.77.1/24 dev u0")
        await agent.says("no network device of this node has the node's address")
        machine.run("ip addr add 192.168.77.1/24 dev u0")
        await agent.readiness.wait()
