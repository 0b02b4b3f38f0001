"""The compiled maps give every packet the verdict that the API's text gives it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast.policy import Capacity, ProblemKind
from unit.policy import worlds

EXAMPLES = int(os.environ.get("FAST_POLICY_EXAMPLES", "60"))
SLOW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


@SLOW
@given(worlds.nodes(), worlds.policies)
def test_compiled_maps_say_what_the_text_says(node, policies):
    for policy in policies:
        node.policy(policy)
    node.plan()
    node.check(worlds.PACKETS)


@SLOW
@given(worlds.nodes(), worlds.policies, st.data())
def test_after_any_events_the_maps_say_what_the_text_says(node, policies, data):
    for policy in policies:
        node.policy(policy)
    node.plan()
    for _ in range(data.draw(st.integers(1, 4))):
        worlds.change(data, node)
        node.plan(after=data.draw(st.sampled_from((0, 10**9, 40 * 10**9))))
        node.check(worlds.PACKETS)
    node.quiesce()
    node.check(worlds.PACKETS)


@SLOW
@given(worlds.nodes(), worlds.policies, st.data())
def test_events_that_are_planned_together_come_to_the_same(node, policies, data):
    for _ in range(data.draw(st.integers(1, 2))):
        for policy in policies:
            node.policy(policy)
        for _ in range(data.draw(st.integers(1, 6))):
            worlds.change(data, node)
        node.plan(after=data.draw(st.sampled_from((0, 10**9, 40 * 10**9))))
        node.check(worlds.PACKETS)


@SLOW
@given(worlds.nodes(), worlds.policies, st.data())
def test_maps_that_are_too_small_never_overflow_and_what_fits_is_right(node, policies, data):
    small = st.integers(1, 12)
    capacity = Capacity(*(data.draw(small) for _ in range(4)))
    node = worlds.with_capacity(node, capacity)

    def watch(write: str) -> None:
        maps = node.maps
        used = (len(maps.rule_sets), len(maps.peer_bits), len(maps.port_bits), len(maps.blocks))
        limits = (capacity.rule_sets, capacity.peers, capacity.ports, capacity.blocks)
        assert all(count <= limit for count, limit in zip(used, limits, strict=True)), (used, limits, write)

    node.watcher = watch
    for policy in policies:
        node.policy(policy)
    for _ in range(data.draw(st.integers(0, 4))):
        plan = node.plan(after=10**9)
        if not any(problem.kind is ProblemKind.TOO_LARGE for problem in plan.problems):
            node.check(worlds.PACKETS)
        worlds.change(data, node)
    for policy in list(node.world.policies):
        node.unpolicy(policy)
    node.plan()
    node.quiesce()
    assert not [problem for problem in node.plan().problems if problem.kind is ProblemKind.TOO_LARGE]
    node.check(worlds.PACKETS)
