"""A node of a playground (an init with its own namespaces, wired to the underlay), and the underlay itself.

What runs on a node (agent, kubelet) is decided by ``node_programs.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from fast_playground.cluster.directory import UNDERLAY, StateDirectory
from fast_playground.cluster.init_client import Control, InitGone
from fast_playground.cluster.processes import VARIABLE
from fast_playground.cluster.underlay import connect_node, node_address

#: Makes a command the session leader of its terminal, inside its PID namespace. A shell that sees no
#: number for the group that it was started in ends with an error.
LEAD_SESSION = ("setsid", "--ctty")
_BOOT_SECONDS = 30.0
_POLL_SECONDS = 0.01


class Place:
    """A place in a playground where commands can run: a node, or the underlay.

    Args:
        directory: The playground's.
        name: Such as ``n1``, or ``underlay``.
    """

    def __init__(self, directory: StateDirectory, name: str) -> None:
        self.name = name
        self.directory = directory
        self.control = Control(directory.socket(name))

    @property
    def running(self) -> bool:
        """Whether its init answers."""
        try:
            self.control.status()
        except InitGone:
            return False
        return True

    @property
    def namespace(self) -> Path:
        """Path of its network namespace; InitGone if it is not running."""
        return Path(f"/proc/{self.control.init_pid()}/ns/net")

    def path(self, inside: str) -> Path:
        """Return the path by which this process reaches the file ``inside`` of the place, without entering it.

        An absolute symbolic link in the path leads outside. Do not store the path: it contains the init's pid.
        """
        return Path(f"/proc/{self.control.init_pid()}/root") / inside.lstrip("/")

    def command(
        self, argv: Sequence[str], *, network: Path | None = None, root: Path | None = None
    ) -> list[str]:
        """Return the command line that runs ``argv`` there and passes on its output and exit status.

        Args:
            argv: The command, looked up on PATH there; started in this process's working directory, else in /.
            network: Network namespace of a pod, to enter instead of the place's.
            root: Mount namespace of a pod, to enter instead of the place's. The command starts in its /.
        """
        pid = self.control.init_pid()
        net = f"--net={network}" if network else "--net"
        mounts = f"--mount={root}" if root else "--mount"
        here = Path.cwd()
        directory = here if not root and Path(f"/proc/{pid}/root{here}").is_dir() else Path("/")
        options = ["--target", str(pid), mounts, "--pid", net, f"--wdns={directory}"]
        return ["nsenter", *options, "--", *argv]

    def environment(self) -> dict[str, str]:
        """Return the environment for commands there: this process's, marked as the playground's.

        The playground's kubeconfig is left out: there is no such file there, and each program has its own.
        """
        inherited = dict(os.environ)
        if inherited.get("KUBECONFIG") == str(self.directory.kubeconfig):
            del inherited["KUBECONFIG"]
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        return inherited | {VARIABLE: self.directory.name, "NODE_NAME": self.name, "PATH": path}

    def run(
        self, *argv: str, network: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end and capture its output, as text; ``options`` as of subprocess.run."""
        chosen = {"capture_output": True, "text": True, "check": False, "stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del chosen["stdin"]
        command = self.command(argv, network=network)
        done: subprocess.CompletedProcess[str] = subprocess.run(command, env=self.environment(), **chosen)  # noqa: PLW1510 -- in chosen
        return done


class Underlay(Place):
    """The network between the nodes. Servers that play the outside world can run here, too."""

    def __init__(self, directory: StateDirectory) -> None:
        super().__init__(directory, UNDERLAY)

    def boot(self, root: Control) -> None:
        """Start its init below the playground's."""
        _start_init(root, self, ["--net"], [])


class Node(Place):
    """One node.

    Args:
        directory: The playground's.
        number: Counted from 1; the node is called ``nN``.
    """

    def __init__(self, directory: StateDirectory, number: int) -> None:
        super().__init__(directory, f"n{number}")
        self.number = number

    @property
    def address(self) -> IPv4Address:
        """Its address on the underlay, its InternalIP."""
        return node_address(self.number)

    def boot(self, root: Control, underlay: Place, mtu: int) -> None:
        """Start the node: fresh namespaces, /run, bpf filesystem and boot id; the disk of its earlier boots, if any.

        Args:
            root: The playground's init.
            underlay: What the node is wired to.
            mtu: Of the underlay, in bytes.
        """
        disk = self.directory.disks / self.name
        _start_init(root, self, ["--net", "--mount"], ["--disk", str(disk)])
        connect_node(underlay.namespace, self.namespace, self.number, mtu)

    def crash(self, root: Control) -> None:
        """End the node as a power cut does: every process ends at once, memory is lost, the disk stays."""
        root.stop(self.name, signal.SIGKILL)
        deadline = time.monotonic() + _BOOT_SECONDS
        while self.running and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _start_init(root: Control, place: Place, namespaces: list[str], options: list[str]) -> None:
    """Start an init in fresh namespaces and wait for it. The error quotes its log."""
    unshare = shutil.which("unshare") or "unshare"
    socket = place.directory.socket(place.name)
    argv = [unshare, *namespaces, "--pid", "--fork", "--kill-child=KILL", "--", sys.executable, "-I"]
    argv += ["-m", "fast_playground.cluster.init", "--socket", str(socket), *options]
    log = place.directory.log(f"{place.name}-init")
    root.start(place.name, argv, log=log, environment={"NODE_NAME": place.name}, restarts=False)
    deadline = time.monotonic() + _BOOT_SECONDS
    while not place.running:
        if root.status()[place.name].pid is None or time.monotonic() > deadline:
            raise InitGone(f"{place.name} did not start: {log.read_text(errors='replace').strip()}")
        time.sleep(_POLL_SECONDS)


def list_nodes(directory: StateDirectory) -> list[Node]:
    """Return all nodes of the settings, also those not running; empty if ``up`` has not written the settings yet."""
    settings = directory.find_settings()
    return [Node(directory, number) for number in range(1, settings.nodes + 1)] if settings else []
