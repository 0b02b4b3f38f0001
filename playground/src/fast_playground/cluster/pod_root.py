"""A pod's own root: the machine's programs, read-only, and a small /etc, /dev, /proc and /tmp that only the pod has.

There are no images, so /usr is the machine's. It is not a security boundary: a pod is root and sees its node's
processes. It only keeps a pod from changing the machine's files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import fast
import fast_playground
from fast.datapath.netns import Netns, enter
from fast_playground.cluster.linux import (
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    unmount,
    unshare,
)
from fast_playground.cluster.processes import start_ticks
from fast_playground.cluster.sandbox import ProcessRecord, is_running

_STAGE = Path("/run/pod-root")
_PAUSE = ["sleep", "infinity"]
_PSEUDO = MS_NOSUID | MS_NODEV | MS_NOEXEC
_PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "usr")
_FOLDERS = ("etc", "dev", "proc", "sys", "tmp", "run", "root", "home", "var/tmp", "var/log", "var/lib")
_COPIED = (
    "passwd",
    "group",
    "nsswitch.conf",
    "ld.so.cache",
    "services",
    "protocols",
    "localtime",
    "resolv.conf",
)
_SHARED_ETC = ("/etc/alternatives", "/etc/ssl")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


def start_pause(hostname: str, netns: str) -> ProcessRecord:
    """Start the process that keeps a fresh root alive, like the pause container of other runtimes.

    The root's mount namespace is not bound to a file: Linux 6.18 numbers namespaces by CPU, and refuses to bind one
    whose number is below that of the caller's.

    Args:
        hostname: What /etc/hostname says.
        netns: Path of the pod's network namespace, which /sys shows; empty: the node's.

    Returns:
        The process; its mount namespace is the root.

    Raises:
        OSError: A mount failed.
        NetnsGone: There is no such namespace.
    """
    started: list[int] = []
    failures: list[BaseException] = []

    def body() -> None:  # in a separate thread, because the child process inherits the thread's namespaces
        try:
            _enter_fresh_root(hostname, netns)
            started.append(subprocess.Popen(_PAUSE, stdin=subprocess.DEVNULL, start_new_session=True).pid)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="pod-root")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return ProcessRecord(pid=started[0], start_ticks=start_ticks(started[0]))


def stop_pause(record: ProcessRecord) -> None:
    """End the pause process, if there is one. The root ends with the last process in it."""
    if is_running(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # an earlier kubelet's child
            os.waitpid(record.pid, 0)


def _enter_fresh_root(hostname: str, netns: str) -> None:
    """Move the calling thread into a fresh root. The node's mounts are no longer visible."""
    if netns:
        with Netns.open(netns) as opened:
            enter(opened.fd)
    unshare(CLONE_NEWNS)
    _STAGE.mkdir(mode=0o700, exist_ok=True)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("pod", str(_STAGE), "tmpfs", MS_NOSUID, "mode=0755")
    for folder in _FOLDERS:
        (_STAGE / folder).mkdir(parents=True)
    (_STAGE / "tmp").chmod(0o1777)
    for name in _PROGRAMS:
        _show(Path("/") / name)
    for folder in (*_SHARED_ETC, *_python()):
        _show(Path(folder))
    _fill_etc(_STAGE / "etc", hostname)
    _fill_dev(_STAGE / "dev")
    mount("proc", str(_STAGE / "proc"), "proc", _PSEUDO)
    mount("sysfs", str(_STAGE / "sys"), "sysfs", _PSEUDO | MS_RDONLY)
    old = _STAGE / "run" / "old"
    old.mkdir()
    pivot_root(str(_STAGE), str(old))
    os.chdir("/")
    unmount("/run/old")
    Path("/run/old").rmdir()


def _python() -> list[str]:
    """Return the folders of the interpreter and of the packages that Fast runs from."""
    sources = (Path(str(package.__file__)).parents[1] for package in (fast, fast_playground))
    places = sorted({str(Path(str(place)).resolve()) for place in (sys.prefix, sys.base_prefix, *sources)})
    return [place for place in places if not any(place.startswith(f"/{name}/") for name in _PROGRAMS)]


def _show(path: Path) -> None:
    """Show a folder of the machine at the same place, read-only; a symbolic link is copied."""
    target = _STAGE / path.relative_to("/")
    if path.is_symlink():
        target.symlink_to(os.readlink(path))
    elif path.is_dir() and not target.exists():
        target.mkdir(parents=True)
        mount(str(path), str(target), flags=MS_BIND)
        mount("none", str(target), flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)


def _fill_etc(etc: Path, hostname: str) -> None:
    for name in _COPIED:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"/etc/{name}", etc / name)
    (etc / "hostname").write_text(f"{hostname}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n")


def _fill_dev(dev: Path) -> None:
    for name in _DEVICES:
        (dev / name).touch()
        mount(f"/dev/{name}", str(dev / name), flags=MS_BIND)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    if Path("/dev/pts").is_dir():
        mount("/dev/pts", str(dev / "pts"), flags=MS_BIND)
    (dev / "shm").chmod(0o1777)
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
