"""Pod sandboxes: each is a network namespace and a file on the node's disk, from which a new kubelet adopts it."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import msgspec

from fast.datapath.netlink import Netlink, requests
from fast.datapath.netns import Netns, run_in
from fast_playground.cluster.linux import CLONE_NEWNET, MS_BIND, mount, unmount, unshare
from fast_playground.cluster.processes import process_state, start_ticks

NETNS_DIR = Path("/run/netns")
RECORDS_DIR = Path("/var/lib/kubelet/sandboxes")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessRecord(msgspec.Struct, kw_only=True):
    """A container's process. ``start_ticks`` (field 22 of /proc/PID/stat) tells it from another one with its pid."""

    pid: int
    start_ticks: int
    started_at: str = ""


class Sandbox(msgspec.Struct, kw_only=True):
    """The stored state of a sandbox.

    Attributes:
        namespace: Of the pod.
        name: Of the pod.
        uid: Of the pod.
        container_id: The sandbox's id, 64 hexadecimal digits.
        netns: Path of its network namespace; empty on the host's network.
        pause: The process that holds the pod's root; None before.
        boot_id: The boot of the node in which it was made.
        created_at: RFC 3339.
        result: What the last plugin's ADD answered; None before.
        processes: By container.
        restarts: By container.
    """

    namespace: str
    name: str
    uid: str
    container_id: str
    netns: str
    pause: ProcessRecord | None = None
    boot_id: str
    created_at: str
    result: dict[str, Any] | None = None
    processes: dict[str, ProcessRecord] = {}
    restarts: dict[str, int] = {}

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, without prefix lengths."""
        return tuple(item["address"].partition("/")[0] for item in (self.result or {}).get("ips", ()))

    @property
    def root(self) -> str:
        """Path of the mount namespace with the pod's root, as its node sees it."""
        return f"/proc/{self.pause.pid}/ns/mnt" if self.pause else ""

    @property
    def complete(self) -> bool:
        """Whether pods may run in it: made in this boot, its namespaces held, and its ADD gave an address."""
        held = self.pause is not None and is_running(self.pause) and Path(self.netns or "/").exists()
        return self.boot_id == current_boot_id() and held and self.has_network

    @property
    def has_network(self) -> bool:
        """Whether the pod has an address: its ADD succeeded, or it is on the host's network."""
        return bool(self.ips) or not self.netns


def is_running(record: ProcessRecord) -> bool:
    """Whether the recorded process still runs (a zombie does not)."""
    try:
        return start_ticks(record.pid) == record.start_ticks and process_state(record.pid) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class SandboxRecords:
    """The records on disk, by the pod's UID."""

    def __init__(self, directory: Path = RECORDS_DIR) -> None:
        self._directory = directory

    def write(self, sandbox: Sandbox) -> None:
        """Write one record, atomically."""
        self._directory.mkdir(parents=True, exist_ok=True)
        fresh = self._directory / f".{sandbox.uid}"
        fresh.write_bytes(msgspec.json.encode(sandbox))
        fresh.rename(self._directory / f"{sandbox.uid}.json")

    def remove(self, uid: str) -> None:
        """Remove one, if it exists."""
        (self._directory / f"{uid}.json").unlink(missing_ok=True)

    def read(self) -> list[Sandbox]:
        """Read all; skip those that cannot be read."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(msgspec.MsgspecError, FileNotFoundError):
                found.append(msgspec.json.decode(path.read_bytes(), type=Sandbox))
        return found


def current_boot_id() -> str:
    """Return the node's boot id."""
    return BOOT_ID.read_text().strip()


def make_netns(directory: Path = NETNS_DIR) -> Path:
    """Make a network namespace with its loopback up, bound to a fresh path, as container runtimes do."""
    path = directory / f"cni-{uuid.uuid4()}"
    path.touch(mode=0o600)
    try:
        with Netns.open("/proc/self/ns/net") as own:
            run_in(own.fd, lambda: _make_and_bind(path))
    except BaseException:
        path.unlink()
        raise
    return path


def _make_and_bind(path: Path) -> None:
    unshare(CLONE_NEWNET)
    mount(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", str(path), flags=MS_BIND)
    with Netlink() as netlink:
        netlink.execute(requests.set_link(0, name="lo", up=True))


def remove_netns(path: Path) -> None:
    """Unbind a network namespace, if it exists. It ends with the last process in it."""
    with contextlib.suppress(OSError):
        unmount(str(path))
    path.unlink(missing_ok=True)
