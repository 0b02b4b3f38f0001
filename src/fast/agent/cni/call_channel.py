"""Reads one CNI call from a connection of fast-cni: its frame, and the descriptor that comes with it (SCM_RIGHTS)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from dataclasses import replace

from fast.cni.frames import HEADER_BYTES, CniCall, decode_call, frame_bytes

_INT_BYTES = array.array("i").itemsize
#: Room for a few more than the one expected, so that all of them are received and closed.
_ANCILLARY_BYTES = socket.CMSG_SPACE(8 * _INT_BYTES)
_CHUNK_BYTES = 64 * 1024


class ConnectionLost(Exception):
    """The other end closed the connection before its frame was whole."""


async def receive_call(connection: socket.socket) -> tuple[CniCall, contextlib.ExitStack]:
    """Read one request frame from a non-blocking connection.

    Returns:
        The call, whose ``netns_path`` leads to the descriptor that was passed, and what closes it.

    Raises:
        InvalidConfig: The frame is over the limits; nothing more was read.
        ConnectionLost: The frame ended early.
        OSError: The connection broke.
    """
    data, wanted = bytearray(), HEADER_BYTES
    with contextlib.ExitStack() as descriptors:
        passed: list[int] = []
        while len(data) < wanted:
            chunk, fds = await _receive(connection, min(wanted - len(data), _CHUNK_BYTES))
            for fd in fds:
                descriptors.callback(os.close, fd)
            passed += fds
            if not chunk:
                raise ConnectionLost(f"{len(data)} of {wanted} bytes came")
            data += chunk
            if len(data) == wanted == HEADER_BYTES:
                wanted = frame_bytes(bytes(data))
        call = decode_call(bytes(data))
        if passed:
            call = replace(call, netns_path=f"/proc/self/fd/{passed[0]}")
        return call, descriptors.pop_all()
    raise AssertionError("not reached")


async def _receive(connection: socket.socket, most_bytes: int) -> tuple[bytes, list[int]]:
    """Receive some bytes, and the descriptors that came with them."""
    while True:
        try:
            chunk, ancillary, _, _ = connection.recvmsg(most_bytes, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await _readable(connection)
            continue
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % _INT_BYTES])
        return chunk, list(fds)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():  # the loop may call once more before the reader is removed
        ready.set_result(None)
