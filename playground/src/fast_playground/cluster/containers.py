"""A container's process: a program of the machine, run in its pod's network namespace and root. There are no images.

If the machine lacks a command, busybox's is used (``httpd``, ``nc`` …). A container without a command sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from fast.datapath.netns import Netns, enter
from fast_playground.cluster.linux import enter_mounts
from fast_playground.cluster.pod_types import Container, Pod
from fast_playground.cluster.processes import VARIABLE, start_ticks
from fast_playground.cluster.sandbox import ProcessRecord, Sandbox, is_running

LOGS_DIR = Path("/var/log/pods")
_HOLD = ["sleep", "infinity"]
_INHERITED = ("PATH", "LANG", VARIABLE)
#: Reported for a process that an earlier kubelet started: only a parent can read the exit status.
UNKNOWN_STATUS = 137


def command_of(container: Container) -> list[str]:
    """Return the command line of the container.

    ``args`` alone are the command, because there is no image with an entry point.
    """
    argv = [*container.command, *container.args] or _HOLD
    if shutil.which(argv[0]) is None and (busybox := shutil.which("busybox")):
        return [busybox, Path(argv[0]).name, *argv[1:]]
    return argv


class ContainerProcesses:
    """The processes of a node's containers. Also watches those that an earlier kubelet started."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, pod: Pod, container: Container, sandbox: Sandbox, now: str) -> ProcessRecord:
        """Start a container's process in the sandbox.

        Args:
            pod: Whose container.
            container: Which.
            sandbox: Where.
            now: RFC 3339, for the record.

        Raises:
            OSError: The command cannot be executed.
            NetnsGone: The sandbox's network namespace is gone.
        """
        variables = {item.name: item.value for item in container.env}
        log = LOGS_DIR / f"{sandbox.namespace}_{sandbox.name}_{sandbox.uid}" / f"{container.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(log.open("ab"))
            netns = stack.enter_context(Netns.open(sandbox.netns)) if sandbox.netns else None
            root = stack.enter_context(open(sandbox.root, "rb"))

            def enter_pod() -> None:  # in the child, which has one thread
                if netns is not None:
                    enter(netns.fd)
                enter_mounts(root.fileno())

            process = subprocess.Popen(
                command_of(container),
                env=_environment() | {"HOSTNAME": pod.metadata.name} | variables,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=enter_pod,  # noqa: PLW1509 -- one thread by then
            )
        self._children[process.pid] = process
        return ProcessRecord(pid=process.pid, start_ticks=start_ticks(process.pid), started_at=now)

    async def wait(self, record: ProcessRecord) -> int:
        """Wait until the process has ended; return its exit status (128 + the signal's number if a signal ended it)."""
        try:
            descriptor = os.pidfd_open(record.pid)
        except ProcessLookupError:
            return self._collect(record.pid)
        try:
            if is_running(record):
                await _readable(descriptor)
        finally:
            os.close(descriptor)
        return self._collect(record.pid)

    async def stop(self, record: ProcessRecord, grace_seconds: float) -> None:
        """End a process and its session: SIGTERM, and SIGKILL once the grace period is over."""
        if not is_running(record):
            return
        _signal(record, signal.SIGTERM if grace_seconds > 0 else signal.SIGKILL)
        try:
            await asyncio.wait_for(self.wait(record), max(grace_seconds, 0.1))
        except TimeoutError:
            _signal(record, signal.SIGKILL)
            await self.wait(record)

    def _collect(self, pid: int) -> int:
        process = self._children.pop(pid, None)
        if process is None:
            return UNKNOWN_STATUS
        code = process.wait()
        return code if code >= 0 else 128 - code


def _environment() -> dict[str, str]:
    """Return what a container inherits: PATH, language and the playground's mark, not the node's credentials."""
    return {"HOME": "/root"} | {key: os.environ[key] for key in _INHERITED if key in os.environ}


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _signal(record: ProcessRecord, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(record.pid, number)
