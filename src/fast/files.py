"""Writes files whole or not at all, and tells versions of a file apart. Knows nothing of their content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

#: What differs between two versions of a file: its time, inode and size.
Stamp = tuple[int, int, int]


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file, or of what a symbolic link leads to; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def write_atomically(path: Path, content: bytes, mode: int) -> bool:
    """Replace a file by rename, with fsync, so that it is whole even after a power cut. Makes missing directories.

    Returns:
        Whether anything was written: False if the file already has that content and mode.

    Raises:
        OSError: The disk refuses; the old file is unchanged.
    """
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    # a leading dot: container runtimes ignore such files in the directory of configurations, the agent among tombstones
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(fresh, path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)
    return True


def fsync_directory(path: Path) -> None:
    """Make renames and removals in a directory survive a power cut.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
