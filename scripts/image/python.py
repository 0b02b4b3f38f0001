"""The image's Python parts: the pinned distributions as .venv has them, Fast's wheel and its commands."""

import importlib.metadata
import io
import marshal
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

from archive import Layer

_SITE = "/usr/local/lib/python3.11/dist-packages"
#: Interpreter of Debian, which the image has: .venv's may be another of the same minor version.
_PYTHON = "/usr/bin/python3"
#: Besides tests and stubs: cffi's compiler, which a compiled extension does not need.
_NOT_SHIPPED = re.compile(
    r"(^|/)(__pycache__|tests?)/|\.(pyi|pxd|pyx|c|h)$|^\.\.|^(cffi|pycparser)/|_testcapi\.|_testing\."
    r"|^frozenlist/_frozenlist\."  # needs the C++ library (2 MiB); the pure Python version is enough
)
_SCRIPT = "#!{python} -I\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"


def dependencies_layer(root: Path) -> Layer:
    """Take the distributions that requirements/run.txt pins from the running virtual environment.

    Raises:
        SystemExit: The environment has another version, or none.
    """
    layer = Layer()
    for name, version in pinned(root):
        distribution = importlib.metadata.distribution(name)
        if distribution.version != version:
            raise SystemExit(
                f"{name} is {distribution.version} in this environment, not {version}: run make setup"
            )
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if not _NOT_SHIPPED.search(str(file)) and path.is_file():
                layer.add(f"{_SITE}/{file}", _stripped(path) if path.suffix == ".so" else path)
    return layer


def _stripped(library: Path) -> bytes:
    """Return a shared library without the symbols that only debuggers and linkers read."""
    with tempfile.NamedTemporaryFile(prefix="fast-image-") as scratch:
        subprocess.run(["strip", "--strip-unneeded", "-o", scratch.name, library], check=True)
        return Path(scratch.name).read_bytes()


def pinned(root: Path) -> list[tuple[str, str]]:
    """Return name and version of each distribution that requirements/run.txt pins and the image has."""
    text = (root / "requirements" / "run.txt").read_text()
    found = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return [(name, version) for name, version in found if name != "pycparser"]


def fast_layer(root: Path) -> Layer:
    """Build Fast's wheel and unpack it; with its commands."""
    layer = Layer()
    with tempfile.TemporaryDirectory(prefix="fast-image-") as scratch:
        wheel = _build_wheel(root, Path(scratch))
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for member in archive.infolist():
                executable = member.external_attr >> 16 & 0o100
                content = archive.read(member)
                layer.add(f"{_SITE}/{member.filename}", content, 0o755 if executable else 0o644)
    for point in importlib.metadata.distribution("fast").entry_points.select(group="console_scripts"):
        script = _SCRIPT.format(python=_PYTHON, module=point.module, function=point.attr)
        layer.add(f"/usr/local/bin/{point.name}", script.encode(), 0o755)
    return layer


def _build_wheel(root: Path, scratch: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", scratch, root], check=True)
    (wheel,) = scratch.glob("fast-*.whl")
    return wheel.read_bytes()


def add_byte_code(layer: Layer) -> Layer:
    """Add the byte code of every module: the image is read-only, and compiling takes 2 s a start."""
    for path, content in layer.files(".py"):
        module = Path(path)
        cached = module.parent / "__pycache__" / f"{module.stem}.{sys.implementation.cache_tag}.pyc"
        layer.add(str(cached), _byte_code(path, content))
    return layer


def _byte_code(path: str, content: bytes | Path) -> bytes:
    """Return a module's byte code in the form of PEP 552 that is not compared with its source."""
    source = content.read_bytes() if isinstance(content, Path) else content
    compiled = _compiled_here(content) if isinstance(content, Path) else b""
    if not compiled:
        compiled = marshal.dumps(compile(source, path, "exec", dont_inherit=True))
    flags = 0b01  # hash-based, not checked
    return MAGIC_NUMBER + flags.to_bytes(4, "little") + source_hash(source) + compiled


def _compiled_here(path: Path) -> bytes:
    """Return this machine's compiled module, if it matches the interpreter and the file."""
    status = path.stat()
    stamp = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
    try:
        found = Path(cache_from_source(str(path))).read_bytes()
    except FileNotFoundError:
        return b""
    return found[16:] if found[:16] == MAGIC_NUMBER + bytes(4) + stamp else b""
