"""The system calls of namespaces and mounts that Python 3.11 does not have. No policy; standard library only."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a filesystem (mount(2)); OSError names source and target."""
    if _LIBC.mount(
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    ):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {kind or source} on {target}: {os.strerror(code)}")


def unmount(target: str) -> None:
    """umount2(2), lazily: the mount leaves the tree at once and ends with its last user."""
    if _LIBC.umount2(target.encode(), _MNT_DETACH):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot unmount {target}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (unshare(2))."""
    if _LIBC.unshare(flags):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot unshare {flags:#x}: {os.strerror(code)}")


def die_with_parent(signal_number: int) -> None:
    """Ask for a signal when the thread that forked this process ends (prctl PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
