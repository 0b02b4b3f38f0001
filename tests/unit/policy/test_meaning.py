"""The compiled maps give every packet the verdict that the API's text gives it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
