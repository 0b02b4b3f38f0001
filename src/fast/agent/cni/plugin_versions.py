"""Which CNI versions the plugins behind Fast speak. Each is asked with VERSION, and again if it is replaced."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import structlog

from fast.files import stamp_of

log = structlog.get_logger()

#: Assumed of a plugin that does not answer: without STATUS, which a runtime would call on every plugin of the list.
WITHOUT_STATUS = ("0.3.1", "0.4.0", "1.0.0")
_SECONDS = 5.0


class _Answer(msgspec.Struct):
    supported: tuple[str, ...] = msgspec.field(name="supportedVersions")


class PluginVersions:
    """The versions of the plugins in one directory. Blocking."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[object, tuple[str, ...]]] = {}

    def find(self, plugin: str) -> tuple[str, ...] | None:
        """Return the versions that a plugin speaks; None if the directory does not have it."""
        path = self._directory / plugin
        stamp = stamp_of(path)
        if stamp is None:
            return None
        known = self._known.get(plugin)
        if known is None or known[0] != stamp:
            known = self._known[plugin] = (stamp, _ask(path))
        return known[1]


def _ask(path: Path) -> tuple[str, ...]:
    environment = {"CNI_COMMAND": "VERSION", "CNI_PATH": str(path.parent)}
    try:
        done = subprocess.run(
            [path],
            env=environment,
            input=b'{"cniVersion":"1.0.0"}',
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
        return msgspec.json.decode(done.stdout, type=_Answer).supported
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        log.warning("a plugin does not tell its CNI versions", path=str(path), error=str(error))
        return WITHOUT_STATUS
