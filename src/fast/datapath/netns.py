"""Network namespaces: opening one by its path and running a function inside it. Nothing about what is done there."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from fast.errors import NetnsGone

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2): works on any descriptor of a namespace, and on nothing else
_LIBC = ctypes.CDLL(None, use_errno=True)


class Netns:
    """An open network namespace. It cannot vanish while this is open, even if its path does.

    Attributes:
        fd: The descriptor, close-on-exec.
        inode: Tells namespaces apart while they live.
    """

    __slots__ = ("fd", "inode")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the namespace that is bound to ``path``, or is ``/proc/PID/ns/net``.

        Raises:
            NetnsGone: Nothing is there, or no network namespace, such as the file that stays behind when a namespace is
                unmounted.
        """
        try:
            # O_NONBLOCK: opening a FIFO would wait for its other end
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise NetnsGone(f"network namespace {path!r} cannot be opened: {error.strerror}") from error
        try:
            if fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
                raise OSError(errno.EINVAL, "a namespace of another type")
        except OSError as error:
            os.close(fd)
            raise NetnsGone(f"{path!r} is no network namespace: {error.strerror}") from error
        return cls(fd)

    def is_own(self) -> bool:
        """Return whether the calling thread is in this namespace."""
        own, this = os.stat("/proc/thread-self/ns/net"), os.fstat(self.fd)
        return (own.st_dev, own.st_ino) == (this.st_dev, this.st_ino)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_in(netns_fd: int, function: Callable[[], T]) -> T:
    """Run ``function`` in the namespace, in a thread of its own that ends with it, and give what it returns or raises.

    A thread, because setns(2) changes only the calling thread, and a fork of a large agent costs 10-20 ms.

    Raises:
        NetnsGone: The namespace cannot be entered.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            enter(netns_fd)
            results.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="fast-netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def enter(netns_fd: int) -> None:
    """Move the calling thread into the namespace, for good. os.setns only comes with Python 3.12.

    Raises:
        NetnsGone: The descriptor is no network namespace, or may not be entered.
    """
    if _LIBC.setns(netns_fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise NetnsGone(f"cannot enter the network namespace: {os.strerror(code)}")
