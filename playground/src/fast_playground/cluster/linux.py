"""The system calls of namespaces and mounts that Python 3.11 does not have. Decides nothing; standard library only."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
_MNT_DETACH = 2
#: The C library has no function for this call. asm/unistd_64.h, asm-generic/unistd.h.
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]

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
    """Move the calling thread into its own new namespaces (unshare(2))."""
    _check(_LIBC.unshare(flags), f"unshare {flags:#x}")


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the calling thread's root and move the old root to ``old`` (pivot_root(2))."""
    failed = _LIBC.syscall(_SYS_PIVOT_ROOT, new.encode(), old.encode())
    _check(failed, f"make {new} the root")


def enter_mounts(descriptor: int) -> None:
    """Move the calling process, which has one thread, into a mount namespace (setns(2)): its root and / with it."""
    _check(_LIBC.setns(descriptor, CLONE_NEWNS), "enter a mount namespace")


def _check(failed: int, what: str) -> None:
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")
