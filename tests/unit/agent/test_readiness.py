"""What stands in the way of taking pods."""

import asyncio

from fast.agent.readiness import Readiness


async def test_a_node_is_ready_when_every_condition_is_met():
    readiness = Readiness("a", "b")
    waiting = asyncio.create_task(readiness.wait())
    readiness.met("a")
    await asyncio.sleep(0)
    assert not waiting.done()
    assert "b" in readiness.unmet().reason
    readiness.met("b")
    await waiting
    assert readiness.unmet() is None


def test_every_reason_is_told_at_once():
    readiness = Readiness()
    readiness.missing("a", "the one")
    readiness.missing("b", "the other", limited_connectivity=True)
    unmet = readiness.unmet()
    assert unmet.reason == "a: the one; b: the other"
    assert unmet.limited_connectivity


def test_an_add_is_tried_only_where_every_reason_may_pass():
    readiness = Readiness()
    readiness.missing("a", "slow", allows_add=True)
    assert readiness.unmet().allows_add
    readiness.missing("b", "broken")
    assert not readiness.unmet().allows_add


def test_a_condition_that_is_met_again_stands_in_nobodys_way():
    readiness = Readiness("a")
    readiness.met("a")
    readiness.missing("a", "gone")
    readiness.met("a")
    assert readiness.unmet() is None
