"""The frames between fast-cni and the agent: encoding and decoding. No verbs, no sockets, no JSON.

All integers are u32 little endian; ``cni-plugin/fast-cni.c`` is the other end::

    request: env length, stdin length, env as NUL-terminated KEY=VALUE (CNI_* only), stdin
    reply:   exit status, length, what to print on stdout

A tombstone file holds one request frame.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fast.errors import InvalidConfig

MAX_ENV_BYTES = 64 * 1024
MAX_STDIN_BYTES = 1024 * 1024
MAX_REPLY_BYTES = 1024 * 1024

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class CniCall:
    """One execution of the plugin.

    Attributes:
        env: Its ``CNI_*`` variables; bytes that are not UTF-8 are surrogates.
        stdin: The network configuration.
        netns_path: Where this process can open the namespace that ``CNI_NETNS`` names, because fast-cni passed its
            descriptor; "" if it passed none. Not part of the frame.
    """

    env: Mapping[str, str]
    stdin: bytes = b""
    netns_path: str = ""


@dataclass(frozen=True, slots=True)
class CniReply:
    """How the plugin's process ends: exit status, and what it prints on stdout."""

    exit_code: int
    stdout: bytes = b""


def encode_call(call: CniCall) -> bytes:
    """Make the request frame of a call; the inverse of :func:`decode_call`."""
    env = b"".join(
        f"{key}={value}".encode("utf-8", "surrogateescape") + b"\0" for key, value in call.env.items()
    )
    return _HEADER.pack(len(env), len(call.stdin)) + env + call.stdin


def decode_call(frame: bytes) -> CniCall:
    """Read a whole request frame, from a connection or a tombstone file.

    Raises:
        InvalidConfig: The frame is cut off, has something behind it, or is larger than the limits.
    """
    if len(frame) < HEADER_BYTES:
        raise InvalidConfig(f"a frame of {len(frame)} bytes has no header")
    if len(frame) != (announced := frame_bytes(frame)):
        raise InvalidConfig(f"the frame announces {announced} bytes and has {len(frame)}")
    stdin_at = HEADER_BYTES + _HEADER.unpack_from(frame)[0]
    return CniCall(_decode_env(frame[HEADER_BYTES:stdin_at]), frame[stdin_at:])


def frame_bytes(header: bytes) -> int:
    """Return the length of a request frame, its header included, from its first :data:`HEADER_BYTES`.

    Raises:
        InvalidConfig: A size is over the limit.
    """
    env_bytes, stdin_bytes = _HEADER.unpack_from(header)
    if env_bytes > MAX_ENV_BYTES:
        raise InvalidConfig(f"the CNI_ variables are {env_bytes} bytes; the limit is {MAX_ENV_BYTES}")
    if stdin_bytes > MAX_STDIN_BYTES:
        raise InvalidConfig(
            f"the network configuration is {stdin_bytes} bytes; the limit is {MAX_STDIN_BYTES}"
        )
    return HEADER_BYTES + int(env_bytes) + int(stdin_bytes)


def encode_reply(reply: CniReply) -> bytes:
    """Make the reply frame."""
    return _HEADER.pack(reply.exit_code, len(reply.stdout)) + reply.stdout


def decode_reply(frame: bytes) -> CniReply:
    """Read a whole reply frame.

    Raises:
        InvalidConfig: The frame is cut off.
    """
    if len(frame) < HEADER_BYTES:
        raise InvalidConfig(f"a frame of {len(frame)} bytes has no header")
    exit_code, stdout_bytes = _HEADER.unpack_from(frame)
    stdout = frame[HEADER_BYTES:]
    if len(stdout) != stdout_bytes:
        raise InvalidConfig(f"the frame announces {stdout_bytes} bytes and has {len(stdout)}")
    return CniReply(exit_code, stdout)


def _decode_env(block: bytes) -> dict[str, str]:
    entries = (entry.decode("utf-8", "surrogateescape") for entry in block.split(b"\0") if entry)
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}
