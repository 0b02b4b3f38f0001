"""What is read from a network configuration."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.cni import CallError
from fast.cni.network_config import NetworkConfig, parse_config, without_nulls
from fast.cni.results import Result, parse_result

NETWORK = {"cniVersion": "1.1.0", "name": "fast", "type": "fast-cni"}


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_a_previous_result_is_taken_as_it_is(command):
    previous = {"cniVersion": "1.1.0", "ips": []}
    config = parse_config(json.dumps(NETWORK | {"prevResult": previous}).encode(), command)
    assert config.has_prev_result
    assert config.prev_result == previous


@pytest.mark.parametrize("fields", [{}, {"prevResult": None}])
def test_an_absent_or_null_previous_result_is_none(fields):
    assert not parse_config(json.dumps(NETWORK | fields).encode(), "DEL").has_prev_result


FIELDS = {
    "mtu": 1400,
    "dns": {"nameservers": ["10.96.0.10"], "domain": "a", "search": ["b"], "options": ["c"]},
    "runtimeConfig": {"ips": ["10.0.0.1"], "mac": "", "bandwidth": {"ingressRate": 1}},
    "args": {"cni": {"ips": ["10.0.0.1"]}},
    "ipam": {},
    "prevResult": {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "x", "mac": "a", "mtu": 1, "sandbox": "s", "socketPath": "p", "pciID": "i"}],
        "ips": [{"address": "10.0.0.1/32", "interface": 0, "gateway": "", "version": "4"}],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "", "mtu": 1, "advmss": 1, "priority": 1, "table": 1, "scope": 1}
        ],
        "dns": {"nameservers": ["10.96.0.10"]},
    },
    "capabilities": {"ips": True},
}
REQUIRED = {"name", "address", "dst"}  # of an entry of interfaces, ips and routes


def members(value, path=()):
    """Every member of an object, at any depth, by its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from members(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from members(item, (*path, index))


def changed(value, path, change):
    """A copy in which ``change`` was done to the object that has the last member of the path."""
    copy = json.loads(json.dumps(value))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return copy


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("path", [path for path in members(FIELDS) if path[-1] not in REQUIRED], ids=str)
def test_null_is_taken_as_absence_in_every_place(path, command):
    whole = NETWORK | FIELDS | {"cni.dev/valid-attachments": []}
    null = changed(whole, path, lambda holder, key: holder.update({key: None}))
    absent = changed(whole, path, lambda holder, key: holder.pop(key))
    taken = parse_config(json.dumps(null).encode(), command)
    assert taken == parse_config(json.dumps(absent).encode(), command)
    if taken.has_prev_result:
        assert isinstance(parse_result(taken.prev_result), Result)


def test_a_list_of_attachments_without_entries_is_null_in_go_and_one_that_is_missing_is_refused():
    null = json.dumps(NETWORK | {"cni.dev/valid-attachments": None}).encode()
    assert parse_config(null, "GC").valid_attachments == ()
    with pytest.raises(CallError, match="valid-attachments is missing"):
        parse_config(json.dumps(NETWORK).encode(), "GC")


@pytest.mark.parametrize(
    "fields", [{"mtu": "big"}, {"dns": 7}, {"ipam": {"type": "x"}}, {"runtimeConfig": []}]
)
def test_del_reads_no_more_of_a_configuration_than_it_needs(fields):
    text = json.dumps(NETWORK | fields).encode()
    assert parse_config(text, "DEL") == NetworkConfig(cni_version="1.1.0", name="fast", type="fast-cni")
    with pytest.raises(CallError):
        parse_config(text, "ADD")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_not_json_is_error_6_however_deep(text, command):
    with pytest.raises(CallError) as caught:
        parse_config(text, command)
    assert caught.value.code == 6


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


def scalars(value):
    """Every value that is neither an object nor an array, and every null of an array, in order."""
    if isinstance(value, dict):
        return [found for item in value.values() if item is not None for found in scalars(item)]
    if isinstance(value, list):
        return [found for item in value for found in scalars(item)]
    return [value]


def has_null_member(value):
    if isinstance(value, dict):
        return any(item is None or has_null_member(item) for item in value.values())
    return isinstance(value, list) and any(map(has_null_member, value))


@given(JSON)
def test_no_member_is_null_afterwards_and_nothing_else_is_lost(value):
    assert not has_null_member(without_nulls(value))
    assert scalars(without_nulls(value)) == scalars(value)
