"""The edge to libbpf: the compiled extension, and its error codes turned into exceptions. Nothing of Fast's own maps.

The extension's calls release the GIL. Everything in this package blocks and may be called from any thread.
"""

from __future__ import annotations

import errno as errors
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fast.errors import BPFError

try:
    from fast.datapath.bpf._libbpf import ffi as _ffi
    from fast.datapath.bpf._libbpf import lib as _lib
except ImportError as error:  # pragma: no cover -- only in a tree that was never built
    raise BPFError(f"the extension over libbpf is not there ({error}); `make build` makes it") from error

ffi: Any = _ffi
lib: Any = _lib

_LOG_BYTES = 1 << 18

lib.fast_log_capture()


def take_log() -> str:
    """Return and clear what libbpf logged in this thread, the kernel verifier's log included."""
    buffer = ffi.new("char[]", _LOG_BYTES)
    size = lib.fast_log_take(buffer, _LOG_BYTES)
    return bytes(ffi.buffer(buffer, size)).decode(errors="replace")


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what libbpf logs inside: for calls whose failure is an answer, such as probes."""
    try:
        yield
    finally:
        take_log()


def check(result: int, doing: str) -> int:
    """Return the result of a libbpf call, or raise for a negative one.

    Args:
        result: What the call returned: negative errno on failure.
        doing: What was being done, to begin the message with, as ``pinning map fast_flow_table``.

    Raises:
        BPFError: The call failed; ``errno`` is positive.
    """
    if result >= 0:
        return result
    raise error_of(-result, doing)


def error_of(number: int, doing: str) -> BPFError:
    """Make the exception for errno ``number``, with a hint where the number alone misleads."""
    hint = {
        errors.EPERM: " (CAP_BPF and CAP_NET_ADMIN are needed)",
        errors.ENOMEM: " (out of memory for eBPF: memory cgroup, or RLIMIT_MEMLOCK before Linux 5.11)",
    }.get(number, "")
    return BPFError(f"{doing}: {os.strerror(number)}{hint}", number)


class Descriptor:
    """A file descriptor of an eBPF object that is closed with this, or by ``with``."""

    def __init__(self, fd: int) -> None:
        """Own ``fd`` from here on."""
        self._fd = fd

    @property
    def fd(self) -> int:
        """The descriptor; BPFError once it is closed."""
        if self._fd < 0:
            raise BPFError(f"{type(self).__name__} is closed", errors.EBADF)
        return self._fd

    def close(self) -> None:
        """Close the descriptor. Pins and attachments keep the object alive in the kernel. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
