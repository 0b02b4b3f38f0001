"""What is kept of the datapath's events, and what listeners get."""

import asyncio

from fast.agent.see.event_log import EventLog
from fast.agent.see.traffic_event import TrafficEvent


def event(number: int, kind: str = "drop") -> TrafficEvent:
    return TrafficEvent(
        time=str(number),
        kind=kind,
        reason="drop_vlan_tagged",
        direction="from_pod",
        what="has a VLAN tag",
        source="10.0.0.1",
        destination="10.0.0.2",
        protocol="udp",
        size_bytes=60,
    )


def test_the_last_drops_are_kept_and_older_ones_are_not():
    log = EventLog(kept=3)
    log.add(event(number) for number in range(5))
    assert [item.time for item in log.drops()] == ["2", "3", "4"]


def test_samples_and_flows_are_passed_on_but_not_kept():
    log = EventLog()
    log.add([event(1, "sample"), event(2, "flow"), event(3)])
    assert [item.time for item in log.drops()] == ["3"]


async def test_a_listener_gets_what_comes_after_it_began_in_order():
    log = EventLog()
    log.add([event(0)])
    with log.listen() as listener:
        log.add([event(1), event(2)])
        assert [(await listener.next()).time, (await listener.next()).time] == ["1", "2"]


async def test_a_slow_listener_loses_events_alone_and_is_told_how_many():
    log = EventLog()
    with log.listen(waiting=2) as slow, log.listen() as quick:
        log.add(event(number) for number in range(10))
        assert (slow.take_lost(), slow.take_lost(), quick.take_lost()) == (8, 0, 0)
        assert [(await quick.next()).time for _ in range(10)] == [str(number) for number in range(10)]
        assert (await slow.next()).time == "0"


def test_flows_and_samples_are_switched_on_with_the_first_listener_and_off_after_the_last():
    switched = []
    log = EventLog(switched.append)
    drops, everything = frozenset({"drop"}), frozenset({"drop", "flow", "sample"})
    with log.listen(everything):
        with log.listen(drops):
            pass
        assert switched == [everything]
    assert switched == [everything, frozenset()]


async def test_a_listener_gets_the_kinds_it_asked_for_only():
    log = EventLog()
    with log.listen(frozenset({"flow"})) as listener:
        log.add([event(1), event(2, "sample"), event(3, "flow")])
        assert (await listener.next()).time == "3"
        assert listener.take_lost() == 0


def test_events_that_cannot_be_shown_are_told_to_every_listener():
    log = EventLog()
    with log.listen() as one, log.listen() as other:
        log.missed(7)
        assert (one.take_lost(), other.take_lost()) == (7, 7)


async def test_a_listener_waits_until_there_is_an_event():
    log = EventLog()
    with log.listen() as listener:
        waiting = asyncio.create_task(listener.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        log.add([event(7)])
        assert (await asyncio.wait_for(waiting, 1)).time == "7"
