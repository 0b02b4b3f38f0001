"""Every answer, and having none, is one of our errors."""

from __future__ import annotations

import json

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast import errors
from fast.errors import Conflict, Expired, Invalid, KubeError, NoCredentials, Throttled, Unavailable
from fast.kube.status_errors import BY_STATUS, error_of_answer, error_of_event, error_of_transport, error_type


def leaves(kind: type[KubeError]) -> set[type[KubeError]]:
    below = kind.__subclasses__()
    return {leaf for child in below for leaf in leaves(child)} if below else {kind}


@given(st.integers(100, 999))
def test_every_status_has_an_error_that_is_a_leaf_of_the_tree(status):
    assert error_type(status) in leaves(KubeError)


def test_every_kube_error_that_is_an_answer_stands_for_some_status():
    assert {error_type(status) for status in range(100, 600)} == leaves(KubeError) - {NoCredentials}


@pytest.mark.parametrize(
    ("status", "kind"), [*BY_STATUS.items(), (400, Invalid), (422, Invalid), (503, Unavailable)]
)
def test_the_table_is_what_decides(status, kind):
    error = error_of_answer("get x", status, b"")
    assert type(error) is kind
    assert error.status == status


def test_a_status_objects_reason_and_message_are_kept():
    body = json.dumps(
        {"kind": "Status", "reason": "AlreadyExists", "message": "x already exists", "code": 409}
    )
    error = error_of_answer("create x", 409, body.encode())
    assert isinstance(error, Conflict)
    assert error.already_exists
    assert str(error) == "create x: x already exists"


@given(st.integers(300, 599), st.binary(max_size=2000))
def test_whatever_a_proxy_writes_becomes_a_short_message(status, body):
    error = error_of_answer("get x", status, body)
    assert str(error).startswith("get x: ")
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("Wed, 21 Oct", None)]
)
def test_retry_after_is_read_from_the_header(header, seconds):
    error = error_of_answer("get x", 429, b"{}", header)
    assert isinstance(error, Throttled)
    assert error.retry_after_seconds == seconds


def test_retry_after_is_read_from_the_status_where_no_header_came():
    error = error_of_answer("get x", 500, b'{"details": {"retryAfterSeconds": 3}}')
    assert error.retry_after_seconds == 3.0


def test_an_error_event_of_a_watch_is_the_error_of_its_code():
    assert isinstance(error_of_event("watch x", msgspec.Raw(b'{"code": 410, "reason": "Expired"}')), Expired)


@pytest.mark.parametrize("raw", [b"{}", b"[]", b'"x"'])
def test_an_error_event_without_a_code_is_a_server_that_cannot_serve(raw):
    assert isinstance(error_of_event("watch x", msgspec.Raw(raw)), Unavailable)


@pytest.mark.parametrize(
    "cause", [TimeoutError(), ConnectionResetError("reset"), aiohttp.ServerDisconnectedError(), OSError("x")]
)
def test_no_answer_means_unavailable(cause):
    error = error_of_transport("get x", cause)
    assert isinstance(error, Unavailable)
    assert error.retryable
    assert error.status == 0


def test_every_error_of_the_tree_says_whether_retrying_helps():
    assert {kind for kind in leaves(errors.KubeError) if not kind.retryable} == {
        errors.Forbidden,
        errors.NotFound,
        errors.Invalid,
    }
