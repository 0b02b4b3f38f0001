"""Compiles Fast's programs from sources with something changed, as another version of them would be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "bpf"


def compile_changed(tree: Path, *changes: tuple[str, str, str]) -> Path:
    """Copy the sources to an empty directory, change them there, and compile them.

    Args:
        tree: The directory.
        changes: File, pattern, and what takes the place of its first match.

    Returns:
        The object file.
    """
    shutil.copytree(SOURCES, tree / "bpf")
    for file, old, new in changes:
        path = tree / "bpf" / file
        text = path.read_text()
        assert re.search(old, text), old
        path.write_text(re.sub(old, new, text, count=1))
    out = tree / "fast.bpf.o"
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", f"-I/usr/include/{machine}-linux-gnu"]
    subprocess.run(["clang", *flags, "-c", str(tree / "bpf" / "fast.bpf.c"), "-o", str(out)], check=True)
    return out
