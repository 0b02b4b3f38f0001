"""From Fast's errors to the codes of the CNI specification."""

import json

import pytest

from fast import errors
from fast.cni import CODES, CallError, Code, code_of, error_reply
from fast.errors import FastError, KubeError, PoolExhausted, Unavailable

WELL_KNOWN = {1, 2, 3, 4, 5, 6, 7, 11, 50, 51}


def leaves(cls=FastError):
    below = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    return [leaf for sub in below for leaf in leaves(sub)] or [cls]


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_every_leaf_of_the_error_tree_has_a_code(leaf):
    assert leaf in CODES


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_codes_below_100_are_the_specifications(code):
    assert code >= 100 or code in WELL_KNOWN


@pytest.mark.parametrize("cls", CODES, ids=lambda cls: cls.__name__)
def test_what_a_retry_may_mend_of_the_api_server_is_error_11(cls):
    if issubclass(cls, KubeError) and cls.retryable:
        assert CODES[cls] in (Code.TRY_AGAIN_LATER, Code.API)


def test_a_class_that_is_not_listed_has_the_code_of_its_nearest_base():
    class Fuller(PoolExhausted):
        pass

    assert code_of(Fuller("full")) == Code.POOL_EXHAUSTED


def test_an_error_object_tells_message_and_what_caused_it():
    try:
        try:
            raise OSError("no route")
        except OSError as cause:
            raise Unavailable("the API server is away") from cause
    except Unavailable as error:
        reply = error_reply(error, "0.4.0")
    said = json.loads(reply.stdout)
    assert (reply.exit_code, said["cniVersion"], said["code"]) == (1, "0.4.0", 11)
    assert said["msg"] == "the API server is away"
    assert "no route" in said["details"]


def test_a_call_error_keeps_its_own_code_and_details():
    said = json.loads(error_reply(CallError(Code.NOT_AVAILABLE, "not ready", "why"), "1.1.0").stdout)
    assert said == {"cniVersion": "1.1.0", "code": 50, "msg": "not ready", "details": "why"}


def test_an_exception_that_nobody_foresaw_is_error_199_and_not_a_traceback_on_stdout():
    said = json.loads(error_reply(ZeroDivisionError("division by zero"), "1.1.0").stdout)
    assert said["code"] == 199
    assert "division by zero" in said["details"]
