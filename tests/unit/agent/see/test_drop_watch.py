"""What pods are told of their drops, and what the metric counts."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from prometheus_client import CollectorRegistry

from fast.agent.see import drop_watch
from fast.agent.see.drop_watch import DropWatch
from fast.agent.see.holders import Holders
from fast.agent.see.traffic_event import EventNamer
from fast.datapath.bpf.layout import DropCount, DropKey
from fast.datapath.bpf.reasons import Reason
from unit.agent.see.test_holders import ADDRESS, record

KEY = DropKey(ip_address("10.9.9.9"), ip_address("10.0.0.2"), 7, 80, 6, Reason.DROP_SPOOFED_ADDRESS, 0)


class World:
    """A watch over counts that a test sets; every device belongs to the pod that holds ADDRESS."""

    def __init__(self) -> None:
        self.records = {str(ADDRESS): record("spoofer")}
        self.now_ns = 0
        self.told = []
        self.registry = CollectorRegistry()
        holders = Holders(self.records, lambda: self.now_ns)
        namer = EventNamer(holders, lambda ifindex: [ADDRESS] if ifindex == 7 else [], lambda: 0, lambda: 0)
        self.watch = DropWatch(
            namer,
            lambda pod, message: self.told.append((pod.name, message)),
            lambda: self.now_ns,
            self.registry,
        )
        self.look({})

    def look(self, counts, seconds=10):
        self.now_ns += int(seconds * 1e9)
        self.watch.tell(self.watch.fresh(counts))

    def counted(self, pod="spoofer", reason="drop_spoofed_address"):
        labels = {"namespace": "ns" if pod != "other" else "other", "pod": pod, "reason": reason}
        return self.registry.get_sample_value("fast_pod_dropped_packets_total", labels)


@pytest.fixture
def world():
    return World()


def test_the_pod_that_spoofs_is_told_what_and_why(world):
    world.look({KEY: DropCount(5, 500, 1, 2)})
    ((pod, message),) = world.told
    assert pod == "spoofer"
    assert "10.9.9.9 to 10.0.0.2 port 80" in message
    assert "has a source address that is not the pod's (drop_spoofed_address)" in message
    assert world.counted() == 5


def test_a_pod_is_told_once_a_minute_while_the_metric_goes_on(world):
    for look in range(1, 12):
        world.look({KEY: DropCount(look * 100, 0, 1, look)})
    assert world.counted() == 1100
    assert len(world.told) == 2


def test_drops_from_before_the_agent_started_are_not_told_again():
    world = World.__new__(World)
    World.__init__(world)
    fresh = DropWatch(world.watch._namer, lambda *_: pytest.fail("told"), lambda: 0, CollectorRegistry())
    fresh.tell(fresh.fresh({KEY: DropCount(5, 0, 1, 2)}))


def test_a_group_that_was_evicted_and_came_again_counts_from_zero(world):
    world.look({KEY: DropCount(100, 0, 1, 2)})
    world.look({KEY: DropCount(3, 0, 50, 60)})
    assert world.counted() == 103


def test_what_healthy_pods_send_is_counted_but_told_to_nobody(world):
    key = replace(KEY, reason=Reason.DROP_NOT_UNICAST)
    world.look({key: DropCount(5, 0, 1, 2)})
    assert world.told == []
    assert world.counted(reason="drop_not_unicast") == 5


def test_drops_at_a_device_that_is_no_pods_concern_nobody(world):
    world.look({replace(KEY, ifindex=3): DropCount(5, 0, 1, 2)})
    assert world.told == []


def test_pods_beyond_the_metrics_room_count_together(world, monkeypatch):
    monkeypatch.setattr(drop_watch, "MOST_PODS", 1)
    world.look({KEY: DropCount(5, 0, 1, 2)})
    world.records[str(ADDRESS)] = record("second")
    world.look({KEY: DropCount(7, 0, 1, 2)})
    world.records[str(ADDRESS)] = record("third")
    world.look({KEY: DropCount(10, 0, 1, 2)})
    assert (world.counted(), world.counted("second"), world.counted("other")) == (5, None, 5)
