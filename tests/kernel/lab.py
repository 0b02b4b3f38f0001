"""Nodes, pods and an underlay for tests, as anonymous namespaces. No assertions live here.

Threads of the test process keep them, so nothing has a name in the host, and everything is gone when the process is,
however it ends. A node is a network namespace and a mount namespace of its own (fresh /run, /sys and bpf filesystem);
a pod's sandbox is a network namespace bound in its node's /run/netns. Code runs *on* a node by
``node.call(function, ...)``, in a thread that has entered it; commands by ``node.run(...)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
COMMAND_SECONDS = 60.0
_SANDBOXES = itertools.count(1)


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    _check(_LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount {target}")


def eventually(condition: Callable[[], Any], seconds: float = 10.0, interval_seconds: float = 0.02) -> Any:
    """Wait until the condition gives something true, and give that; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s: {condition}")
        time.sleep(interval_seconds)


class Machine:
    """A network and mount namespace of its own, with a pool of threads inside it. Close it to make it vanish."""

    def __init__(self, name: str, workers: int = 40) -> None:
        self.name = name
        self._children: list[subprocess.Popen[str]] = []
        self._stop = threading.Event()
        ready: Future[int] = Future()
        self._keeper = threading.Thread(target=self._keep, args=(ready,), name=f"lab-{name}", daemon=True)
        self._keeper.start()
        task = f"/proc/self/task/{ready.result(10)}/ns"
        self._net = os.open(f"{task}/net", os.O_RDONLY | os.O_CLOEXEC)
        self._mount = os.open(f"{task}/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(workers, f"lab-{name}", initializer=self._enter)
        self.run("ip link set lo up")

    def _keep(self, ready: Future[int]) -> None:
        try:
            _check(_LIBC.unshare(_CLONE_NEWNET | _CLONE_NEWNS), "unshare")
            _mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
            _mount("tmpfs", "/run", "tmpfs")
            os.mkdir("/run/netns")
            _mount("sysfs", "/sys", "sysfs")
            _mount("bpf", "/sys/fs/bpf", "bpf")
            ready.set_result(threading.get_native_id())
        except BaseException as error:
            ready.set_exception(error)
            return
        self._stop.wait()

    def _enter(self) -> None:
        _check(_LIBC.unshare(_CLONE_FS), "unshare the working directory")
        _check(_LIBC.setns(self._mount, _CLONE_NEWNS), "enter the mount namespace")
        _check(_LIBC.setns(self._net, _CLONE_NEWNET), "enter the network namespace")

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the function in one of this machine's threads."""
        return self._pool.submit(function, *args, **kwargs)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function in one of this machine's threads."""
        return self.submit(function, *args, **kwargs).result()

    def run(self, command: str, *, check: bool = True, stdin: str | None = None) -> str:
        """Run a shell script on this machine and give its standard output.

        Raises:
            AssertionError: It failed; with what it wrote.
        """
        return self._run(["sh", "-ec", command], check, stdin)

    def _run(self, argv: list[str], check: bool, stdin: str | None = None) -> str:
        result = self.call(
            subprocess.run,
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        if check and result.returncode:
            raise AssertionError(f"{self.name}: {argv[-1]}\n{result.stdout}{result.stderr}")
        return result.stdout

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a process on this machine; it ends with the machine, or with the test process."""
        child = self.call(
            subprocess.Popen,
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._children.append(child)
        return child

    def sandbox(self, name: str) -> Sandbox:
        """Make a pod's network namespace, bound at /run/netns/NAME-NUMBER of this machine."""
        path = f"/run/netns/{name}-{next(_SANDBOXES)}"

        def make() -> None:
            with open(path, "x"):
                pass
            _check(_LIBC.unshare(_CLONE_NEWNET), "unshare")
            _mount("/proc/thread-self/ns/net", path, "none", _MS_BIND)

        self.call(_in_thread, make)
        return Sandbox(self, name, path)

    def close(self) -> None:
        """End every process started here and let go of the namespaces."""
        for child in self._children:
            child.kill()
            child.communicate()
        self._pool.shutdown(wait=True)
        self._stop.set()
        self._keeper.join()
        os.close(self._net)
        os.close(self._mount)


def _in_thread(function: Callable[[], T]) -> T:
    """Run in a new thread, which inherits the caller's namespaces and may change its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@dataclass(frozen=True)
class Sandbox:
    """A pod's network namespace on a machine."""

    machine: Machine
    name: str
    path: str

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function inside the namespace (mounts are the node's). Sockets it opens stay inside."""

        def enter_and_call() -> T:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _check(_LIBC.setns(fd, _CLONE_NEWNET), "enter the sandbox")
            finally:
                os.close(fd)
            return function(*args, **kwargs)

        return self.machine.call(_in_thread, enter_and_call)

    def run(self, command: str, *, check: bool = True, stdin: str | None = None) -> str:
        """Run a shell script inside the namespace; as Machine.run."""
        return self.machine._run(["nsenter", f"--net={self.path}", "sh", "-ec", command], check, stdin)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a process inside the namespace; as Machine.start."""
        return self.machine.start("nsenter", f"--net={self.path}", *argv)

    def delete(self) -> None:
        """Unbind the namespace, as a runtime does; it vanishes when nobody holds it open any more."""

        def unbind() -> None:
            _check(_LIBC.umount2(self.path.encode(), 2), f"umount {self.path}")
            os.unlink(self.path)

        self.machine.call(unbind)


@dataclass
class Underlay:
    """Machines on one bridge: ``u0`` of each, 192.168.77.0/24 and fd77::/64, MTU as given."""

    switch: Machine
    mtu: int
    machines: list[Machine] = field(default_factory=list)
    _ports: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def join(self, name: str, host: int, workers: int = 40) -> Machine:
        """Make a machine with the addresses 192.168.77.HOST and fd77::HOST."""
        machine = Machine(name, workers)
        self.machines.append(machine)
        port = f"p{next(self._ports)}"
        tid = machine.call(threading.get_native_id)
        self.switch.run(
            f"ip link add {port} mtu {self.mtu} type veth "
            f"peer name u0 mtu {self.mtu} address 02:00:00:00:77:{host:02x} netns {tid}\n"
            f"ip link set {port} master br0 up"
        )
        machine.run(
            f"ip addr add 192.168.77.{host}/24 dev u0; ip addr add fd77::{host:x}/64 dev u0 nodad; ip link set u0 up"
        )
        return machine

    def leave(self, machine: Machine) -> None:
        """Close one machine."""
        self.machines.remove(machine)
        machine.close()

    def close(self) -> None:
        """Close the machines and the bridge."""
        for machine in self.machines:
            machine.close()
        self.switch.close()


@contextlib.contextmanager
def underlay(mtu: int = 1500) -> Iterator[Underlay]:
    """Make an underlay without machines; all of it is gone at the end of the block."""
    switch = Machine("switch", workers=2)
    made = Underlay(switch, mtu)
    try:
        switch.run("ip link add br0 type bridge stp_state 0 forward_delay 0; ip link set br0 up")
        yield made
    finally:
        made.close()


def node_ip(host: int) -> IPv4Address:
    """Give the underlay address of a machine that joined as number ``host``."""
    return IPv4Address(f"192.168.77.{host}")
