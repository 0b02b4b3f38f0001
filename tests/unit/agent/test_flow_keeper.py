"""The loop over the flow table: when it starts, what it reports, that it survives failures."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from fast.agent.node.flow_keeper import FlowKeeper
from fast.datapath.node.flow_table import FlowSweep
from fast.errors import BPFError


def sample(name):
    return REGISTRY.get_sample_value(name) or 0


async def sweeps(answers):
    """Run the loop until every answer was given."""
    up, done, left = asyncio.Event(), asyncio.Event(), list(answers)

    def sweep():
        answer = left.pop(0)
        if not left:
            loop.call_soon_threadsafe(done.set)
        if isinstance(answer, Exception):
            raise answer
        return answer

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(FlowKeeper(up, sweep).run(interval_seconds=0.001))
    await asyncio.sleep(0.01)
    assert len(left) == len(answers), "nothing is swept before the datapath is up"
    up.set()
    await done.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, IndexError)):
        await task


async def test_evictions_and_seeds_add_up_over_sweeps_and_a_failed_sweep_is_not_the_last():
    before = sample("fast_flow_evictions_total"), sample("fast_flow_seeded_total")
    await sweeps(
        [
            FlowSweep(5, 100, evicted=3, seeded=2),
            BPFError("reading map fast_flow_table"),
            FlowSweep(4, 100, evicted=1, refused=9),
        ]
    )
    after = sample("fast_flow_evictions_total"), sample("fast_flow_seeded_total")
    assert (after[0] - before[0], after[1] - before[1]) == (4, 2)
    assert [sample(f"fast_flow_{name}") for name in ("entries", "capacity", "refused")] == [4, 100, 9]
