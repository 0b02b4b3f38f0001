"""The loop that keeps the datapath up."""

import asyncio
import threading

import pytest
from prometheus_client import REGISTRY

from fast.agent.node.keeper import CONDITION, DatapathKeeper
from fast.agent.readiness import Readiness
from fast.datapath.repair import Repair, RepairKind
from fast.errors import AgentUnavailable, NetlinkError
from fast.net import parse_subnet


class Datapath:
    """Notes what it is asked for."""

    def __init__(self):
        self.calls, self.failing, self.repairs = [], {}, []
        self.called = threading.Event()

    def _call(self, name):
        self.calls.append(name)
        if name in self.failing:
            raise self.failing[name]
        return self.repairs

    def ensure(self):
        return self._call("ensure")

    def verify(self):
        return self._call("verify")

    def set_pod_subnets(self, subnets):
        self.calls.append(subnets)

    def detach(self, *_):
        return bool(self._call("detach")) or True


@pytest.fixture
async def kept():
    """A keeper that runs, every 10 ms."""
    datapath, readiness, came_up = Datapath(), Readiness(CONDITION), []
    keeper = DatapathKeeper(
        datapath, readiness, verify_interval_seconds=0.01, came_up=lambda: came_up.append(True)
    )
    return keeper, datapath, readiness, came_up


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- what is waited for happens in threads
            await asyncio.sleep(0.005)


async def running(keeper, holds):
    task = asyncio.create_task(keeper.run())
    await until(holds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_is_brought_up_once_and_verified_from_then_on(kept):
    keeper, datapath, readiness, came_up = kept
    await running(keeper, lambda: datapath.calls.count("verify") > 2)
    assert datapath.calls[0] == "ensure"
    assert datapath.calls.count("ensure") == 1
    assert (readiness.unmet(), came_up) == (None, [True])


async def test_it_is_tried_again_until_it_comes_up_and_running_pods_are_not_called_cut_off(kept):
    keeper, datapath, readiness, came_up = kept
    datapath.failing["ensure"] = NetlinkError("ensure refused")
    await running(keeper, lambda: datapath.calls.count("ensure") > 2)
    assert not came_up
    assert "ensure refused" in readiness.unmet().reason
    assert not readiness.unmet().limited_connectivity
    datapath.failing.clear()
    await running(keeper, lambda: came_up)


async def test_what_breaks_later_may_cut_off_running_pods(kept):
    keeper, datapath, readiness, _ = kept
    datapath.failing["verify"] = NetlinkError("verify refused")
    await running(keeper, lambda: "verify" in datapath.calls and readiness.unmet() is not None)
    assert readiness.unmet().limited_connectivity


async def test_a_node_without_descriptors_is_not_ready_and_tried_again(kept):
    keeper, datapath, readiness, _ = kept
    datapath.failing["verify"] = OSError(24, "Too many open files")
    await running(keeper, lambda: datapath.calls.count("verify") > 2)
    assert "Too many open files" in readiness.unmet().reason
    datapath.failing.clear()
    await running(keeper, lambda: readiness.unmet() is None)


@pytest.mark.parametrize("kind", RepairKind)
async def test_each_repair_is_counted_under_its_kind_but_what_a_start_makes_is_not(kept, kind):
    keeper, datapath, *_ = kept

    def counted():
        return REGISTRY.get_sample_value("fast_datapath_repairs_total", {"kind": kind}) or 0

    datapath.repairs = [Repair(kind, "as an example"), Repair(kind, "as another")]
    before = counted()
    await running(keeper, lambda: datapath.calls.count("verify") == 1)
    checks = datapath.calls.count("verify")
    assert counted() - before == 2 * checks


async def test_changed_subnets_are_applied(kept):
    keeper, datapath, *_ = kept
    subnets = frozenset({parse_subnet("10.244.0.0/16")})
    keeper.set_pod_subnets(subnets)
    await running(keeper, lambda: subnets in datapath.calls)


async def test_a_del_is_not_tried_before_the_datapath_is_up(kept):
    keeper, *_ = kept
    with pytest.raises(AgentUnavailable):
        keeper.detach("c1", "eth0")
    await running(keeper, keeper.up.is_set)
    assert keeper.detach("c1", "eth0")
