"""Makes /proc/sys writable for an agent in a container, where the runtime mounts it read-only.

This saves a privileged container. Only the container's own mount namespace changes.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import structlog

log = structlog.get_logger()

_PROC_SYS = Path("/proc/sys")
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 0x2, 0x4, 0x8, 0x20, 0x1000


def ensure_writable(path: Path = _PROC_SYS) -> None:
    """Remount it for writing if it is a read-only mount of its own, as container runtimes make it.

    A refusal (no mount of its own, no CAP_SYS_ADMIN, an AppArmor profile) is logged and not an error: the parameters
    may already be as needed.
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(None, os.fsencode(path), None, flags, None):
        reason = os.strerror(ctypes.get_errno())
        log.warning("kernel parameters cannot be written", path=str(path), reason=reason)
