"""The model test: whatever happens in a cluster, no address is doubled and none leaks (docs/develop/design.md, 4).

In CI with a fixed budget and fixed choices; ``make test-model`` takes other choices each time, and more of them
(``FAST_MODEL_EXAMPLES``).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from unit.ipam.sequences import UnluckyCluster

_EXAMPLES = int(os.environ.get("FAST_MODEL_EXAMPLES", "0"))
_IN_CI = 250

BUDGET = settings(
    max_examples=_EXAMPLES or _IN_CI,
    stateful_step_count=40,
    derandomize=not _EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink) if _EXAMPLES else (Phase.generate,),
    print_blob=True,
)


@pytest.mark.timeout(0 if _EXAMPLES else 180)
def test_no_address_is_doubled_and_none_leaks_whatever_happens():
    run_state_machine_as_test(UnluckyCluster, settings=BUDGET)
