"""Tombstones: DELs that could not be carried out yet, one file each. Files only, no verbs.

``fast-cni`` leaves them when the agent is away, the agent itself when the API server is. A file's name is the
attachment, ``CONTAINERID:IFNAME``; its content is the request frame of the call (``fast.cni.frames``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from fast.cni import CniCall
from fast.cni.frames import encode_call
from fast.files import fsync_directory, write_atomically
from fast.ipam import AttachmentKey

log = structlog.get_logger()

_PROBE_BYTES = 4096  # more than a tombstone of usual size


class Tombstones:
    """The directory of tombstones. Blocking; every change is on disk (fsync) when a method returns."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def leave(self, key: AttachmentKey, call: CniCall) -> None:
        """Keep the call: whole or not at all, even if the machine stops.

        Raises:
            OSError: The disk refuses.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._path(key), encode_call(call), 0o600)

    def waits(self, key: AttachmentKey) -> bool:
        """Return whether a DEL waits for this attachment.

        Raises:
            OSError: The disk refuses.
        """
        try:
            self._path(key).stat()
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: AttachmentKey) -> None:
        """Remove the tombstone of this attachment; does nothing if there is none.

        Raises:
            OSError: The disk refuses.
        """
        # stat(2) first: on a read-only file system, unlink(2) fails with EROFS before it looks for the file
        if not self.waits(key):
            return
        self._path(key).unlink()
        fsync_directory(self.directory)

    def probe(self) -> None:
        """Write and remove a file, to see that a DEL could be kept. Not fsynced, so it costs the disk nothing.

        Raises:
            OSError: The disk refuses: it is full or read-only.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / ".probe"
        try:
            path.write_bytes(bytes(_PROBE_BYTES))
        finally:
            path.unlink(missing_ok=True)

    def waiting(self) -> Iterator[AttachmentKey]:
        """Return the attachment of every DEL that waits. Other files are left out and logged.

        Raises:
            OSError: The disk refuses.
        """
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return
        for name in names:
            container_id, colon, ifname = name.rpartition(":")
            if name.startswith("."):
                continue  # not whole yet, or left by a fast-cni that was killed
            if not colon or not container_id or not ifname:
                log.warning("not a tombstone", path=str(self.directory / name))
                continue
            yield container_id, ifname

    def _path(self, key: AttachmentKey) -> Path:
        return self.directory / f"{key[0]}:{key[1]}"
