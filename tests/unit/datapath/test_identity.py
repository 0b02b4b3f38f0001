"""Names, MACs and aliases of endpoints."""

import string
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.datapath.pod.identity import (
    Alias,
    EndpointSpec,
    format_alias,
    host_device_name,
    macs_of,
    parse_alias,
)
from fast.errors import InvalidConfig

CONTAINER = "3f" * 32
V4, V6 = ip_address("10.244.10.0"), ip_address("fd00::1")

container_ids = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=64)
ifnames = st.text(string.ascii_lowercase + string.digits + "-_.@", min_size=1, max_size=15)
addresses = st.lists(st.ip_addresses(), min_size=1, max_size=2).map(tuple)


@given(container_ids, ifnames)
def test_the_host_device_name_fits_the_kernel_and_depends_on_both_parts_of_the_identity(container_id, ifname):
    name = host_device_name(container_id, ifname)
    assert len(name) <= 15
    assert name.startswith("fast")
    assert name != host_device_name(container_id, ifname + "x")
    assert name != host_device_name(container_id + "x", ifname)


@given(container_ids, ifnames, addresses, st.booleans())
def test_an_alias_reads_back_to_what_was_written(container_id, ifname, found, via_stack):
    alias = Alias(container_id, ifname, found, via_stack)
    assert parse_alias(format_alias(alias)) == alias


@pytest.mark.parametrize(
    "alias", ["", "uplink", "fast:", "fast:abc", "fast:abc/eth0", "fast:abc/eth0 nonsense"]
)
def test_an_alias_that_is_not_fasts_is_nobodys(alias):
    assert parse_alias(alias) is None


def test_the_two_ends_have_different_macs_that_stay_the_same():
    host, pod = macs_of(CONTAINER, "eth0")
    assert host != pod
    assert (host, pod) == macs_of(CONTAINER, "eth0")
    assert not (host[0] | pod[0]) & 1, "unicast"


def test_a_dual_stack_endpoint_of_the_longest_names_fits_into_the_alias():
    longest = ip_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
    EndpointSpec(CONTAINER, "e" * 15, "/run/netns/x", (ip_address("255.255.255.255"), longest))


@pytest.mark.parametrize(
    ("container_id", "ifname", "found"),
    [
        ("", "eth0", (V4,)),
        ("c", "", (V4,)),
        ("c", "sixteencharacter", (V4,)),
        ("c", "a/b", (V4,)),
        ("c", "a b", (V4,)),
        ("c", "eth0", ()),
        ("c" * 250, "eth0", (V4,)),
    ],
)
def test_a_spec_that_the_kernel_could_not_hold_is_refused(container_id, ifname, found):
    with pytest.raises(InvalidConfig):
        EndpointSpec(container_id, ifname, "/run/netns/x", found)
