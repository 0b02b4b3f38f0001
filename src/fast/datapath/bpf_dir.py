"""Where Fast pins its eBPF objects: the default directory, the command-line option, and the check of the filesystem."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import click

DEFAULT_BPF_DIR = Path("/sys/fs/bpf/fast")
#: How to mount a bpf filesystem, for messages. Pins are writable by root alone.
MOUNT_COMMAND = "mount -t bpf -o mode=0700 bpf /sys/fs/bpf"

_BPF_FS_MAGIC = 0xCAFE4A11  # linux/magic.h
_STATFS_BYTES = 256

bpf_dir_option = click.option(
    "--bpf-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=str(DEFAULT_BPF_DIR),
    envvar="FAST_BPF_DIR",
    show_default=True,
    show_envvar=True,
    help="Where maps, programs and links are pinned; in a bpf filesystem.",
)


def is_in_bpf_filesystem(path: Path) -> bool:
    """Return whether the path, or the nearest directory above it that exists, is in a bpf filesystem.

    os.statvfs leaves out the filesystem's type (statfs(2), f_type).
    """
    existing = next(place for place in (path, *path.parents) if place.exists())
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).statfs(os.fsencode(existing), buffer):
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == _BPF_FS_MAGIC
