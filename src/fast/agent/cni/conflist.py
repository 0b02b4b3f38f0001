"""The network configuration that Fast gives the container runtime: its content, its name, and what comes before it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from fast.agent.cni.plugin_versions import PluginVersions
from fast.cni.network_config import SUPPORTED_VERSIONS
from fast.cni.plugin_binary import PLUGIN
from fast.errors import InvalidConfig
from fast.files import write_atomically

log = structlog.get_logger()

CONFLIST = "10-fast.conflist"
NETWORK = "fast"
#: What container runtimes read in the directory of configurations.
_SUFFIXES = (".conf", ".conflist", ".json")
#: Reference plugins that go behind Fast if the node has them.
_BEHIND: tuple[dict[str, object], ...] = (
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
)
#: Runtimes that know newer versions take them from ``cniVersions``; older ones refuse a list in a newer version.
_LISTED_IN = "1.0.0"


def conflist(versions: PluginVersions) -> bytes:
    """Write the network configuration list.

    It promises the CNI versions that every plugin in it speaks, since a runtime calls all of them in one version. A
    plugin that shares no version with Fast is left out.
    """
    promised = list(SUPPORTED_VERSIONS)
    plugins: list[dict[str, object]] = [{"type": PLUGIN, "capabilities": {"ips": True, "bandwidth": True}}]
    for plugin in _BEHIND:
        spoken = versions.find(str(plugin["type"]))
        if spoken is None:
            continue
        common = [version for version in promised if version in spoken]
        if not common:
            log.warning(
                "a plugin is left out, as it shares no CNI version", plugin=plugin["type"], speaks=spoken
            )
            continue
        promised = common
        plugins.append(plugin)
    version = _LISTED_IN if _LISTED_IN in promised else promised[-1]
    listed = {"cniVersion": version, "cniVersions": promised, "name": NETWORK, "plugins": plugins}
    return msgspec.json.format(msgspec.json.encode(listed)) + b"\n"


def install_plugin(source: Path, binary_dir: Path) -> bool:
    """Copy ``fast-cni`` into the directory of CNI plugins, atomically: a call may execute it right now.

    Returns:
        Whether anything had to be written.

    Raises:
        InvalidConfig: There is no source.
        OSError: The target cannot be written.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"the plugin {source} cannot be read: {error.strerror}") from error
    written = write_atomically(binary_dir / PLUGIN, content, 0o755)
    if written:
        log.info("plugin installed", path=str(binary_dir / PLUGIN), bytes=len(content))
    return written


def install_conflist(versions: PluginVersions, config_dir: Path) -> bool:
    """Write the network configuration, atomically.

    Returns:
        Whether anything had to be written.

    Raises:
        OSError: The target cannot be written.
    """
    path = config_dir / CONFLIST
    written = write_atomically(path, conflist(versions), 0o600)
    if written:
        log.info("network configuration installed", path=str(path))
    return written


def find_earlier(config_dir: Path) -> Path | None:
    """Return the configuration that the container runtime uses instead of Fast's, as it sorts first; else None.

    Raises:
        OSError: The directory cannot be read.
    """
    names = (path.name for path in config_dir.iterdir() if path.suffix in _SUFFIXES)
    first = min((name for name in names if not name.startswith(".")), default=CONFLIST)
    return config_dir / first if first < CONFLIST else None


def uninstall(binary_dir: Path, config_dir: Path) -> list[Path]:
    """Remove the configuration (first, so that no ADD finds it) and the binary; return what was removed."""
    removed = []
    for path in (config_dir / CONFLIST, binary_dir / PLUGIN):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        removed.append(path)
    return removed
