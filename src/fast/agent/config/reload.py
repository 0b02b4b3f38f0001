"""Reads the configuration again while the agent runs, and applies what can be changed live.

The caller applies the settings. Those of the datapath, sockets and paths need a restart, which drops no packet of
running pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import click
import structlog

from fast.agent.config.agent_config import AgentConfig
from fast.files import stamp_of

log = structlog.get_logger()

#: What can be changed without a restart.
LIVE = frozenset({"log_level", "log_format", "gc_interval_seconds", "verify_interval_seconds"})

#: kubelet takes a minute to bring a changed ConfigMap; a stat that often costs nothing.
_LOOK_SECONDS = 5.0


class Reloader:
    """Reads the configuration again on SIGHUP, and if its file changed.

    Args:
        config: The one in use.
        read: Reads flags, environment and file again; raises click.ClickException if they cannot be used.
        apply: Called with the new configuration; applies its live settings only.
        hangup: Set by SIGHUP.
        file: The configuration's file, if there is one.
        look_seconds: Between two looks at the file.
    """

    def __init__(
        self,
        config: AgentConfig,
        read: Callable[[], AgentConfig],
        apply: Callable[[AgentConfig], None],
        hangup: asyncio.Event,
        *,
        file: Path | None = None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._config = config
        self._read = read
        self._apply = apply
        self._hangup = hangup
        self._file = file
        self._look_seconds = look_seconds if file else None
        self._version = self._version_of_file()

    async def run(self) -> None:
        """Wait for changes for ever."""
        while True:
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._hangup.wait()
            except TimeoutError:
                pass
            version = await asyncio.to_thread(self._version_of_file)
            if self._hangup.is_set() or version != self._version:
                self._hangup.clear()
                self._version = version
                self.reload()

    def reload(self) -> None:
        """Read the configuration and apply its live settings. One that cannot be used changes nothing."""
        try:
            new = self._read()
        except click.ClickException as error:
            log.warning("the changed configuration cannot be used", error=error.format_message())
            return
        names = (field.name for field in fields(AgentConfig))
        changed = {name for name in names if getattr(new, name) != getattr(self._config, name)}
        live, later = changed & LIVE, changed - LIVE
        if live:
            self._config = replace(self._config, **{name: getattr(new, name) for name in live})
            self._apply(self._config)
        log.info("configuration read again", applied=_flags(live))
        if later:
            log.warning("changed settings that need a restart of the agent", settings=_flags(later))

    def _version_of_file(self) -> tuple[int, int, int] | None:
        """Return what differs between two versions of the file; None if there is none (for a moment, or at all)."""
        return None if self._file is None else stamp_of(self._file)


def _flags(names: set[str]) -> list[str]:
    """Spell the settings as the user writes them."""
    return sorted(name.replace("_", "-") for name in names)
