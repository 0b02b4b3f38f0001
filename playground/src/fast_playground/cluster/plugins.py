"""Executes CNI plugins as a container runtime does (CNI spec 1.1.0, sections 1 to 4). Keeps no state."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fast.errors import FastError, InvalidConfig

Json = dict[str, Any]

_SUFFIXES = (".conf", ".conflist", ".json")
_STATUS_SINCE = (1, 1)
#: Versions of the spec that this runtime supports. It uses the newest of those in a list's ``cniVersions``.
_VERSIONS = ("1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0")


class PluginError(FastError):
    """A plugin failed, or could not be executed.

    Args:
        message: For people.
        code: The spec's error code, or 0 if the plugin did not say.
    """

    retryable = True

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Network:
    """A network configuration list.

    Attributes:
        name: Of the network.
        version: Of the spec, in which its plugins are called.
        plugins: The plugin configurations, in order.
    """

    name: str
    version: str
    plugins: tuple[Json, ...]

    @property
    def has_status(self) -> bool:
        """Whether the version of the spec knows STATUS."""
        major, minor = (int(part) for part in self.version.split(".")[:2])
        return (major, minor) >= _STATUS_SINCE


@dataclass(frozen=True)
class Attachment:
    """What a plugin is called for.

    Attributes:
        container_id: CNI_CONTAINERID.
        netns: CNI_NETNS; empty if the namespace is gone (DEL only).
        ifname: CNI_IFNAME.
        arguments: CNI_ARGS.
        capabilities: Capability arguments (``portMappings`` …): each plugin gets those that it declares.
    """

    container_id: str
    netns: str
    ifname: str = "eth0"
    arguments: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)


def find_network(directory: Path) -> Network | None:
    """Read the network that a runtime uses: of the files in the directory, the first by name; None if there is none.

    Raises:
        InvalidConfig: The file is not a network configuration.
    """
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES)
    except FileNotFoundError:
        return None
    if not files:
        return None
    try:
        content: Json = json.loads(files[0].read_bytes())
        plugins = tuple(content["plugins"]) if "plugins" in content else (content,)
        version = content.get("cniVersion", "0.2.0")
        offered = {version, *content.get("cniVersions", ())}
        chosen = next((known for known in _VERSIONS if known in offered), version)
        return Network(content["name"], chosen, plugins)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidConfig(f"{files[0]} is not a CNI network configuration: {error!r}") from error


class PluginRunner:
    """Runs the plugins of a network.

    Args:
        path: CNI_PATH: the directories that hold the plugins.
        timeout_seconds: For one plugin.
    """

    def __init__(self, path: Sequence[Path], timeout_seconds: float = 60.0) -> None:
        self._path = ":".join(map(str, path))
        self._timeout_seconds = timeout_seconds

    async def add(self, network: Network, attachment: Attachment) -> Json:
        """Attach: ADD of every plugin in order, each given the result of the one before.

        Returns:
            The last plugin's result.

        Raises:
            PluginError: One failed. The caller has to ``delete``, as the spec says.
        """
        result: Json | None = None
        for plugin in network.plugins:
            result = await self._call("ADD", network, plugin, attachment, result)
        return result or {}

    async def delete(self, network: Network, attachment: Attachment, result: Json | None) -> None:
        """Detach: DEL of every plugin in reverse order, each given the result of the ADD, if there was one.

        Raises:
            PluginError: One failed. The others were not called; the caller must retry.
        """
        for plugin in reversed(network.plugins):
            await self._call("DEL", network, plugin, attachment, result)

    async def status(self, network: Network) -> None:
        """Ask every plugin whether it is ready for ADD.

        Raises:
            PluginError: One is not (code 50 or 51), or cannot be executed.
        """
        if network.has_status:
            for plugin in network.plugins:
                await self._call("STATUS", network, plugin, None, None)

    async def _call(
        self, command: str, network: Network, plugin: Json, attachment: Attachment | None, result: Json | None
    ) -> Json:
        kind = plugin.get("type", "")
        executable = shutil.which(kind, path=self._path) if kind and "/" not in kind else None
        if executable is None:
            raise PluginError(f'failed to find plugin "{kind}" in path [{self._path}]')
        config = _plugin_config(network, plugin, attachment, result)
        process = await asyncio.create_subprocess_exec(
            executable,
            env=self._environment(command, attachment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            stdout, stderr = await asyncio.wait_for(
                process.communicate(json.dumps(config).encode()), self._timeout_seconds
            )
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise PluginError(f'plugin type="{kind}" ({command.lower()}) did not answer in time') from error
        if process.returncode:
            raise _failure(
                f'plugin type="{kind}" failed ({command.lower()})', process.returncode, stdout, stderr
            )
        try:
            answer: Json = json.loads(stdout) if stdout.strip() else {}
        except ValueError as error:
            raise PluginError(
                f'plugin type="{kind}" ({command.lower()}) printed no JSON: {stdout!r}'
            ) from error
        return answer

    def _environment(self, command: str, attachment: Attachment | None) -> dict[str, str]:
        """Return the variables of section 2, added to this process's PATH and playground mark."""
        variables = os.environ | {"CNI_COMMAND": command, "CNI_PATH": self._path}
        if attachment is not None:
            arguments = {"IgnoreUnknown": "1", **attachment.arguments}
            variables |= {
                "CNI_CONTAINERID": attachment.container_id,
                "CNI_NETNS": attachment.netns,
                "CNI_IFNAME": attachment.ifname,
                "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
            }
        return variables


def _plugin_config(
    network: Network, plugin: Json, attachment: Attachment | None, result: Json | None
) -> Json:
    """Derive the configuration for one plugin (spec section 3, "Deriving execution configuration …")."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config |= {"name": network.name, "cniVersion": network.version}
    declared = {key for key, wanted in plugin.get("capabilities", {}).items() if wanted}
    offered = attachment.capabilities if attachment is not None else {}
    if chosen := {key: value for key, value in offered.items() if key in declared}:
        config["runtimeConfig"] = chosen
    if result is not None:
        config["prevResult"] = result
    return config


def _failure(what: str, status: int, stdout: bytes, stderr: bytes) -> PluginError:
    try:
        error = json.loads(stdout)
        text = ": ".join(part for part in (error.get("msg"), error.get("details")) if part)
        return PluginError(f"{what}: {text or stdout.decode()}", int(error.get("code", 0)))
    except (ValueError, AttributeError):
        said = (stdout + stderr).decode(errors="replace").strip()
        return PluginError(f"{what}: exit status {status}: {said}")
