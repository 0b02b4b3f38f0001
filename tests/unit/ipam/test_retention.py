"""Which retained addresses go: kept too long, beyond a limit, or of a family that their pod does not have any more."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fakes.store import a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.ips import Retention
from fast.api.meta import ObjectMeta
from fast.api.timestamps import seconds_since
from fast.ipam import ClaimRequest
from fast.ipam.release.retention import DroppedFamilies, beyond_limits
from unit.ipam.nodes import Nodes, sandbox


def kept(number, *, ago=0, namespace="shop", workload="db", version=None):
    at = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = IpEndpointSpec(
        pool="a",
        pod=PodRef(namespace=namespace, name=f"{workload}-{number}"),
        interface="eth0",
        sticky_key=f"StatefulSet/{namespace}/{workload}/{number}",
        retained_at=at,
    )
    meta = ObjectMeta(name=f"10.244.1.{number}", resource_version=str(version or number + 1))
    return IpEndpoint(metadata=meta, spec=spec)


def gone(records, **limits):
    found = beyond_limits(records, {"a": Retention(**limits)})
    return {name: decision.rule for name, decision in found.items()}


def test_an_address_is_kept_for_as_long_as_its_pool_says():
    records = [kept(1, ago=90), kept(2, ago=10)]
    assert gone(records, seconds=60) == {"10.244.1.1": "retention-expired"}
    assert gone(records) == {}
    assert beyond_limits(records, {}) == {}


def test_of_a_namespace_that_keeps_too_many_those_kept_longest_go_and_no_other_namespaces():
    records = [kept(number, ago=100 - number, workload=f"s{number % 3}") for number in range(9)]
    other = [kept(number, ago=500, namespace="other") for number in range(20, 23)]
    found = gone([*records, *other], max_per_namespace=3)
    assert found == {f"10.244.1.{number}": "retention-limit" for number in range(6)}


def test_a_workload_has_a_limit_of_its_own():
    records = [
        kept(number, ago=100 - number, workload=("db" if number < 5 else "web")) for number in range(8)
    ]
    found = gone(records, max_per_workload=3, max_per_namespace=7)
    assert sorted(found) == ["10.244.1.0", "10.244.1.1"]


def test_records_that_are_bound_never_go_by_a_limit():
    record = kept(1, ago=1000)
    bound = IpEndpoint(metadata=record.metadata, spec=msgspec.structs.replace(record.spec, container_id="c"))
    assert gone([bound], seconds=1, max_per_namespace=1) == {}


async def test_a_record_says_since_when_it_is_retained_and_forgets_it_when_it_is_bound_again():
    nodes = Nodes(a_pool("small", "10.244.10.0-10.244.10.9"))
    agent, request = nodes.agent(), ClaimRequest(pools=("small",), sticky_key="StatefulSet/default/db/0")
    await agent.claim(sandbox(1, "db-0", uid="a"), request)
    await agent.release("c1", "eth0")
    (record,) = nodes.cluster.endpoints.values()
    assert 0 <= seconds_since(record.spec.retained_at) < 60
    (again,) = await agent.claim(sandbox(2, "db-0", uid="b"), request)
    assert again.spec.retained_at == ""


def six_of(record, *, container="c", version=7):
    meta = ObjectMeta(name="fd00-0000-0000-0000-0000-0000-0000-0001", resource_version=str(version))
    return IpEndpoint(metadata=meta, spec=msgspec.structs.replace(record.spec, container_id=container))


@pytest.mark.parametrize("changed", [False, True])
def test_an_address_of_a_family_that_its_pod_runs_without_goes_once_two_looks_found_the_same(changed):
    dropped, four = DroppedFamilies(), kept(1)
    assert dropped.judge([four, six_of(four)]) == {}
    found = dropped.judge([four, six_of(four, version=8 if changed else 7)])
    assert [decision.rule for decision in found.values()] == ([] if changed else ["family-dropped"])


def test_an_address_whose_pod_does_not_run_is_of_no_dropped_family():
    dropped, four = DroppedFamilies(), kept(1)
    for _ in range(3):
        assert dropped.judge([four, six_of(four, container="")]) == {}
