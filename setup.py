"""Builds what pyproject.toml cannot declare: the cffi extension over libbpf, and the native files of the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: What ``make compile`` makes, by its place in the wheel.
NATIVE = {
    "fast/datapath/bpf/objects/fast.bpf.o": Path("src/fast/datapath/bpf/objects/fast.bpf.o"),
    "fast/datapath/bpf/objects/policy.bpf.o": Path("src/fast/datapath/bpf/objects/policy.bpf.o"),
    "fast/cni/fast-cni": Path("build/fast-cni"),
}


class BuildWheel(build_py):
    """Puts the native files into the wheel. An editable installation finds them in the source tree."""

    def run(self) -> None:
        """Build from nothing, so that no module of an earlier build stays in the wheel."""
        if self.editable_mode:
            super().run()
            return
        missing = [str(path) for path in NATIVE.values() if not path.is_file()]
        if missing:
            raise SystemExit(f"{', '.join(missing)} not found: run make build first")
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for place, path in NATIVE.items():
            target = Path(self.build_lib, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


setup(cffi_modules=["src/fast/datapath/bpf/build_libbpf.py:ffi"], cmdclass={"build_py": BuildWheel})
