"""The model finds every race of the design, once its guard is taken out of the code.

In CI those that it finds within a second or so; ``make test-model`` (``FAST_MODEL_EXAMPLES``) looks for all of them.
"""

from __future__ import annotations

import inspect
import os
import re

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fast.ipam import rules
from unit.ipam.plants import PLANTS, Plant
from unit.ipam.processes import Violation
from unit.ipam.sequences import UnluckyCluster

_ALL = "FAST_MODEL_EXAMPLES" in os.environ
#: Found within a few examples.
_QUICK = {
    "two-claimants",
    "own-write-echo",
    "retried-add",
    "new-sandbox",
    "overtaken-add",
    "sticky-still-bound",
    "recreated-pod",
    "terminating-pod",
    "late-del",
    "del-against-takeover",
    "partitioned-node",
    "foreign-node",
    "half-seen-sandbox",
    "rebooted-node",
    "stale-pod-list",
    "retained-and-rebound",
    "reused-while-swept",
    "stale-tombstone",
    "cancelled-add",
}
_SOUGHT = {race: plant for race, plant in PLANTS.items() if _ALL or race in _QUICK}

#: Far more than any plant needs; the choices are the same each time.
_ENOUGH = settings(
    max_examples=20_000,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
    report_multiple_bugs=False,
)


@pytest.mark.timeout(0 if _ALL else 180)
@pytest.mark.parametrize("plant", [pytest.param(plant, id=race) for race, plant in _SOUGHT.items()])
def test_the_model_finds_a_planted_race(plant: Plant):
    with plant(), pytest.raises(Violation):
        run_state_machine_as_test(UnluckyCluster, settings=_ENOUGH)


def test_every_race_that_the_rules_list_is_planted():
    listed = set(re.findall(r"^- ``([a-z-]+)``", inspect.getdoc(rules) or "", re.MULTILINE))
    assert listed
    assert listed <= {race.partition(" ")[0] for race in PLANTS}
