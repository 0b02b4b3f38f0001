"""The pages on pools and metrics name every rule, metric, condition and event that there is."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fast.controller import pool_conditions
from fast.errors import AddressConflict, InvalidConfig, PoolExhausted, PoolNotAllowed, PoolNotFound
from fast.ipam import rules
from fast.ipam.ipam_metrics import IpamMetrics

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT = "".join((DOCS / page).read_text() for page in ("use/pools.md", "operate/metrics.md"))
NAMED = set(re.findall(r"`([^`\n]+)`", DOCUMENT))


def races():
    assert rules.__doc__
    return re.findall(r"^- ``([a-z-]+)``:", rules.__doc__, re.MULTILINE)


def rules_that_free():
    folder = Path(rules.__file__).parent
    paths = [*folder.glob("*.py"), folder.parent / "release" / "retention.py"]
    source = "".join(path.read_text() for path in paths)
    return re.findall(r'(?:_free\(\s*record,|Action\.RELEASE,)\s*"([a-z-]+)"', source)


def metrics():
    registry = CollectorRegistry()
    IpamMetrics(registry)
    return [
        f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()
    ]


def documented(name):
    return name in NAMED or any(item.startswith(f"{name}{{") for item in NAMED)


@pytest.mark.parametrize("race", races())
def test_every_race_is_in_the_design(race):
    assert f"| `{race}` |" in (DOCS / "develop" / "design.md").read_text()


@pytest.mark.parametrize("rule", sorted(set(rules_that_free()) - {"pool-changed"}))
def test_every_rule_that_frees_an_address_is_in_the_document(rule):
    assert documented(rule)


@pytest.mark.parametrize("metric", metrics())
def test_every_metric_is_in_the_document(metric):
    assert documented(metric)


@pytest.mark.parametrize(
    "said",
    [
        pool_conditions.READY,
        pool_conditions.EXHAUSTED,
        pool_conditions.ADDRESSES_OUTSIDE,
        pool_conditions.ADDRESSES_RESERVED,
        pool_conditions.GC_STOPPED,
        *(
            kind.__name__
            for kind in (AddressConflict, InvalidConfig, PoolExhausted, PoolNotAllowed, PoolNotFound)
        ),
        *("PoolLow", "AddressReleased", "GCStopped"),
    ],
)
def test_every_condition_and_event_is_in_the_document(said):
    assert documented(said)
