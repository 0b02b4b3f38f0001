"""Sends frames out of a device as they are, and watches what a pinned object counts. No assertions live here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kernel.lab import Machine

_ETH_P_ALL = 3


def send(machine: Machine, device: str, *frames: bytes) -> None:
    """Send the frames out of the device."""

    def run() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind((device, 0))
            for frame in frames:
                raw.send(frame)

    machine.call(run)


class Stream:
    """Frames that are being sent, and how many have been."""

    sent = 0


@contextmanager
def stream(machine: Machine, device: str, frame: bytes) -> Iterator[Stream]:
    """Send the frame again and again, as fast as a busy machine lets one thread, until the block ends."""
    state, stop = Stream(), threading.Event()

    def run() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind((device, 0))
            while not stop.wait(0.0002):
                raw.send(frame)
                state.sent += 1

    future = machine.submit(run)
    try:
        yield state
    finally:
        stop.set()
        future.result(10)
