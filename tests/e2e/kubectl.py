"""A real kubectl on a real server of its own, for tests. No assertions about either."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unit.apiserver.process import running


class Kubectl:
    """Runs kubectl on one server.

    Args:
        kubeconfig: The server's.
    """

    def __init__(self, kubeconfig: Path) -> None:
        beside_python = Path(sys.executable).with_name("kubectl")
        self.path = str(beside_python) if beside_python.exists() else shutil.which("kubectl")
        self.env = os.environ | {"KUBECONFIG": str(kubeconfig)}

    def __call__(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run kubectl to its end."""
        return subprocess.run(
            [self.path, *args], input=stdin, capture_output=True, env=self.env, timeout=60, check=False
        )

    def check(self, *args: str, stdin: bytes = b"") -> str:
        """Run kubectl, which must succeed; gives its output."""
        done = self(*args, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr.decode()}"
        return done.stdout.decode()

    def start(self, *args: str, **options) -> subprocess.Popen[bytes]:
        """Start kubectl."""
        return subprocess.Popen([self.path, *args], env=self.env, **options)


@contextmanager
def serving(place: Path, *flags: str) -> Iterator[Kubectl]:
    """Run a server with a directory of its own, on loopback; gives its administrator's kubectl."""
    with running(place, *flags) as server:
        yield Kubectl(server.kubeconfig)
