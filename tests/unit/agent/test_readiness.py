"""What stands in the way of taking pods."""

import asyncio

from fast.agent.readiness import Readiness


async def test_a_node_is_ready_when_every_condition_is_met():
    readiness = Readiness("a", "b")
    waiting = asyncio.create_task(readiness.wait())
    readiness.met("a")
    await asyncio.sleep(0)
    assert not waiting.done()
    assert "b" in readiness.blocker().reason
    readiness.met("b")
    await waiting
    assert readiness.blocker() is None


def test_every_reason_is_told_at_once():
    readiness = Readiness()
    readiness.missing("a", "the one")
    readiness.missing("b", "the other", limited_connectivity=True)
    blocker = readiness.blocker()
    assert blocker.reason == "a: the one; b: the other"
    assert blocker.limited_connectivity


def test_an_add_is_tried_only_where_every_reason_may_pass():
    readiness = Readiness()
    readiness.missing("a", "slow", passing=True)
    assert readiness.blocker().passing
    readiness.missing("b", "broken")
    assert not readiness.blocker().passing


def test_a_condition_that_is_met_again_stands_in_nobodys_way():
    readiness = Readiness("a")
    readiness.met("a")
    readiness.missing("a", "gone")
    readiness.met("a")
    assert readiness.blocker() is None
