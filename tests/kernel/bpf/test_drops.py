"""Counts of drops by who and why, exact under a flood; and events that cost no more in a storm than in a trickle."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from fast.datapath.bpf import DATAPATH, Config, EventReader, EventSwitch, PacketDirection, Reason, RunContext
from fast.datapath.bpf.layout import DropKey
from kernel.bpf.node import HOST_MAC, MAC_A, NODE, SHOT, V4, Family, LoadedNode
from kernel.bpf.packets import ETH_IPV4, ICMP, ICMPV6, TCP, Ip, echo, ethernet, tcp

FLOOD = 100_000
_fresh_port = itertools.count(1000)


@pytest.fixture
def port() -> int:
    """A destination port that no other test uses, so that its group starts from nothing."""
    return next(_fresh_port)


def spoofed(node, port: int, packets: int) -> bytes:
    """Let pod A send a packet with pod B's address so many times; give the frame."""
    frame = ethernet(MAC_A, HOST_MAC, ETH_IPV4, bytes(Ip(V4.b, V4.r, TCP, tcp(1, port))))
    context = RunContext(ifindex=node.devices["ha"])
    result = node.machine.call(node.object.programs["fast_from_pod"].run, frame, context, packets)
    assert result.verdict == SHOT
    return frame


def spoofed_key(node, port: int) -> DropKey:
    reason, way = Reason.DROP_SPOOFED_ADDRESS, PacketDirection.FROM_POD
    return DropKey(V4.b, V4.r, node.devices["ha"], port, TCP, reason, way)


def test_a_dropped_packet_is_counted_by_both_ends_device_port_protocol_and_reason(node, ip: Family, port):
    before = time.monotonic_ns()
    result, _ = node.from_pod(Ip(ip.b, ip.r, TCP, tcp(1000, port)))
    reason, way = Reason.DROP_SPOOFED_ADDRESS, PacketDirection.FROM_POD
    count = node.drop_counts.get(DropKey(ip.b, ip.r, node.devices["ha"], port, TCP, reason, way))
    assert (count.packets, count.byte_count) == (1, len(result.packet))
    assert before < count.first_ns == count.last_ns < time.monotonic_ns()


def test_a_flood_is_counted_to_the_packet(node, port):
    frame = spoofed(node, port, FLOOD)
    count = node.drop_counts.get(spoofed_key(node, port))
    assert (count.packets, count.byte_count) == (FLOOD, FLOOD * len(frame))
    assert count.first_ns < count.last_ns


def test_a_flood_from_several_processors_at_once_is_counted_to_the_packet(node, port):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: spoofed(node, port, FLOOD), range(4)))
    assert node.drop_counts.get(spoofed_key(node, port)).packets == 4 * FLOOD


def test_pings_with_different_identifiers_are_one_group(node, ip: Family):
    protocol, kind = (ICMP, 8) if ip is V4 else (ICMPV6, 128)
    nobody = ip.nobody
    for identifier in (7, 8, 9):
        node.from_pod(Ip(nobody, ip.r, protocol, echo(kind, identifier)))
    groups = {key: count for key, count in node.drop_counts.items() if key.source == nobody}
    assert [(key.destination_port, count.packets) for key, count in groups.items()] == [(0, 3)]


def test_what_is_forwarded_is_no_drop(node):
    before = dict(node.drop_counts.items())
    node.from_pod(Ip(V4.a, V4.b, TCP, tcp(1, 2)))
    assert dict(node.drop_counts.items()) == before


def test_a_full_map_keeps_the_newest_groups_and_the_rest_is_known_from_the_metrics(machine, devices):
    config = Config(node_ip=NODE, events=EventSwitch.DROP)
    node = LoadedNode(machine, devices, config, DATAPATH.sized(fast_drops=1024))
    try:
        for number in range(4000):
            node.from_pod(Ip(ip_address("172.16.0.0") + number, V4.r, TCP, tcp(1, 2)))
        shown = dict(node.drop_counts.items())
        dropped = sum(metric.packets for (reason, _), metric in node.metrics.read().items() if reason.is_drop)
        assert dropped == 4000
        assert 0 < sum(count.packets for count in shown.values()) <= 1024
        assert ip_address("172.16.0.0") + 3999 in {key.source for key in shown}
    finally:
        node.close()


def test_a_storm_tells_a_few_events_and_counts_those_it_leaves_out(node, port):
    with EventReader.adopt(node.object.maps["fast_events"]) as events:
        while events.read():
            pass
        before, start = node.untold(), time.monotonic()
        spoofed(node, port, FLOOD)
        windows = (time.monotonic() - start) / 0.1 + 2
        told = 0
        while batch := events.read():
            told += len(batch)
    assert 0 < told <= 50 * windows
    assert told + node.untold() - before == FLOOD


def test_a_ring_that_nobody_reads_never_stops_the_programs(node, port):
    for _ in range(3):
        node.allow_events(FLOOD)
        spoofed(node, port, FLOOD)
    assert node.drop_counts.get(spoofed_key(node, port)).packets == 3 * FLOOD


@pytest.mark.parametrize("listened", [EventSwitch.NONE, EventSwitch.NEW_FLOW, EventSwitch.SAMPLE])
def test_new_flows_and_samples_are_told_only_if_somebody_listens(machine, devices, listened):
    everything = EventSwitch.DROP | EventSwitch.NEW_FLOW | EventSwitch.SAMPLE
    node = LoadedNode(machine, devices, Config(node_ip=NODE, events=everything, sample_mask=0))
    try:
        node.listen(listened)
        with EventReader.adopt(node.object.maps["fast_events"]) as events:
            node.to_pod(Ip(V4.r, V4.a, TCP, tcp(1, 2)))
            kinds = {EventSwitch(event.kind) for event in events.read()}
    finally:
        node.close()
    assert kinds == ({listened} if listened else set())
