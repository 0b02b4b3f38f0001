"""Protobuf bodies, byte by byte: what is known is read, what is not is refused, and nonsense never does harm."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_playground.apiserver.api import ApiError
from fast_playground.apiserver.protobuf import MAGIC, decode


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _body(kind: str, raw: bytes, version: str = "v1") -> bytes:
    return (
        MAGIC
        + _field(1, _field(1, version) + _field(2, kind))
        + _field(2, raw)
        + _field(3, "")
        + _field(4, "")
    )


def test_names_maps_bytes_and_times_are_read():
    label = _field(1, "app") + _field(2, "web")
    meta = _field(1, "cm") + _field(3, "") + _field(8, _field(1, 1_700_000_000)) + _field(11, label)
    raw = (
        _field(1, meta)
        + _field(2, _field(1, "key") + _field(2, "ü"))
        + _field(3, _field(1, "b") + _field(2, b"\x00\xff"))
    )
    assert decode(_body("ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm", "creationTimestamp": "2023-11-14T22:13:20Z", "labels": {"app": "web"}},
        "data": {"key": "ü"},
        "binaryData": {"b": "AP8="},
    }


def test_a_pointers_zero_counts_and_a_plain_zero_means_nothing():
    raw = _field(2, _field(1, 0) + _field(5, 0) + _field(7, 0))
    assert decode(_body("Deployment", raw, "apps/v1"))["spec"] == {"replicas": 0}


def test_negative_numbers_are_read():
    assert decode(_body("DeleteOptions", _field(1, -1)))["gracePeriodSeconds"] == -1


def test_int_or_string_is_either():
    number, text = (
        _field(1, 0) + _field(2, 8080) + _field(3, ""),
        _field(1, 1) + _field(2, 0) + _field(3, "25%"),
    )
    rolling = _field(1, number) + _field(2, text)
    spec = decode(_body("Deployment", _field(2, _field(4, _field(2, rolling))), "apps/v1"))["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 8080, "maxSurge": "25%"}


def test_an_empty_string_in_a_list_stays():
    rule = _field(1, "get") + _field(2, "") + _field(3, "pods")
    raw = _field(2, rule)
    assert decode(_body("Role", raw))["rules"] == [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    ]


def test_a_field_that_is_not_known_may_be_empty_but_not_lost():
    spec = _field(5, 0) + _field(17, "")
    template = _field(3, _field(2, spec))
    assert decode(_body("Deployment", _field(2, template), "apps/v1"))
    with pytest.raises(ApiError, match="field 5 of PodSpec is not supported") as raised:
        decode(_body("Deployment", _field(2, _field(3, _field(2, _field(5, 60)))), "apps/v1"))
    assert raised.value.code == 415


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(ApiError, match="Job is not supported as protobuf") as raised:
        decode(_body("Job", b"", "batch/v1"))
    assert raised.value.code == 415


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a\xff",  # longer than there is
        b"\x0a",  # cut off
        b"\x0b",  # a group: no longer in use
        b"\x08\x01",  # a number where a message should be
        _field(1, _field(1, b"\xff\xfe")),  # no UTF-8
        b"\xff" * 11,  # a number that does not end
    ],
)
def test_what_is_no_message_is_a_bad_request(raw):
    with pytest.raises(ApiError) as raised:
        decode(_body("ConfigMap", raw))
    assert raised.value.code == 400


@given(
    st.binary(max_size=200), st.sampled_from(["ConfigMap", "Deployment", "Role", "Service", "DeleteOptions"])
)
def test_no_bytes_raise_anything_else(raw, kind):
    for body in (MAGIC + raw, _body(kind, raw)):
        with contextlib.suppress(ApiError):
            decode(body)
