"""The image's base: the files that programs need of Debian packages installed on this machine."""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from archive import Layer

#: Dependencies of maintainer scripts, of people at a terminal, and of the modules of Python that are left out below.
_NOT_NEEDED = frozenset(
    [
        "base-files",
        "debconf",
        "debconf-2.0",
        "dpkg",
        "gcc-12-base",
        "install-info",
        "libcrypt1",
        "media-types",
        "mime-support",
        "perl-base",
        "python3-minimal",
        "readline-common",
        "tzdata",
        "libcom-err2",
        "libdb5.3",
        "libgssapi-krb5-2",
        "libk5crypto3",
        "libkeyutils1",
        "libkrb5-3",
        "libkrb5support0",
        "libnsl2",
        "libreadline8",
        "libsqlite3-0",
        "libtirpc-common",
        "libtirpc3",
    ]
)
#: Of Python's own library: what is for development, for desktops and for databases; codecs of other scripts.
_PYTHON_FOLDERS = [
    "dbm",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "sqlite3",
    "test",
    "tkinter",
    "turtledemo",
    "unittest",
    "venv",
    "xmlrpc",
]
_PYTHON_MODULES = [
    "_pydecimal",
    "cgi",
    "doctest",
    "mailbox",
    "nntplib",
    "pdb",
    "pydoc",
    "smtpd",
    "telnetlib",
    "turtle",
]
_PYTHON_NATIVE = [
    "_codecs_",
    "_crypt",
    "_ctypes_test",
    "_dbm",
    "_sqlite3",
    "_test",
    "_tkinter",
    "_xx",
    "audioop",
    "nis",
    "ossaudiodev",
    "readline",
]
_NOT_SHIPPED = re.compile(
    r"/usr/share/(man|locale|info|lintian|bug|doc-base|apps|applications|pixmaps|binfmts|bash-completion|gcc)/"
    r"|/usr/share/doc/.*/(?!copyright$)|/usr/share/python3?/|/usr/lib/[^/]+/(gconv|audit)/|/etc/(init|cron|logrotate)"
    rf"|/usr/lib/python3[^/]*/(({'|'.join(_PYTHON_FOLDERS)})/|({'|'.join(_PYTHON_MODULES)})\.py$"
    rf"|lib-dynload/({'|'.join(_PYTHON_NATIVE)}))"
    r"|/usr/bin/(pdb|pydoc|2to3|pygettext|py3|x86_64-linux-gnu-python|iconv|localedef|zdump|ldd|tzselect|catchsegv)"
    r"|/lib(mvec|BrokenLocale|c_malloc_debug|memusage|pcprofile|thread_db|nss_compat|nss_hesiod|expatw)[-.]|\.pyc$"
)
_MERGED = ("bin", "sbin", "lib", "lib64")


def closure(names: Iterable[str]) -> list[str]:
    """Return the packages and everything they depend on, sorted.

    Raises:
        SystemExit: A package is not installed on this machine.
    """
    depends, provided = _installed()
    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name in found or name in _NOT_NEEDED:
            continue
        if name not in depends:
            raise SystemExit(f"package {name} is not installed: run make setup")
        found.add(name)
        for alternatives in depends[name]:
            here = [provided.get(one, one) for one in alternatives]
            wanted += [one for one in here if one in depends or one in _NOT_NEEDED][:1] or here[:1]
    return sorted(found)


def _installed() -> tuple[dict[str, list[list[str]]], dict[str, str]]:
    """Return what each installed package depends on (alternatives of each), and who provides virtual packages."""
    form = "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    depends: dict[str, list[list[str]]] = {}
    provided: dict[str, str] = {}
    for line in _run("dpkg-query", "-W", "-f", form).splitlines():
        package, status, needs, provides = line.split("\t")
        if status == "installed":
            depends[package] = [_names(item, "|") for item in needs.split(",") if item.strip()]
            provided |= dict.fromkeys(_names(provides, ","), package)
    return depends, provided


def _names(text: str, separator: str) -> list[str]:
    """Read package names, without versions and architectures."""
    return [item.split("(")[0].strip().split(":")[0] for item in text.split(separator) if item.strip()]


def base_layer(packages: Iterable[str], uid: int) -> Layer:
    """Make the layer: the packages' files, and the basic files that every program expects."""
    layer = Layer()
    for name in _MERGED:
        layer.link(f"/{name}", f"usr/{name}")
        layer.directory(f"/usr/{name}")
    for directory in ("/dev", "/etc", "/proc", "/run", "/sys", "/var/lib", "/root"):
        layer.directory(directory)
    layer.directory("/tmp", 0o1777)  # noqa: S108 -- made in the image
    layer.link("/var/run", "/run")
    layer.add("/etc/passwd", f"root:x:0:0::/root:/\nfast:x:{uid}:{uid}::/:/\n".encode())
    layer.add("/etc/group", f"root:x:0:\nfast:x:{uid}:\n".encode())
    layer.add("/etc/nsswitch.conf", b"hosts: files dns\n")
    layer.add("/etc/os-release", Path("/etc/os-release").read_bytes())
    for path in sorted(set(_run("dpkg-query", "-L", *packages).splitlines())):
        if path.startswith("/") and not _NOT_SHIPPED.search(path):
            _add(layer, Path(path))
    layer.link("/usr/bin/python3", "python3.11")
    return layer


def _add(layer: Layer, path: Path) -> None:
    # the directory as it is on a system with merged /usr; the file itself may be a link
    real = Path(os.path.realpath(path.parent)) / path.name
    if real.is_symlink():
        layer.link(str(real), os.readlink(real))
    elif real.is_file():
        layer.add(str(real), real, real.stat().st_mode & 0o755)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
