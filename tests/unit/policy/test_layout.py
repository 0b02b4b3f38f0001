"""Entries are laid out as the programs read them, and read back as they were written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fast.policy.map_layout import (
    Map,
    PodFlag,
    PodPolicy,
    RuleSetFlag,
    RuleSetValue,
    pack_bits,
    pack_key,
    pack_value,
    unpack_bits,
)
from fast.policy.peers import BlockPeer, find_block
from fast.policy.ports import EVERYTHING, PortPrefix, PortRange, prefixes_of

numbers = st.integers(0, 2**32 - 1)
bits = st.integers(0, 2**256 - 1)


@given(
    st.builds(
        PodPolicy,
        st.sampled_from(list(PodFlag)),
        numbers,
        numbers,
        numbers,
        numbers,
        numbers,
        numbers,
        st.integers(0, 2**64 - 1),
    )
)
def test_a_pods_part_is_36_bytes_and_reads_back(entry):
    assert len(entry.pack()) == 36
    assert PodPolicy.unpack(entry.pack()) == entry


def test_a_pods_part_begins_with_flags_class_and_rules():
    entry = PodPolicy(PodFlag.INGRESS_ISOLATED, 1, 2, 3, 4, 5, 6, 7)
    words = [int.from_bytes(entry.pack()[start : start + 4], "little") for start in range(0, 36, 4)]
    assert words == [1 << 1, 1, 2, 3, 5, 6, 4, 7, 0]


@given(
    st.builds(
        RuleSetValue,
        bits,
        bits,
        bits,
        bits,
        st.integers(0, 256),
        st.integers(0, 256),
        st.sampled_from(list(RuleSetFlag)),
        numbers,
    )
)
def test_a_rule_set_is_144_bytes_and_reads_back(value):
    assert len(value.pack()) == 144
    assert RuleSetValue.unpack(value.pack()) == value


@given(bits)
def test_bits_are_four_words_the_first_group_in_the_lowest_bit(value):
    assert unpack_bits(pack_bits(value)) == value
    assert pack_bits(1) == b"\1" + bytes(31)


def test_keys_are_laid_out_for_the_longest_prefix():
    assert pack_key(7) == b"\7\0\0\0"
    assert pack_key((7, 9)) == b"\7\0\0\0\t\0\0\0"
    assert pack_key((7, EVERYTHING)) == b"\x20\0\0\0\7\0\0\0" + bytes(4)
    assert pack_key((7, PortPrefix(6, 0x1F90, 16))) == b"\x38\0\0\0\7\0\0\0\6\x1f\x90\0"
    block = find_block("10.0.0.0/8")
    assert block is not None
    assert pack_key(block.prefix) == b"\x68\0\0\0" + bytes(10) + b"\xff\xff\n\0\0\0"
    assert pack_value(Map.BLOCKS, 5) == b"\5\0\0\0"
    assert len(pack_value(Map.PEERS, 5)) == 32


@settings(max_examples=25)  # each looks at every port of a range
@given(st.integers(0, 65535), st.integers(0, 65535))
def test_prefixes_are_exactly_the_range_and_at_most_30(one, other):
    first, last = min(one, other), max(one, other)
    found = prefixes_of(PortRange(6, first, last))
    assert len(found) <= 30
    ports = [port for item in found for port in range(item.port, item.port + (1 << 16 - item.bits))]
    assert ports == list(range(first, last + 1))


def test_a_block_in_its_own_hole_is_empty_and_holes_of_the_other_family_mean_nothing():
    empty, whole = find_block("10.0.0.0/8", ("0.0.0.0/0",)), find_block("10.0.0.0/8", ("::/0",))
    assert isinstance(empty, BlockPeer)
    assert isinstance(whole, BlockPeer)
    assert empty.holes == (empty.prefix,)
    assert whole.holes == ()
