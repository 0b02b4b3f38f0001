"""Who held an address when."""

from ipaddress import ip_address

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fast.agent.see.holders import Holder, Holders
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta

ADDRESS = ip_address("10.0.0.1")


def record(pod: str | None) -> IpEndpoint | None:
    """A record of the address that names the pod; None for none."""
    if pod is None:
        return None
    spec = IpEndpointSpec(pool="p", node="n1", pod=PodRef(namespace="ns", name=pod, uid=f"uid-{pod}"))
    return IpEndpoint(metadata=ObjectMeta(name=str(ADDRESS)), spec=spec)


def name_of(holder: Holder | None) -> str | None:
    return holder.name if holder else None


class World:
    """Records that change while a clock runs."""

    def __init__(self, **settings: int) -> None:
        self.now = 0
        self.records: dict[str, IpEndpoint] = {}
        self.holders = Holders(self.records, lambda: self.now, **settings)

    def set(self, pod: str | None) -> None:
        old, new = self.records.get(str(ADDRESS)), record(pod)
        if new is None:
            self.records.pop(str(ADDRESS), None)
        else:
            self.records[str(ADDRESS)] = new
        self.holders.record_changed(old, new)


def test_an_address_that_never_changed_hands_is_read_from_its_record():
    world = World()
    world.records[str(ADDRESS)] = record("a")
    assert str(world.holders.find(ADDRESS, 5)) == "ns/a"


def test_an_address_nobody_ever_had_has_no_holder():
    assert World().holders.find(ADDRESS, 0) is None


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12), st.integers(-1, 140))
def test_the_holder_found_is_the_one_whose_record_stood_at_that_moment(pods, time):
    world = World()
    expected = None
    for step, pod in enumerate(pods):
        world.now = step * 10
        world.set(pod)
        if world.now <= time:
            expected = pod
    assert name_of(world.holders.find(ADDRESS, time)) == expected


def test_a_record_that_was_there_before_the_first_change_seen_is_found_for_earlier_events():
    world = World()
    world.records[str(ADDRESS)] = record("early")
    world.now = 100
    world.set("late")
    assert name_of(world.holders.find(ADDRESS, 50)) == "early"


def test_changes_are_forgotten_after_an_hour_and_the_current_holder_still_is_found():
    world = World(kept_ns=1000)
    for step in range(50):
        world.now = step * 100
        world.set(f"p{step}")
    assert len(world.holders._changes) <= 11
    assert name_of(world.holders.find(ADDRESS, world.now)) == "p49"


def test_a_change_that_leaves_the_pod_costs_nothing():
    world = World()
    world.set("a")
    same = world.records[str(ADDRESS)]
    world.holders.record_changed(same, msgspec.structs.replace(same))
    assert len(world.holders._changes) == 1
