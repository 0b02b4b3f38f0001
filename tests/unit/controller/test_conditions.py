"""What a pool's status says, as a function of what is known."""

import pytest

from fakes.store import a_pool
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.ips import IpsStatus
from fast.api.meta import ObjectMeta
from fast.controller.pool_conditions import PoolState, holders_text, status_of
from fast.ipam import PoolCounts
from fast.net import AddressRange, parse_address, parse_range

EARLIER, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


def a_record(number, **fields):
    spec = {
        "pool": "a",
        "container_id": "c" * 64,
        "pod": PodRef(namespace="shop", name=f"p{number}", uid=f"u{number}"),
    }
    return IpEndpoint(metadata=ObjectMeta(name=f"10.244.1.{number}"), spec=IpEndpointSpec(**spec | fields))


def a_state(*, size=10, bound=0, free=None, **more):
    counts = PoolCounts(size=size, bound=bound, retained=0, free=size - bound if free is None else free)
    return PoolState(counts=counts, **more)


def conditions_of(state, pool=None, now=NOW):
    status = status_of(pool or a_pool("a"), state, now)
    return {condition.type: condition for condition in status.conditions}


def test_a_pool_with_room_is_ready_and_not_exhausted():
    found = conditions_of(a_state(size=10, bound=9))
    assert found["Ready"].status == "True"
    assert found["Exhausted"].status == "False"
    assert found.keys() == {"Ready", "Exhausted"}


def test_a_pool_without_a_free_address_is_exhausted_and_still_ready():
    found = conditions_of(a_state(size=10, bound=10))
    assert (found["Exhausted"].status, found["Exhausted"].message) == ("True", "all 10 addresses are in use")
    assert found["Ready"].status == "True"


def test_records_outside_the_ranges_take_no_address_of_the_pool():
    state = a_state(size=2, bound=2, free=1, outside=[a_record(9)])
    found = conditions_of(state)
    assert found["Exhausted"].status == "False"
    assert "pod shop/p9 (10.244.1.9)" in found["AddressesOutsideRanges"].message


def test_what_hinders_most_is_the_reason_why_a_pool_is_not_ready():
    overlap: tuple[str, AddressRange] = ("older", parse_range("10.244.1.1-10.244.1.2"))
    deleted = a_pool("a")
    deleted.metadata.deletion_timestamp = NOW
    held = a_state(size=2, problem="bad", overlap=overlap, bound=1, holders=[a_record(1)])
    assert conditions_of(held, deleted)["Ready"].reason == "BeingDeleted"
    assert "pod shop/p1 (10.244.1.1)" in conditions_of(held, deleted)["Ready"].message
    assert conditions_of(held)["Ready"].reason == "InvalidSpec"
    overlapping = conditions_of(a_state(size=2, overlap=overlap))["Ready"]
    assert (overlapping.status, overlapping.reason) == ("False", "Overlap")
    assert "older" in overlapping.message


def test_a_stopped_garbage_collection_is_a_condition_with_the_breakers_words():
    found = conditions_of(a_state(size=2, gc_stopped="would free 30 of 30"))
    assert found["GarbageCollectionStopped"].message == "would free 30 of 30"


def test_a_condition_keeps_the_time_of_its_last_change():
    pool = a_pool("a")
    pool.status = status_of(pool, a_state(size=1), EARLIER)
    assert isinstance(pool.status, IpsStatus)
    found = conditions_of(a_state(size=1, bound=1), pool)
    assert found["Ready"].last_transition_time == EARLIER
    assert found["Exhausted"].last_transition_time == NOW


def test_a_status_of_a_pool_that_holds_more_than_an_integer_says_the_largest():
    assert status_of(a_pool("a"), a_state(size=1 << 64), NOW).total_ip_count == (1 << 63) - 1


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (a_record(1), "pod shop/p1 (10.244.1.1)"),
        (a_record(1, container_id=""), "retained for pod shop/p1 (10.244.1.1)"),
        (a_record(1, pod=PodRef(), container_id="c1"), "sandbox c1 (10.244.1.1)"),
    ],
)
def test_a_holder_is_named_by_what_is_known_of_it(record, text):
    assert holders_text([record]) == text


def test_of_many_holders_ten_are_named():
    text = holders_text([a_record(number) for number in range(12)])
    assert text.count("pod shop/") == 10
    assert text.endswith("and 2 more")


def test_a_condition_names_the_nodes_whose_addresses_the_ranges_hold():
    address = parse_address("10.244.1.3")
    found = conditions_of(a_state(reserved={address: "node n1"}))["AddressesReserved"]
    assert (found.status, found.reason) == ("True", "NeverGiven")
    assert found.message.endswith("10.244.1.3 is node n1's")
