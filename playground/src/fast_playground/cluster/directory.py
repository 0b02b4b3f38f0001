"""Where a playground's files are on the machine: one directory, which ``down`` removes. Paths, lock, settings."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fast.errors import FastError, InvalidConfig

BASE = Path("/run/fast-playground")
UNDERLAY = "underlay"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a playground was started with.

    Attributes:
        nodes: How many.
        mtu: Of the underlay, in bytes.
        agent_args: More arguments for every agent, such as ``--routing native``.
        two_addresses: Whether each node has a second address, which its Node object names as another InternalIP.
        pool: The pool ``default-ips`` that ``up`` makes: ``SUBNET`` or ``SUBNET=RANGE,…``; empty: none.
    """

    nodes: int = 2
    mtu: int = 1500
    agent_args: tuple[str, ...] = ()
    pool: str = ""
    two_addresses: bool = False


class StateDirectory:
    """The directory of one playground.

    Args:
        name: The playground's; InvalidConfig if it is not a DNS label of at most 32 characters.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidConfig(
                f"{name!r} is not a valid playground name: use up to 32 lower-case letters, digits and dashes"
            )
        self.name = name
        self.path = BASE / name
        self.kubeconfig = self.path / "kubeconfig"
        self.api_data = self.path / "apiserver"
        self.disks = self.path / "disks"
        self._settings = self.path / "playground.json"
        self._mark = self.path / "up"

    def socket(self, init: str) -> Path:
        """Return the control socket of the playground's init (``playground``), the underlay's or a node's."""
        return self.path / "inits" / f"{init}.sock"

    def log(self, name: str) -> Path:
        """Return the file that the output of a program goes to."""
        return self.path / "logs" / f"{name}.log"

    def make(self) -> None:
        """Make the directory and its folders, for root only."""
        for folder in (self.disks, self.socket("x").parent, self.log("x").parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)

    @property
    def marked_up(self) -> bool:
        """Whether ``up`` has completed."""
        return self._mark.exists()

    def mark_up(self) -> None:
        """Record that ``up`` has completed."""
        self._mark.touch()

    def write_settings(self, settings: Settings) -> None:
        """Write down the settings."""
        self._settings.write_bytes(msgspec.json.encode(settings))

    def find_settings(self) -> Settings | None:
        """Read the settings; None if there is no playground, or ``up`` has not written them yet."""
        try:
            return msgspec.json.decode(self._settings.read_bytes(), type=Settings)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def remove(self) -> None:
        """Remove the directory, and the base if this was the last."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)
        with contextlib.suppress(OSError):  # directories of other playgrounds are still there
            BASE.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the playground's lock. It is on the directory itself, so no lock file is left behind.

        Raises:
            FastError: Another ``up`` or ``down`` of the same name is running.
        """
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # the directory was removed meanwhile
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                        yield
                        return
            except BlockingIOError as error:
                raise FastError(f"another up or down of playground {self.name} is at work") from error
            finally:
                os.close(descriptor)


def list_directories() -> set[str]:
    """List the names of the playgrounds that have a directory."""
    with contextlib.suppress(FileNotFoundError):
        return {entry.name for entry in BASE.iterdir() if entry.is_dir()}
    return set()
