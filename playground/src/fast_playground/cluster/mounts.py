"""Makes the mount namespaces of a playground and of a node: once, by their init, before anything else runs there.

A node gets what a real one has at the paths where the agent, the plugin and ``fast-ctl`` look by default: a fresh /run
and bpf filesystem, an /etc, /opt and /var of its own over the machine's (the *disk*, which outlives a reboot of the
node), its own boot id, and /proc and /sys that show its own namespaces. All propagation is private.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from fast_playground.cluster.linux import (
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
)

_PSEUDO = MS_NOSUID | MS_NODEV | MS_NOEXEC
_OVERLAYS = ("etc", "opt", "var")
#: Files of the machine that a node must not start with: other network plugins, and what Fast left there.
_HIDDEN = (
    "/etc/cni/net.d",
    "/etc/fast",
    "/etc/kubernetes",
    "/opt/cni/bin",
    "/var/lib/cni",
    "/var/lib/fast",
    "/var/lib/kubelet",
)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CGROUPS = "/sys/fs/cgroup"


def mount_playground(disks: Path) -> None:
    """Set up the namespace of a playground's init; ``disks`` becomes a tmpfs that only its descendants see."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", _PSEUDO)
    mount("fast-disks", str(disks), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")


def mount_node(disk: Path) -> None:
    """Set up the namespace of a node's init, below a playground's.

    Args:
        disk: Folder for what the node writes to /etc, /opt and /var. Must lie on a tmpfs or disk, not on an overlay
            (overlayfs: the upper layer must be a filesystem that can hold its marks). Kept between boots of the node.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", _PSEUDO)
    new = not disk.exists()
    for name in _OVERLAYS:
        _mount_overlay(f"/{name}", disk / name)
    if new:
        for folder in _HIDDEN:
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir(parents=True)
    mount("fast-run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for folder in ("/run/netns", "/run/lock"):
        Path(folder).mkdir()
    _mount_sys()
    _mount_boot_id()


def _mount_overlay(target: str, disk: Path) -> None:
    upper, work = disk / "upper", disk / "work"
    for folder in (upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={target},upperdir={upper},workdir={work}"
    mount("fast-disk", target, "overlay", MS_NOSUID | MS_NODEV, options)


def _mount_sys() -> None:
    """Sysfs shows the network namespace in which it was mounted; the cgroup hierarchies move over from the old one."""
    cgroups = Path("/run/cgroups-of-the-old-sys")
    moves = Path(_CGROUPS).is_dir()
    if moves:
        cgroups.mkdir()
        mount(_CGROUPS, str(cgroups), flags=MS_BIND | MS_REC)
    mount("sysfs", "/sys", "sysfs", _PSEUDO)
    mount("bpf", "/sys/fs/bpf", "bpf", _PSEUDO, "mode=0700")
    if moves:
        mount(str(cgroups), _CGROUPS, flags=MS_MOVE)
        cgroups.rmdir()


def _mount_boot_id() -> None:
    """Give the node a new boot id. Agents see from it that what they recorded about sandboxes is no longer valid."""
    source = Path("/run/boot_id")
    source.write_text(f"{uuid.uuid4()}\n")
    mount(str(source), _BOOT_ID, flags=MS_BIND)
