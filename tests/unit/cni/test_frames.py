"""The frames between fast-cni and the agent."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.cni.frames import (
    MAX_ENV_BYTES,
    MAX_STDIN_BYTES,
    CniCall,
    CniReply,
    decode_call,
    decode_reply,
    encode_call,
    encode_reply,
    frame_bytes,
)
from fast.errors import InvalidConfig

KEYS = st.from_regex(r"CNI_[A-Z]{1,10}", fullmatch=True)
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)))


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.binary(max_size=200))
def test_a_call_is_read_as_it_was_written(env, stdin):
    frame = encode_call(CniCall(env, stdin))
    assert decode_call(frame) == CniCall(env, stdin)
    assert frame_bytes(frame) == len(frame)


def test_bytes_that_are_no_utf8_pass_through():
    frame = struct.pack("<II", 8, 0) + b"CNI_X=\xff\0"
    assert encode_call(decode_call(frame)) == frame


@given(st.integers(0, 255), st.binary(max_size=200))
def test_a_reply_is_read_as_it_was_written(status, stdout):
    assert decode_reply(encode_reply(CniReply(status, stdout))) == CniReply(status, stdout)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_frame_are_an_error_and_nothing_else(data):
    for decode in (decode_call, decode_reply):
        try:
            decode(data)
        except InvalidConfig:
            continue


@given(st.integers(0, 40))
def test_a_frame_that_is_cut_off_is_refused(length):
    frame = encode_call(CniCall({"CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0"}, b"{}"))
    with pytest.raises(InvalidConfig):
        decode_call(frame[: min(length, len(frame) - 1)])


@pytest.mark.parametrize("sizes", [(MAX_ENV_BYTES + 1, 0), (0, MAX_STDIN_BYTES + 1), (2**32 - 1, 2**32 - 1)])
def test_a_size_over_the_limit_is_refused_before_anything_is_read(sizes):
    with pytest.raises(InvalidConfig, match="limit"):
        frame_bytes(struct.pack("<II", *sizes))
