"""The flow table's arithmetic: sizes, timeouts, fair shares; and reading the kernel's conntrack."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.datapath.bpf.layout import FlowFlag
from fast.datapath.netlink import wire
from fast.datapath.netlink.conntrack import Translated, parse_conntrack
from fast.datapath.node.flow_table import (
    MAX_ENTRIES,
    MIN_ENTRIES,
    Timeouts,
    budget_of,
    entries_for,
    fair_share,
)

GIB = 1 << 30
TIMEOUTS = Timeouts(tcp_established=86_400, tcp_unanswered=120, udp=180, icmp=30, other=600)


@pytest.mark.parametrize(
    ("gib", "entries"), [(0, MIN_ENTRIES), (1, MIN_ENTRIES), (8, 1 << 18), (64, 1 << 21), (4096, MAX_ENTRIES)]
)
def test_the_table_grows_with_the_nodes_memory(gib, entries):
    assert entries_for(gib * GIB) == entries


@given(st.integers(0, 1 << 44))
def test_the_size_is_a_power_of_two_within_its_bounds_and_leaves_room_for_several_pods(memory):
    entries = entries_for(memory)
    assert MIN_ENTRIES <= entries <= MAX_ENTRIES
    assert entries & (entries - 1) == 0
    assert 0 < budget_of(entries) * 4 <= entries


FINS = FlowFlag.FIN_BY_LOW | FlowFlag.FIN_BY_HIGH


@pytest.mark.parametrize(
    ("protocol", "flags", "seconds"),
    [
        (6, FlowFlag.STACK | FlowFlag.ANSWERED, 86_410),
        (6, FlowFlag.STACK | FlowFlag.ANSWERED | FlowFlag.FIN_BY_LOW, 86_410),
        (6, FlowFlag.STACK, 130),
        (6, FlowFlag.STACK | FlowFlag.ANSWERED | FINS, 10),
        (17, FlowFlag.STACK, 190),
        (1, FlowFlag.STACK, 40),
        (58, FlowFlag.STACK, 40),
        (132, FlowFlag.STACK, 610),
    ],
)
def test_an_entry_outlives_the_kernels_unless_both_ends_closed(protocol, flags, seconds):
    assert TIMEOUTS.of(protocol, flags) == seconds


@given(st.lists(st.integers(0, 1000), max_size=20), st.integers(0, 5000))
def test_a_fair_share_fits_and_takes_nothing_from_who_has_less(counts, room):
    share = fair_share(counts, room)
    kept = [min(count, share) for count in counts]
    assert sum(kept) <= room or not counts
    if counts and sum(kept) < sum(counts):  # no larger share would fit
        assert sum(min(count, share + 1) for count in counts) > room


def conntrack_entry(original, reply, protocol, status, *, echo=None):
    def tuple_of(kind, source, destination, ports):
        size4 = source.version == 4
        ips = wire.nested(
            1,
            wire.attribute(1 if size4 else 3, source.packed),
            wire.attribute(2 if size4 else 4, destination.packed),
        )
        number = wire.attribute(1, bytes([protocol]))
        if echo is not None:
            rest = wire.attribute(4 if size4 else 7, struct.pack("!H", echo))
        else:
            rest = wire.attribute(2, struct.pack("!H", ports[0])) + wire.attribute(
                3, struct.pack("!H", ports[1])
            )
        return wire.nested(kind, ips, wire.nested(2, number, rest))

    head = struct.pack("=BBH", 2 if original[0].version == 4 else 10, 0, 0)
    return head + tuple_of(1, *original) + tuple_of(2, *reply) + wire.attribute(3, struct.pack("!I", status))


A, VIP, B = (ip_address(f"10.244.0.{i}") for i in (1, 2, 3))
A6, VIP6, B6 = (ip_address(f"fd00::{i}") for i in (1, 2, 3))


@pytest.mark.parametrize(("a", "vip", "b"), [(A, VIP, B), (A6, VIP6, B6)])
def test_a_translated_flow_is_read_as_it_is_behind_the_translation(a, vip, b):
    raw = conntrack_entry((a, vip, (1000, 80)), (b, a, (8080, 1000)), 6, 1 << 5 | 1 << 1)
    assert parse_conntrack(raw) == Translated(a.packed, b.packed, 1000, 8080, 6, answered=True)
    raw = conntrack_entry((a, vip, (0, 0)), (b, a, (0, 0)), 1, 1 << 5, echo=77)
    assert parse_conntrack(raw) == Translated(a.packed, b.packed, 77, 77, 1, answered=False)


def test_a_flow_that_is_not_translated_or_not_readable_is_left_out():
    assert parse_conntrack(conntrack_entry((A, B, (1, 2)), (B, A, (2, 1)), 6, 1 << 1)) is None
    assert parse_conntrack(b"") is None
    raw = conntrack_entry((A, VIP, (1000, 80)), (B, A, (8080, 1000)), 6, 1 << 5)
    for end in range(len(raw)):
        parse_conntrack(raw[:end])
