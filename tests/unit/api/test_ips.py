"""Which addresses a pool's spec means."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.api.ips import Ips, IpsSpec, pool_addresses
from fast.api.meta import ObjectMeta
from fast.errors import InvalidRange

SUBNET = ip_network("10.0.0.0/24")
HOST = st.integers(0, 255)
SPANS = st.lists(st.tuples(HOST, HOST).map(sorted), min_size=1, max_size=5)


def text(span) -> str:
    return f"{SUBNET[span[0]]}-{SUBNET[span[1]]}"


def hosts(spans) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}


@given(SPANS, st.lists(st.tuples(HOST, HOST).map(sorted), max_size=5))
def test_the_pool_is_what_is_written_without_what_is_excluded(spans, excluded):
    spec = IpsSpec(subnet=str(SUBNET), ips=tuple(map(text, spans)), exclude_ips=tuple(map(text, excluded)))
    expected = hosts(spans) - hosts(excluded)
    if not expected:
        with pytest.raises(InvalidRange, match="leaves no address"):
            pool_addresses(spec)
        return
    usable = pool_addresses(spec).usable
    assert {int(address) & 0xFF for address in usable} == expected


@given(st.integers(8, 30))
def test_a_subnet_alone_leaves_out_network_and_broadcast_address(prefix):
    network = ip_network(f"10.0.0.0/{prefix}")
    found = pool_addresses(IpsSpec(subnet=str(network)))
    assert found.usable.size == network.num_addresses - 2
    assert network[0] not in found.usable
    assert network[-1] not in found.usable


@pytest.mark.parametrize(("subnet", "size"), [("10.0.0.0/31", 2), ("10.0.0.1/32", 1), ("fd00::/127", 2)])
def test_a_subnet_without_network_address_is_used_whole(subnet, size):
    assert pool_addresses(IpsSpec(subnet=subnet)).usable.size == size


def test_an_ipv6_subnet_leaves_out_the_router_anycast_address_only():
    found = pool_addresses(IpsSpec(subnet="fd00::/64"))
    assert found.usable.size == 2**64 - 1
    assert ip_address("fd00::") not in found.usable
    assert found.version == 6


def test_host_bits_of_the_subnet_are_dropped():
    assert pool_addresses(IpsSpec(subnet="10.244.0.1/16")).subnet == ip_network("10.244.0.0/16")


def test_the_quick_starts_first_address_is_10_244_10_0():
    spec = IpsSpec(subnet="10.244.0.1/16", ips=("10.244.10.0-10.244.90.0",))
    assert next(iter(pool_addresses(spec).usable)) == ip_address("10.244.10.0")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (IpsSpec(subnet="10.0.0.0"), ["spec.subnet", "10.0.0.0"]),
        (IpsSpec(subnet="10.0.0.0/24", ips=("10.0.0.9-10.0.0.1",)), ["spec.ips", "reversed", "10.0.0.9"]),
        (
            IpsSpec(subnet="10.0.0.0/24", ips=("10.0.1.1",)),
            ["spec.ips", "10.0.1.1", "outside", "10.0.0.0/24"],
        ),
        (IpsSpec(subnet="10.0.0.0/24", ips=("fd00::1",)), ["spec.ips", "fd00::1", "outside"]),
        (IpsSpec(subnet="10.0.0.0/24", exclude_ips=("x",)), ["spec.excludeIPs", "'x'"]),
    ],
)
def test_a_refusal_names_the_field_and_the_text(spec, words):
    with pytest.raises(InvalidRange) as caught:
        pool_addresses(spec)
    assert all(word in str(caught.value) for word in words)


def test_a_pool_without_status_is_written_without_one():
    pool = Ips(metadata=ObjectMeta(name="p"), spec=IpsSpec(subnet="10.0.0.0/24"))
    assert msgspec.to_builtins(pool) == {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "Ips",
        "metadata": {"name": "p"},
        "spec": {"subnet": "10.0.0.0/24"},
    }


def test_special_purpose_addresses_are_none_of_a_pool():
    found = pool_addresses(
        IpsSpec(subnet="169.252.0.0/14", ips=("169.253.255.255-169.254.0.1", "169.255.0.0"))
    )
    assert str(found.usable) == "169.253.255.255, 169.255.0.0"
    with pytest.raises(InvalidRange, match="no address that a pod can have"):
        pool_addresses(IpsSpec(subnet="127.0.0.0/8"))
