"""Pins: names of maps, programs and links in the bpf filesystem, which outlive the agent. Paths and pinning only.

::

    <root>/maps/<map>                                  in use by the attached programs
    <root>/programs/<program>                          the version to attach to new devices
    <root>/links/<ifindex>-<ingress|egress>-<program>  one per attachment
    <root>/netfilter/<family>-<hook>-<priority>        one per link at a hook of the stack
    <root>/staged/<map>                                the successor of maps/<map> while a migration runs

The bpf filesystem reserves dots in names.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from fast.datapath.bpf.libbpf import check, lib
from fast.datapath.bpf_dir import MOUNT_COMMAND, is_in_bpf_filesystem
from fast.errors import BPFError


@dataclass(frozen=True)
class PinDirectory:
    """Where one node's pins are: ``root`` as ``/sys/fs/bpf/fast``."""

    root: Path

    @property
    def maps(self) -> Path:
        """The directory of the maps in use."""
        return self.root / "maps"

    @property
    def programs(self) -> Path:
        """The directory of the current programs."""
        return self.root / "programs"

    @property
    def links(self) -> Path:
        """The directory of the attachments."""
        return self.root / "links"

    @property
    def netfilter(self) -> Path:
        """The directory of the links at the stack's hooks; there if NetworkPolicy is, or was, on."""
        return self.root / "netfilter"

    @property
    def staged(self) -> Path:
        """The directory of maps that are about to replace those in use."""
        return self.root / "staged"

    def ensure(self) -> None:
        """Make the directories. Idempotent.

        Raises:
            BPFError: ``root`` is not in a bpf filesystem, or not writable.
        """
        if not is_in_bpf_filesystem(self.root):
            raise BPFError(
                f"{self.root} is not in a bpf filesystem, so programs and maps would not outlive the agent; mount one: "
                f"{MOUNT_COMMAND}",
                errno.ENODEV,
            )
        for path in (self.maps, self.programs, self.links, self.staged):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BPFError(f"making {path}: {error.strerror}", error.errno or 0) from error

    def remove(self) -> None:
        """Remove every pin and directory, and with them what no other process holds. Idempotent."""
        for path in (self.links, self.netfilter, self.programs, self.maps, self.staged):
            for pin in path.iterdir() if path.is_dir() else ():
                pin.unlink(missing_ok=True)
            if path.is_dir():
                path.rmdir()
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()


def open_pin(path: Path) -> int:
    """Open a pinned object and give its descriptor, which the caller closes.

    Raises:
        BPFError: No such pin (errno ENOENT), or no right to it.
    """
    return check(lib.bpf_obj_get(os.fsencode(path)), f"opening {path}")


def find_pin(path: Path) -> int | None:
    """Open a pinned object as :func:`open_pin`; None where there is no such pin."""
    try:
        return open_pin(path)
    except BPFError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def pin(fd: int, path: Path) -> None:
    """Pin the object at ``path``, atomically replacing what is pinned there.

    Raises:
        BPFError: The bpf filesystem refused.
    """
    fresh = path.with_name(f"{path.name}-new")
    fresh.unlink(missing_ok=True)
    check(lib.bpf_obj_pin(fd, os.fsencode(fresh)), f"pinning {path}")
    fresh.rename(path)


def kind_of(fd: int) -> str:
    """Tell what a descriptor is: ``map``, ``prog``, ``link``; whatever the kernel names it otherwise."""
    target = os.readlink(f"/proc/self/fd/{fd}")
    return target.removeprefix("anon_inode:").strip("[]").removeprefix("bpf").lstrip("-_")
