"""The system calls of namespaces and mounts that Python 3.11 does not have. No policy; standard library only."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
_MNT_DETACH = 2

_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a filesystem (mount(2)); OSError names source and target."""
    names = source.encode(), target.encode(), kind.encode() or None
    failed = _LIBC.mount(*names, ctypes.c_ulong(flags), options.encode() or None)
    _check(failed, f"mount {kind or source} on {target}")


def unmount(target: str) -> None:
    """umount2(2), lazily: the mount leaves the tree at once and ends with its last user."""
    _check(_LIBC.umount2(target.encode(), _MNT_DETACH), f"unmount {target}")


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (unshare(2))."""
    _check(_LIBC.unshare(flags), f"unshare {flags:#x}")


def _check(failed: int, what: str) -> None:
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")
