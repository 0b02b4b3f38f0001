"""What the node's container runtime needs to find Fast: the plugin's binary and the network configuration.

The configuration comes last and only when the node can carry traffic: kubelet takes its presence for readiness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from fast.agent.readiness import Readiness
from fast.cni.network_config import SUPPORTED_VERSIONS
from fast.cni.plugin_binary import PLUGIN
from fast.errors import InvalidConfig
from fast.files import write_atomically

log = structlog.get_logger()

CONDITION = "installation"
CONFLIST = "10-fast.conflist"
NETWORK = "fast"


def conflist(binary_dir: Path) -> bytes:
    """Make the network configuration list. Reference plugins of a chain are named only where the node has them."""
    plugins: list[dict[str, object]] = [{"type": PLUGIN, "capabilities": {"ips": True, "bandwidth": True}}]
    if (binary_dir / "portmap").exists():
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}, "snat": True})
    if (binary_dir / "bandwidth").exists():
        plugins.append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    # 1.0.0: runtimes that know 1.1.0 take it from cniVersions, older ones would refuse a list in 1.1.0
    listed = {"cniVersion": "1.0.0", "cniVersions": SUPPORTED_VERSIONS, "name": NETWORK, "plugins": plugins}
    return msgspec.json.format(msgspec.json.encode(listed)) + b"\n"


def install_plugin(source: Path, binary_dir: Path) -> None:
    """Copy ``fast-cni`` into the directory of CNI plugins, atomically: a call may execute it right now.

    Raises:
        InvalidConfig: The source is not there.
        OSError: The target cannot be written.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"the plugin {source} cannot be read: {error.strerror}") from error
    if write_atomically(binary_dir / PLUGIN, content, 0o755):
        log.info("plugin installed", path=str(binary_dir / PLUGIN), bytes=len(content))


def install_conflist(binary_dir: Path, config_dir: Path) -> None:
    """Put the network configuration into place, atomically.

    Raises:
        OSError: The target cannot be written.
    """
    path = config_dir / CONFLIST
    if write_atomically(path, conflist(binary_dir), 0o600):
        log.info("network configuration installed", path=str(path))


async def ensure_installed(
    install: Callable[[], None], readiness: Readiness, *, retry_seconds: float = 5.0
) -> None:
    """Install, however long the disk refuses; the node is not ready meanwhile, and says why."""
    while True:
        try:
            await asyncio.to_thread(install)
        except (OSError, InvalidConfig) as error:
            readiness.missing(CONDITION, str(error))
            await asyncio.sleep(retry_seconds)
        else:
            readiness.met(CONDITION)
            return


def uninstall(binary_dir: Path, config_dir: Path) -> list[Path]:
    """Remove configuration (first: no ADD shall find it) and binary; gives what was there."""
    removed = []
    for path in (config_dir / CONFLIST, binary_dir / PLUGIN):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        removed.append(path)
    return removed
