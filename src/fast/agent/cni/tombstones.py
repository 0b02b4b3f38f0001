"""Tombstones: DELs that could not be carried through, one file each, until somebody does. Files only, no verbs.

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
from fast.ipam import AttachmentKey

log = structlog.get_logger()


class Tombstones:
    """The directory of tombstones. Blocking; every change is on disk (fsync) when a method returns."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def leave(self, key: AttachmentKey, call: CniCall) -> None:
        """Keep the call, whole or not at all, whenever the machine stops.

        Raises:
            OSError: The disk refuses.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.directory / f".new-{os.getpid()}-{key[0]}:{key[1]}"[:255]
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(encode_call(call))
                file.flush()
                os.fsync(descriptor)
            fresh.rename(self._path(key))
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        self._fsync_directory()

    def waits(self, key: AttachmentKey) -> bool:
        """Whether a DEL waits for this attachment; the identity in the name is all that carrying it out needs.

        Raises:
            OSError: The disk refuses.
        """
        try:
            self._path(key).stat()
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: AttachmentKey) -> None:
        """Forget the DEL of this attachment; nothing happens where there is none.

        Raises:
            OSError: The disk refuses.
        """
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            return
        self._fsync_directory()

    def waiting(self) -> Iterator[AttachmentKey]:
        """Give the attachment of every DEL that waits; files that are no tombstone are left out and logged.

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
                continue  # half written by a fast-cni that was killed, or just being written
            if not colon or not container_id or not ifname:
                log.warning("not a tombstone", path=str(self.directory / name))
                continue
            yield container_id, ifname

    def _path(self, key: AttachmentKey) -> Path:
        return self.directory / f"{key[0]}:{key[1]}"

    def _fsync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
