"""Keeps Fast's plugin and network configuration installed, and says what else keeps the runtime from using them.

The configuration comes last, and only once the node can carry traffic, since kubelet takes its presence for readiness.
Later it stays, and both are put back if somebody removes or changes them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from fast.agent.cni.conflist import CONFLIST, find_earlier, install_conflist, install_plugin
from fast.agent.cni.plugin_versions import PluginVersions
from fast.agent.readiness import Readiness
from fast.cni.plugin_binary import PLUGIN, find_plugin
from fast.errors import InvalidConfig

log = structlog.get_logger()

CONDITION = "installation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What to install, and where.

    Attributes:
        binary_dir: The container runtime's directory of plugins.
        config_dir: Its directory of network configurations.
        plugin: The fast-cni to keep there; None: whichever is there, or this installation's if there is none.
        conflist: Whether to install the network configuration.
    """

    binary_dir: Path
    config_dir: Path
    plugin: Path | None
    conflist: bool


class Installation:
    """The loop.

    Args:
        place: What to install, and where.
        readiness: Told about condition ``installation``.
        restored: Called with a sentence each time something was put back.
        interval_seconds: Between two looks.
    """

    def __init__(
        self,
        place: Place,
        readiness: Readiness,
        restored: Callable[[str], None],
        *,
        interval_seconds: float = 5.0,
    ) -> None:
        self._place = place
        self._readiness = readiness
        self._restored = restored
        self._interval_seconds = interval_seconds
        self._versions = PluginVersions(place.binary_dir)
        self._in_place: set[str] = set()

    async def run(self, installed: Callable[[], None]) -> None:
        """Install and look after it, for ever.

        Args:
            installed: Called once, when everything is installed for the first time.
        """
        told = False
        while True:
            done = False
            try:
                await self._ensure(PLUGIN, self._ensure_plugin)
                if self._may_be_shown():
                    if self._place.conflist:
                        await self._ensure(CONFLIST, self._ensure_conflist)
                    done = True
                self._report(await asyncio.to_thread(self._problem))
            except (OSError, InvalidConfig) as error:
                done = False
                self._readiness.missing(CONDITION, str(error))
            if done and not told:
                told = True
                installed()
            await asyncio.sleep(self._interval_seconds)

    def _may_be_shown(self) -> bool:
        """Return whether the runtime may find Fast: at first only once every other condition is met."""
        return CONFLIST in self._in_place or self._readiness.unmet(besides=CONDITION) is None

    async def _ensure(self, name: str, install: Callable[[], bool]) -> None:
        written = await asyncio.to_thread(install)
        if written and name in self._in_place:
            self._restored(f"{name} had been removed or changed, and was put back")
        self._in_place.add(name)

    def _ensure_plugin(self) -> bool:
        """Blocking; InvalidConfig if there is no plugin, and none to copy."""
        place = self._place
        if place.plugin is None and os.access(place.binary_dir / PLUGIN, os.X_OK):
            return False
        return install_plugin(place.plugin or find_plugin(), place.binary_dir)

    def _ensure_conflist(self) -> bool:
        return install_conflist(self._versions, self._place.config_dir)

    def _problem(self) -> str:
        """Return what keeps the runtime from using Fast although it is installed. Blocking."""
        if not self._place.conflist:
            return ""
        try:
            earlier = find_earlier(self._place.config_dir)
        except FileNotFoundError:
            return ""  # nothing was installed yet
        if earlier is None:
            return ""
        return (
            f"{earlier} comes before {CONFLIST}, so the container runtime uses that network: "
            "remove it, once that network plugin is uninstalled"
        )

    def _report(self, problem: str) -> None:
        if problem:
            self._readiness.missing(CONDITION, problem, allows_add=True)
        else:
            self._readiness.met(CONDITION)
