"""Makes /proc/sys writable for an agent in a container, whose runtime mounted it read-only. Which values: datapath's.

With that, no privileged container is needed. The mount is seen in the container's mount namespace only.
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
    """Remount it for writing where it is a read-only mount of its own, as container runtimes make it.

    Where that is refused (it is no mount of its own, no CAP_SYS_ADMIN, an AppArmor profile), it is logged: parameters
    that are as needed already need not be written.
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(None, os.fsencode(path), None, flags, None):
        reason = os.strerror(ctypes.get_errno())
        log.warning("kernel parameters cannot be written", path=str(path), reason=reason)
