"""The frames between fast-cni and the agent: bytes to values and back. No verbs, no sockets, no JSON.

All integers are u32 little endian; ``cni-plugin/fast-cni.c`` is the other end::

    request: env length, stdin length, env as NUL-terminated KEY=VALUE (CNI_* only), stdin
    reply:   exit status, length, what to print on stdout

A tombstone file holds one request frame.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fast.errors import InvalidConfig

MAX_ENV_BYTES = 64 * 1024
MAX_STDIN_BYTES = 1024 * 1024
MAX_REPLY_BYTES = 1024 * 1024

_HEADER = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class CniCall:
    """One execution of the plugin: its ``CNI_*`` environment and what stood on its stdin."""

    env: Mapping[str, str]
    stdin: bytes = b""


@dataclass(frozen=True, slots=True)
class CniReply:
    """How the plugin's process shall end: exit status, and what it prints on stdout."""

    exit_code: int
    stdout: bytes = b""


def encode_call(call: CniCall) -> bytes:
    """Make the request frame of a call; the inverse of :func:`decode_call`."""
    env = b"".join(
        f"{key}={value}".encode("utf-8", "surrogateescape") + b"\0" for key, value in call.env.items()
    )
    return _HEADER.pack(len(env), len(call.stdin)) + env + call.stdin


def decode_call(frame: bytes) -> CniCall:
    """Read a whole request frame, as a tombstone file holds it.

    Raises:
        InvalidConfig: The frame is cut off, has something behind it, or is larger than the limits.
    """
    if len(frame) < _HEADER.size:
        raise InvalidConfig(f"a frame of {len(frame)} bytes has no header")
    env_bytes, stdin_bytes = _checked_sizes(frame[: _HEADER.size])
    body = frame[_HEADER.size :]
    if len(body) != env_bytes + stdin_bytes:
        raise InvalidConfig(f"the frame announces {env_bytes + stdin_bytes} bytes and has {len(body)}")
    return CniCall(_decode_env(body[:env_bytes]), body[env_bytes:])


async def read_call(reader: asyncio.StreamReader) -> CniCall:
    """Read one request frame from a connection.

    Raises:
        InvalidConfig: A size is over the limit; nothing more was read.
        asyncio.IncompleteReadError: The other end went away.
    """
    env_bytes, stdin_bytes = _checked_sizes(await reader.readexactly(_HEADER.size))
    env = await reader.readexactly(env_bytes)
    return CniCall(_decode_env(env), await reader.readexactly(stdin_bytes))


def encode_reply(reply: CniReply) -> bytes:
    """Make the reply frame."""
    return _HEADER.pack(reply.exit_code, len(reply.stdout)) + reply.stdout


def decode_reply(frame: bytes) -> CniReply:
    """Read a whole reply frame.

    Raises:
        InvalidConfig: The frame is cut off.
    """
    if len(frame) < _HEADER.size:
        raise InvalidConfig(f"a frame of {len(frame)} bytes has no header")
    exit_code, stdout_bytes = _HEADER.unpack_from(frame)
    stdout = frame[_HEADER.size :]
    if len(stdout) != stdout_bytes:
        raise InvalidConfig(f"the frame announces {stdout_bytes} bytes and has {len(stdout)}")
    return CniReply(exit_code, stdout)


def _checked_sizes(header: bytes) -> tuple[int, int]:
    env_bytes, stdin_bytes = _HEADER.unpack(header)
    if env_bytes > MAX_ENV_BYTES:
        raise InvalidConfig(f"the CNI_ variables are {env_bytes} bytes; the limit is {MAX_ENV_BYTES}")
    if stdin_bytes > MAX_STDIN_BYTES:
        raise InvalidConfig(
            f"the network configuration is {stdin_bytes} bytes; the limit is {MAX_STDIN_BYTES}"
        )
    return env_bytes, stdin_bytes


def _decode_env(block: bytes) -> dict[str, str]:
    entries = (entry.decode("utf-8", "surrogateescape") for entry in block.split(b"\0") if entry)
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}
