"""The container image: agent and controller run from it in containerd, with the rights of deploy/ and no more."""

import io
import json
import re
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pytest

import fast
from e2e.containerd import Containerd, decode, remove_cgroups
from e2e.running import running
from fast_playground.cluster.node_programs import AGENT, CONTROLLER
from unit.deploy.manifests import CLEAN, DOCTOR, kustomized

ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"docker.io/library/fast:{fast.__version__}"
MAX_MIB = 20
LOOK_AROUND = """
import importlib, os, pkgutil, shutil, subprocess, fast
for program in ("fast-agent", "fast-controller-manager", "fast-ctl"):
    print(subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout)
absent = ("fast-apiserver", "sh", "bash", "gcc", "clang", "apt", "pip")
print("not there:", *(name for name in absent if not shutil.which(name)))
for module in pkgutil.walk_packages(fast.__path__, "fast."):
    if module.name != "fast.datapath.bpf.build_libbpf":
        importlib.import_module(module.name)
print("user", os.getuid())
"""
#: What kubelet asks a runtime for by default (``procMount: Default``).
_MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/sys/firmware")
_READ_ONLY = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_HOST_NETWORK = {1: 2}
_EXITED = 2
#: linux/capability.h
_NUMBERS = {"BPF": 39, "PERFMON": 38, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21, "SYS_RESOURCE": 24}
AGENTS, CONTROLLERS = "DaemonSet/fast-agent", "Deployment/fast-controller-manager"
CLEANERS, DOCTORS = "DaemonSet/fast-clean", "DaemonSet/fast-doctor"
LOGS = "/var/log/pods/fast"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "fast.tar"
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "image", "--output", path], check=True, capture_output=True
    )
    return path


class Runtime:
    """A node's containerd that runs containers as a kubelet would by the manifests of deploy/."""

    def __init__(self, cluster, cgroup, archive):
        self.cluster = cluster
        self.node = cluster.playground.node("n1")
        directory = cluster.playground.directory
        self.containerd = Containerd(self.node, cgroup, directory.log("n1-containerd"))
        self._cgroup = cgroup
        # As systemd leaves it at boot. All of it: containerd looks at the lowest mount of several in one place.
        self.node.run("mount", "--make-rshared", "/", check=True)
        self.containerd.start()
        self.node.path("/run/fast.tar").write_bytes(archive.read_bytes())
        self.containerd.ctr("images", "import", "--snapshotter", "native", "/run/fast.tar")
        self.node.path("/run/fast.tar").unlink()
        kubeconfig = self.node.path("/etc/fast/controller.kubeconfig")
        kubeconfig.write_bytes((directory.path / "fast-controller-manager.kubeconfig").read_bytes())
        kubeconfig.chmod(0o644)

    def run(self, *command):
        """Run a command in the image, as the image says; gives its output."""
        name = f"once-{uuid.uuid4().hex[:6]}"
        options = (
            "--rm",
            "--snapshotter",
            "native",
            "--seccomp",
            "--cgroup",
            f"/{self._cgroup}/{name}",
            "--read-only",
        )
        return self.containerd.ctr("run", *options, IMAGE, name, *command)

    def start(self, owner, name, kubeconfig="", attempt=0, **environment):
        """Start a container of deploy/base in a sandbox of its own, as kubelet does; gives the container's id.

        Args:
            owner: Kind and name of the DaemonSet or Deployment.
            name: The container's.
            attempt: Of the sandbox, whose name is the container's.
            kubeconfig: On the node; the way to the API server that a cluster gives a pod by a volume.
            environment: What the manifest takes from fields of the pod.
        """
        pod = (kustomized() | kustomized(CLEAN) | kustomized(DOCTOR))[owner]["spec"]["template"]["spec"]
        (container,) = (
            one for one in (*pod.get("initContainers", ()), *pod["containers"]) if one["name"] == name
        )
        mounts = _mounts(pod, container)
        if kubeconfig:
            environment["KUBECONFIG"] = "/kubeconfig"
            mounts.append({1: "/kubeconfig", 2: kubeconfig, 3: 1})
        sandbox_config = self._sandbox_config(name, attempt)
        (sandbox,) = self.containerd.call("RunPodSandbox", {1: sandbox_config})[1]
        config = {
            1: {1: name},
            2: {1: IMAGE},
            3: list(container["command"]),
            6: [{1: key, 2: value} for key, value in environment.items()],
            7: mounts,
            11: f"{name}.log",
            15: {2: _security_context(pod, container)},
        }
        request = {1: sandbox.decode(), 2: config, 3: sandbox_config}
        (made,) = self.containerd.call("CreateContainer", request)[1]
        self.containerd.call("StartContainer", {1: made.decode()})
        return made.decode()

    def _sandbox_config(self, name, attempt):
        metadata = {1: name, 2: f"uid-{name}", 3: "fast-system", 4: attempt}
        return {1: metadata, 3: LOGS, 8: {1: f"/{self._cgroup}", 2: {1: _HOST_NETWORK}}}

    def exit_code(self, container):
        """Wait until a container has exited; gives its exit code."""

        def exited():
            status = decode(self.containerd.call("ContainerStatus", {1: container})[1][0])
            return [status.get(7, [0])[0]] if status.get(3) == [_EXITED] else []

        return self.cluster.until(exited, "the container to exit")[0]

    def log(self, name):
        return self.node.path(f"{LOGS}/{name}.log").read_text()

    def remove_all(self):
        for sandbox in self.containerd.sandboxes():
            self.containerd.remove_sandbox(sandbox)


def _mounts(pod, container):
    """Say a container's volumes in CRI's words."""
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod.get("volumes", ())}
    return [
        {
            1: mount["mountPath"],
            2: paths[mount["name"]],
            3: int(mount.get("readOnly", False)),
            5: int(mount.get("mountPropagation") == "HostToContainer"),
        }
        for mount in container.get("volumeMounts", ())
    ]


def _has_here(capability):
    """Whether this machine's root has a capability to give; some containers' has no SYS_RESOURCE."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
    )
    return bool(int(line.split()[1], 16) >> _NUMBERS[capability] & 1)


def _security_context(pod, container):
    """Say a container's security context in CRI's words."""
    context = pod.get("securityContext", {}) | container["securityContext"]
    added = [name for name in context["capabilities"].get("add", []) if _has_here(name)]
    capabilities = {1: added, 2: context["capabilities"]["drop"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False
    return {
        1: capabilities,
        3: _HOST_NETWORK,
        5: {1: context["runAsUser"]},
        7: int(context["readOnlyRootFilesystem"]),
        11: 1,
        13: list(_MASKED),
        14: list(_READ_ONLY),
        15: {1: 0},
    }


@pytest.fixture(scope="module")
def runtime(archive):
    cgroup = f"fast-test-{uuid.uuid4().hex[:8]}"
    try:
        with running(nodes=1) as cluster:
            cluster.make_pool("default-ips", "10.244.30.0-10.244.30.99")
            made = Runtime(cluster, cgroup, archive)
            yield made
            made.remove_all()
    finally:
        remove_cgroups(cgroup)


def test_the_archive_is_small(archive):
    assert archive.stat().st_size < MAX_MIB << 20


def unpacked(archive):
    """The files of the image by their path: what kind, and content."""
    with tarfile.open(archive) as outer:

        def blob(digest):
            return outer.extractfile(f"blobs/{digest.replace(':', '/')}").read()

        (manifest,) = json.loads(outer.extractfile("index.json").read())["manifests"]
        for layer in json.loads(blob(manifest["digest"]))["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as inner:
                for member in inner:
                    yield member, inner.extractfile(member).read() if member.isreg() else b""


def test_every_shared_library_that_the_image_needs_is_in_it(archive, tmp_path):
    names, needed = set(), {}
    for member, content in unpacked(archive):
        names.add(Path(member.name).name)
        if content.startswith(b"\x7fELF") and not member.name.endswith(".bpf.o"):
            (tmp_path / "elf").write_bytes(content)
            told = subprocess.run(
                ["readelf", "-dW", tmp_path / "elf"], capture_output=True, text=True, check=True
            ).stdout
            needed[member.name] = set(re.findall(r"\(NEEDED\).*\[(.+)\]", told))
    assert len(needed) > 100
    assert {name: wanted - names for name, wanted in needed.items() if wanted - names} == {}


def test_the_bill_of_materials_names_what_is_in_the_image(archive):
    bom = json.loads(archive.with_suffix(".cdx.json").read_text())
    named = {(item["purl"].split("/")[0], item["name"], item["version"]) for item in bom["components"]}
    paths = [member.name for member, _ in unpacked(archive)]
    found = {
        ("pkg:pypi", match[1].lower().replace("_", "-"), match[2])
        for path in paths
        if (match := re.search(r"/dist-packages/([^/]+)-([^/-]+)\.dist-info/METADATA$", path))
    }
    assert {item for item in named if item[0] == "pkg:pypi"} == found
    documented = {
        match[1] for path in paths if (match := re.match(r"usr/share/doc/([^/]+)/copyright$", path))
    }
    assert documented <= {name for kind, name, _ in named if kind == "pkg:deb"}
    with tarfile.open(archive) as outer:
        (manifest,) = json.loads(outer.extractfile("index.json").read())["manifests"]
    assert bom["metadata"]["component"]["purl"] == f"pkg:oci/fast@{manifest['digest']}"


def test_every_program_is_in_the_image_and_neither_shell_nor_compiler(runtime):
    output = runtime.run("python3", "-c", LOOK_AROUND)
    for program in ("fast-agent", "fast-controller-manager", "fast-ctl"):
        assert f"Usage: {program} " in output
    assert output.endswith("not there: fast-apiserver sh bash gcc clang apt pip\nuser 65532\n")


def test_agent_and_controller_run_from_the_image_with_the_rights_of_the_manifests(runtime):
    cluster, node = runtime.cluster, runtime.node
    node.control.stop(AGENT)
    cluster.playground.place("underlay").control.stop(CONTROLLER)
    for path in ("/opt/cni/bin/fast-cni", "/etc/cni/net.d/10-fast.conflist"):
        node.path(path).unlink()
    node.run("mkdir", "-p", "/run/fast", "/var/lib/fast", "/run/netns", check=True)
    node.run("touch", "/run/xtables.lock", check=True)
    node.run("sysctl", "-qw", "net.ipv4.conf.fast_vxlan.rp_filter=1", check=True)

    assert runtime.exit_code(runtime.start(DOCTORS, "doctor", FAST_NODE_IP=str(node.address))) == 1
    assert "ERROR rp-filter: rp_filter is strict on fast_vxlan" in runtime.log("doctor")
    assert "10 checks: 1 errors" in runtime.log("doctor")

    assert runtime.exit_code(runtime.start(AGENTS, "install-plugin")) == 0
    assert re.search(r"/opt/cni/bin/fast-cni is /usr/\S+/fast/cni/fast-cni\n", runtime.log("install-plugin"))
    agent = {"NODE_NAME": "n1", "FAST_NODE_IP": str(node.address)}
    runtime.start(AGENTS, "agent", "/etc/fast/agent.kubeconfig", **agent)
    conflist = node.path("/etc/cni/net.d/10-fast.conflist")
    cluster.until(conflist.exists, "the network configuration")
    parameter = node.run("sysctl", "-n", "net.ipv4.conf.fast_vxlan.rp_filter").stdout
    assert parameter == "2\n"  # written from a container that is not privileged

    controller = {"POD_NAME": "from-the-image", "FAST_CONTROLLER_NAMESPACE": "fast-system"}
    runtime.start(CONTROLLERS, "controller-manager", "/etc/fast/controller.kubeconfig", **controller)
    cluster.make_pod("a")
    cluster.make_pod("b")
    first, second = cluster.wait_running("a", "b")
    assert {first, second} == {"10.244.30.0", "10.244.30.1"}
    cluster.kubectl.check("exec", "a", "--", "ping", "-c", "1", "-W", "3", second)
    cluster.until(
        lambda: (
            cluster.get("ips.sample.fast.io", "default-ips").get("status", {}).get("allocatedIPCount") == 2
        ),
        "the pool's status, which only a controller writes",
        seconds=40,
    )
    lease = cluster.get("lease", "-n", "fast-system", "fast-controller-manager")
    assert lease["spec"]["holderIdentity"].startswith("from-the-image_")
    assert '"level":"error"' not in runtime.log(
        "agent"
    )  # what was wrong at its start is repaired, and nothing since
    cluster.delete_pods()

    assert runtime.exit_code(runtime.start(CLEANERS, "clean")) == 1
    assert "an agent serves /run/fast/agent.sock" in runtime.log("clean")
    runtime.remove_all()
    assert runtime.exit_code(runtime.start(CLEANERS, "clean", attempt=1)) == 0, runtime.log("clean")
    traces = node.run(
        "sh", "-c", "ip -o link; ip route; ip rule; nft list ruleset; ls -A /sys/fs/bpf/fast /run/fast 2>&1"
    ).stdout
    assert "fast_" not in traces
    assert "10.244." not in traces
    assert "cannot access '/sys/fs/bpf/fast'" in traces
    assert traces.endswith("/run/fast:\n")
    assert not node.path("/opt/cni/bin/fast-cni").exists()
    assert not conflist.exists()
