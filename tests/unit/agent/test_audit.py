"""The agent's audit and its gauge."""

import pytest
from prometheus_client import CollectorRegistry

from fast.agent.sync.auditor import Auditor
from fast.ipam import IpamMetrics
from fast.ipam.explain.drift import DriftKind
from fast.net import parse_address
from fast.net.node_state import NodeState

ADDRESS = parse_address("10.244.0.1")
NOTHING = NodeState({}, {}, {})
LEFT_OVER = NodeState({}, {ADDRESS: 7}, {})


def make(*looks: NodeState) -> tuple[Auditor, CollectorRegistry]:
    registry = CollectorRegistry()
    seen = iter(looks)
    auditor = Auditor("n1", list, list, lambda: next(seen), IpamMetrics(registry), look_again_seconds=0)
    return auditor, registry


def gauge(registry: CollectorRegistry, kind: DriftKind) -> float | None:
    return registry.get_sample_value("fast_ipam_drift", {"kind": kind.value})


async def test_drift_that_two_looks_find_is_exported_by_its_kind_and_goes_when_it_is_gone():
    auditor, registry = make(LEFT_OVER, LEFT_OVER, NOTHING)
    await auditor.audit()
    assert gauge(registry, DriftKind.LOCAL_ENTRY_WITHOUT_SANDBOX) == 1
    await auditor.audit()
    assert gauge(registry, DriftKind.LOCAL_ENTRY_WITHOUT_SANDBOX) == 0


async def test_what_differs_for_a_moment_is_no_drift():
    auditor, registry = make(LEFT_OVER, NOTHING)
    assert await auditor.audit() == []
    assert gauge(registry, DriftKind.LOCAL_ENTRY_WITHOUT_SANDBOX) == 0


@pytest.mark.parametrize("kind", list(DriftKind))
async def test_every_kind_has_its_series_from_the_first_audit_on(kind):
    auditor, registry = make(NOTHING)
    await auditor.audit()
    assert gauge(registry, kind) == 0
