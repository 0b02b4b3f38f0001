"""Calls the agent as fast-cni does, for commands that ask it something. Blocking; no verbs."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from fast.cni.frames import HEADER_BYTES, CniCall, CniReply, decode_reply, encode_call


def call_agent(path: Path, call: CniCall, *, seconds: float, netns_fd: int = -1) -> CniReply:
    """Make one call.

    Args:
        path: The agent's socket.
        call: The call.
        seconds: How long to wait for the reply.
        netns_fd: A descriptor of the sandbox's network namespace, for CHECK; -1 for none.

    Raises:
        OSError: There is no agent, or it does not answer in time (TimeoutError).
        InvalidConfig: The answer is not a frame.
    """
    frame = encode_call(call)
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(seconds)
        channel.connect(str(path))
        if netns_fd >= 0:
            socket.send_fds(channel, [frame[:HEADER_BYTES]], [netns_fd])
            frame = frame[HEADER_BYTES:]
        channel.sendall(frame)
        received = b""
        while True:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = channel.recv(1 << 16)
            if not chunk:
                return decode_reply(received)
            received += chunk
