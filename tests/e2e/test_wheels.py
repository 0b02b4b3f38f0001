"""The two wheels work on their own: installed beside the pinned requirements and nothing else, without the sources."""

import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from e2e.running import IPS
from fast_playground.cluster.lifecycle import Playground, fresh_name
from fast_playground.cluster.traces import find_traces

ROOT = Path(__file__).resolve().parents[2]
#: What the quick start makes.
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: busybox}
spec:
  replicas: 2
  selector: {matchLabels: {app: busybox}}
  template:
    metadata:
      labels: {app: busybox}
      annotations: {fast.io/ips: sample-ips}
    spec:
      containers: [{name: busybox, image: busybox, command: [sleep, infinity]}]
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([ROOT / "scripts" / "wheels.sh", folder], check=True, capture_output=True)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def install_pinned(site):
    """Link the pinned requirements of both wheels out of this environment: the same files, at no cost."""
    for line in (ROOT / "requirements" / "playground.txt").read_text().splitlines():
        if (pinned := re.match(r"([\w.-]+)==", line)) is None:
            continue
        distribution = importlib.metadata.distribution(pinned[1])
        for top in {
            file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")
        }:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def environment(wheels, tmp_path_factory):
    """A virtual environment with the two wheels; gives its folder of programs."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    install_pinned(Path(sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder})))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check"]
    install = [*pip, "install", "-q", "--no-index", "--no-deps", *wheels.values()]
    subprocess.run(install, check=True, capture_output=True, text=True)
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    return folder / "bin"


@pytest.mark.parametrize(("package", "source"), [("fast", "src"), ("fast_playground", "playground/src")])
def test_a_wheel_has_every_module_of_its_package_and_no_other(wheels, package, source):
    tracked = subprocess.run(
        ["git", "ls-files", f"{source}/{package}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    packed = {name for name in names(wheels[package]) if name.startswith(f"{package}/")}
    wanted = {str(Path(name).relative_to(source)) for name in tracked if (ROOT / name).is_file()}
    native = {
        "fast/cni/fast-cni",
        "fast/datapath/bpf/_libbpf.abi3.so",
        "fast/datapath/bpf/objects/fast.bpf.o",
        "fast/datapath/bpf/objects/policy.bpf.o",
    }
    assert packed == wanted | (native if package == "fast" else set())


def test_the_quick_start_runs_from_the_wheels_without_the_sources(environment, tmp_path):
    name = fresh_name("wheel")
    env = {"PATH": f"{environment}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}

    def run(*command, stdin=""):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(
        "python", "-c", "import fast, fast_playground; print(fast.__file__, fast_playground.__file__)"
    )
    assert str(ROOT) not in where
    try:
        run("fast-ctl", "playground", "up", "--nodes", "2", "--name", name)
        env["KUBECONFIG"] = run("fast-ctl", "playground", "kubeconfig", "--name", name).strip()
        kubectl = str(Path(sys.executable).with_name("kubectl"))
        pool = IPS.format(name="sample-ips", subnet="10.244.0.1/16", ips="10.244.10.0-10.244.90.0")
        run(kubectl, "create", "-f", "-", stdin=pool)
        run(kubectl, "create", "-f", "-", stdin=DEPLOYMENT)
        run(kubectl, "rollout", "status", "deployment/busybox", "--timeout=60s")
        pods = json.loads(run(kubectl, "get", "pods", "-o", "json"))["items"]
        assert {pod["status"]["podIP"] for pod in pods} == {"10.244.10.0", "10.244.10.1"}
        run(
            kubectl,
            "exec",
            pods[0]["metadata"]["name"],
            "--",
            "ping",
            "-c1",
            "-W3",
            pods[1]["status"]["podIP"],
        )
        node = ("fast-ctl", "playground", "node", "n1", "--name", name, "--")
        assert (
            run(*node, "sha256sum", "/opt/cni/bin/fast-cni").split()[0]
            == run(
                "sha256sum",
                str(environment.parent / "lib" / "python3.11" / "site-packages" / "fast/cni/fast-cni"),
            ).split()[0]
        )
        traces = find_traces(name)
        run("fast-ctl", "playground", "down", "--name", name)
        assert not [left for left in traces.remaining() if left.startswith(("process", "directory"))]
    finally:
        Playground(name).down()
