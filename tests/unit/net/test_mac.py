"""MAC addresses as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.errors import InvalidConfig
from fast.net import Mac


@given(st.binary(min_size=6, max_size=6))
def test_a_mac_survives_being_written_and_read(raw):
    assert Mac.parse(str(Mac(raw))) == raw


@given(st.text())
def test_a_derived_mac_is_unicast_local_and_the_same_every_time(seed):
    mac = Mac.derived(seed)
    assert mac[0] & 0b11 == 0b10
    assert mac == Mac.derived(seed)


def test_macs_derived_from_different_nodes_differ():
    assert len({Mac.derived(f"node-{number}") for number in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text", ["", "aa:bb:cc:dd:ee", "aa-bb-cc-dd-ee-ff", "aa:bb:cc:dd:ee:fg", "aa:bb:cc:dd:ee:ff\n"]
)
def test_text_that_is_no_mac_is_refused(text):
    with pytest.raises(InvalidConfig):
        Mac.parse(text)


@pytest.mark.parametrize("length", [0, 5, 7])
def test_only_six_bytes_are_a_mac(length):
    with pytest.raises(ValueError, match="6 bytes"):
        Mac(bytes(length))
