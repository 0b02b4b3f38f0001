"""Writing files so that a reader sees the old or the new one, never half of one. No content is decided here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int) -> bool:
    """Put a file into place by rename; fsynced, so that it survives a power cut whole.

    Returns:
        Whether anything had to be written: False where the file already has that content and mode.

    Raises:
        OSError: The disk refuses; the old file is untouched.
    """
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    # a leading dot: container runtimes ignore such files in the directory of configurations
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
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
