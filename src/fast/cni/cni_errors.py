"""CNI error codes: the one table that maps Fast's errors to them, and the specification's error object.

Codes below 100 are the specification's ("Well-known Error Codes"); those from 100 are Fast's own. ``msg`` is for
people, ``details`` for logs. Nothing here decides what to do about an error.
"""

from __future__ import annotations

import enum

import msgspec

from fast import errors
from fast.cni.frames import CniReply
from fast.errors import FastError


class Code(enum.IntEnum):
    """Every code that Fast answers with."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51

    INVALID_RANGE = 100
    POOL_NOT_FOUND = 101
    POOL_NOT_ALLOWED = 102
    POOL_EXHAUSTED = 103
    ADDRESS_CONFLICT = 104
    POD_NOT_ELIGIBLE = 105
    IPAM = 109
    API_FORBIDDEN = 110
    API_NOT_FOUND = 111
    API_INVALID = 112
    API = 119
    DATAPATH = 120
    NETLINK = 121
    NFTABLES = 122
    BPF = 123
    MAP_FULL = 124
    LAYOUT_MISMATCH = 125
    FEATURE_UNSUPPORTED = 126
    CHECK_FAILED = 130
    INTERNAL = 199


class CallError(FastError):
    """The call itself is at fault, or only CNI has its answer (such as code 50 of STATUS).

    Args:
        code: What to answer.
        message: One sentence for people. For code 4 it names the variable, for code 2 the key and its value
            (both asked for by the specification).
        details: More, for logs.
    """

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


#: A subclass that is not listed has the code of its nearest base. A test checks that every leaf is listed.
CODES: dict[type[FastError], Code] = {
    errors.InvalidConfig: Code.INVALID_CONFIG,
    errors.InvalidRange: Code.INVALID_RANGE,
    errors.PoolNotFound: Code.POOL_NOT_FOUND,
    errors.PoolNotAllowed: Code.POOL_NOT_ALLOWED,
    errors.PoolExhausted: Code.POOL_EXHAUSTED,
    errors.AddressConflict: Code.ADDRESS_CONFLICT,
    errors.PodNotEligible: Code.POD_NOT_ELIGIBLE,
    errors.IPAMError: Code.IPAM,
    errors.Unauthorized: Code.TRY_AGAIN_LATER,
    errors.Forbidden: Code.API_FORBIDDEN,
    errors.NotFound: Code.API_NOT_FOUND,
    errors.Conflict: Code.TRY_AGAIN_LATER,
    errors.Invalid: Code.API_INVALID,
    errors.Expired: Code.TRY_AGAIN_LATER,
    errors.Throttled: Code.TRY_AGAIN_LATER,
    errors.Unavailable: Code.TRY_AGAIN_LATER,
    errors.NoCredentials: Code.TRY_AGAIN_LATER,
    errors.KubeError: Code.API,
    errors.DatapathError: Code.DATAPATH,
    errors.NetlinkError: Code.NETLINK,
    errors.NftablesError: Code.NFTABLES,
    errors.BPFError: Code.BPF,
    errors.VerifierError: Code.BPF,
    errors.MapFull: Code.MAP_FULL,
    errors.LayoutMismatch: Code.LAYOUT_MISMATCH,
    errors.FeatureUnsupported: Code.FEATURE_UNSUPPORTED,
    errors.NetnsOfNode: Code.INVALID_ENVIRONMENT,
    # code 3: nothing of the call is left, so the runtime need not clean up
    errors.NetnsGone: Code.UNKNOWN_CONTAINER,
    errors.AgentUnavailable: Code.TRY_AGAIN_LATER,
}


def code_of(error: FastError) -> Code:
    """Return the CNI code of an error: its own, its class's, or its nearest listed base's."""
    if isinstance(error, CallError):
        return error.code
    for cls in type(error).__mro__:
        if cls in CODES:
            return CODES[cls]
    return Code.INTERNAL


class ErrorObject(msgspec.Struct, rename={"cni_version": "cniVersion"}):
    """What the specification calls an error result."""

    cni_version: str
    code: int
    msg: str
    details: str = ""


def error_reply(error: BaseException, cni_version: str) -> CniReply:
    """Make the reply for a failed call: exit status 1, and the error object in the caller's version."""
    if isinstance(error, FastError):
        code, message = code_of(error), str(error)
        details = error.details if isinstance(error, CallError) else _chain(error)
    else:
        code, message = (
            Code.INTERNAL,
            "fast-agent failed because of a bug; its log has the traceback",
        )
        details = f"{type(error).__name__}: {error}"
    return CniReply(1, msgspec.json.encode(ErrorObject(cni_version, code, message, details)) + b"\n")


def _chain(error: BaseException) -> str:
    """Describe the error's class, and what caused it."""
    parts = [type(error).__name__]
    cause = error.__cause__
    while cause is not None:
        parts.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__
    return " <- ".join(parts)
