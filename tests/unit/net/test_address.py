"""Addresses and their spellings: text, record name, map key."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.errors import InvalidRange
from fast.net import from_map_key, map_key, parse_address, parse_record_name, record_name

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
UNMAPPED_V6 = V6.filter(lambda address: address.ipv4_mapped is None)


@given(V4 | V6)
def test_an_address_survives_being_written_and_read(address):
    assert parse_address(str(address)) == address


@given(V4 | V6)
def test_a_record_name_reads_back_as_the_address(address):
    assert parse_record_name(record_name(address)) == address


@given(V4 | V6, V4 | V6)
def test_two_addresses_never_share_a_record_name(one, other):
    assert (record_name(one) == record_name(other)) == (one == other)


@given(V4 | V6)
def test_a_record_name_is_a_kubernetes_object_name(address):
    name = record_name(address)
    assert set(name) <= set("0123456789abcdef.-")
    assert name[0].isalnum()
    assert name[-1].isalnum()
    assert len(name) <= 253


@given(V4 | UNMAPPED_V6)
def test_a_map_key_reads_back_as_the_address(address):
    key = map_key(address)
    assert len(key) == 16
    assert from_map_key(key) == address


@given(V4 | UNMAPPED_V6, V4 | UNMAPPED_V6)
def test_two_addresses_never_share_a_map_key(one, other):
    assert (map_key(one) == map_key(other)) == (one == other)


def test_an_ipv4_address_stands_in_a_key_as_its_mapped_ipv6_address():
    assert map_key(IPv4Address("10.244.10.0")) == IPv6Address("::ffff:10.244.10.0").packed


def test_an_ipv6_record_name_is_written_in_full():
    assert record_name(IPv6Address("fd00::1")) == "fd00-0000-0000-0000-0000-0000-0000-0001"


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.256", "10.0.0.01", "fe80::1%eth0", "10.0.0.0/24", "pod"]
)
def test_text_that_is_no_address_is_refused_and_quoted(text):
    with pytest.raises(InvalidRange, match=r"not an IP address|zone index") as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["fd00--1", "FD00-0000-0000-0000-0000-0000-0000-0001", "fd00::1", " 10.0.0.1", "10-0-0-1", "x"]
)
def test_a_name_that_record_name_would_not_give_is_refused(name):
    with pytest.raises(InvalidRange):
        parse_record_name(name)


@given(st.text())
def test_any_text_is_an_address_or_refused_in_our_own_words(text):
    with contextlib.suppress(InvalidRange):
        parse_address(text)
