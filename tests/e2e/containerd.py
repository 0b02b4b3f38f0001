"""Debian's containerd and runc on a playground's node, an image for it, and its CRI as kubelet uses it. No assertions.

CRI is gRPC; curl speaks HTTP/2 on a unix socket, and the few messages that are needed are put together here by the
field numbers of ``k8s.io/cri-api/pkg/apis/runtime/v1/api.proto``.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fast_playground.cluster.node import Node

IMAGE = "localhost/busybox:latest"
PROGRAM = "containerd"
_APPLETS = ("sh", "sleep", "ping", "ip", "cat", "nc", "echo", "true")
_CONFIG = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""

Message = dict[int, list[bytes | int]]


def image_archive() -> bytes:
    """Make an OCI archive of busybox that sleeps: sandbox and container image in one."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        busybox = tar.gettarinfo("/bin/busybox", "bin/busybox")
        with Path("/bin/busybox").open("rb") as file:
            tar.addfile(busybox, file)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for folder in ("etc", "proc", "sys", "dev", "tmp"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(made)
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    oci = "application/vnd.oci.image"
    packed = blob(layer.getvalue(), f"{oci}.layer.v1.tar")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
    }
    manifest = {"schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json", "layers": [packed]}
    manifest["config"] = blob(json.dumps(config).encode(), f"{oci}.config.v1+json")
    described = blob(json.dumps(manifest).encode(), f"{oci}.manifest.v1+json")
    described["annotations"] = {"io.containerd.image.name": IMAGE}
    files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(fields: dict[int, object]) -> bytes:
    """Encode a protobuf message: numbers, strings, messages (dict) and repeated ones (list), by field number."""
    out = b""
    for number, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int):
                out += _varint(number << 3) + _varint(item)
            else:
                content = encode(item) if isinstance(item, dict) else str(item).encode()
                out += _varint(number << 3 | 2) + _varint(len(content)) + content
    return out


def decode(data: bytes) -> Message:
    """Decode a protobuf message of numbers and of bytes (strings, messages)."""
    stream = io.BytesIO(data)
    found: Message = {}
    for key in _varints(stream):
        value = next(_varints(stream))
        found.setdefault(key >> 3, []).append(stream.read(value) if key & 7 == 2 else value)
    return found


def _varints(stream: io.BytesIO) -> Iterator[int]:
    number = shift = 0
    while byte := stream.read(1):
        number |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            yield number
            number = shift = 0


class CriError(Exception):
    """A CRI call was refused; the text is containerd's."""


@dataclass(frozen=True)
class Pod:
    """A pod as kubelet hands it to the runtime.

    Attributes:
        ports: From ports of the node to ports of the pod (TCP).
        annotations: Those that the runtime reads: ``kubernetes.io/ingress-bandwidth``.
    """

    namespace: str
    name: str
    uid: str
    ports: Mapping[int, int] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class Containerd:
    """containerd on one node.

    Args:
        node: Where.
        cgroup: Name of the cgroup that all of its containers are put under.
        log: Of the daemon.
    """

    def __init__(self, node: Node, cgroup: str, log: Path) -> None:
        self.node = node
        self._cgroup = cgroup
        self._log = log

    def start(self) -> None:
        """Start it and wait until it serves; the image is imported where it is not there yet."""
        config = self.node.path("/etc/containerd/config.toml")
        config.parent.mkdir(exist_ok=True)
        config.write_text(_CONFIG.format(image=IMAGE))
        self.node.control.start(PROGRAM, ["containerd"], log=self._log)
        self.wait_serving()
        if IMAGE not in self.ctr("images", "list", "-q"):
            self.node.path("/run/busybox.tar").write_bytes(image_archive())
            self.ctr("images", "import", "--snapshotter", "native", "/run/busybox.tar")

    def wait_serving(self, seconds: float = 30) -> None:
        """Wait until it serves CRI calls."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.call("Version", {})
            except CriError:
                if time.monotonic() > deadline:
                    raise CriError(self._log.read_text()[-3000:]) from None
                time.sleep(0.1)
            else:
                return

    def crash(self) -> None:
        """SIGKILL the daemon, which is started again; its containers go on."""
        self.node.control.kill(PROGRAM)
        self.wait_serving()

    def ctr(self, *arguments: str) -> str:
        """Run ctr in the namespace of CRI's; it must succeed."""
        done = self.node.run("ctr", "--namespace", "k8s.io", *arguments)
        if done.returncode != 0:
            raise CriError(f"ctr {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def run(self, name: str, *command: str) -> str:
        """``ctr run --cni``: a container without Kubernetes, to its end; gives its output."""
        options = ("--rm", "--cni", "--snapshotter", "native", "--cgroup", f"/{self._cgroup}/{name}")
        return self.ctr("run", *options, IMAGE, name, *command)

    def call(self, method: str, request: dict[int, object], service: str = "Runtime") -> Message:
        """Make one CRI call; CriError where it is refused or containerd does not answer."""
        message = encode(request)
        curl = ["curl", "-sS", "-i", "--http2-prior-knowledge", "--max-time", "60"]
        curl += ["--unix-socket", "/run/containerd/containerd.sock", "--data-binary", "@-"]
        curl += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        curl += [f"http://localhost/runtime.v1.{service}Service/{method}"]
        frame = b"\0" + len(message).to_bytes(4, "big") + message
        done = subprocess.run(
            self.node.command(curl),
            input=frame,
            capture_output=True,
            env=self.node.environment(),
            check=False,
        )
        headers, _, rest = done.stdout.partition(b"\r\n\r\n")
        length = int.from_bytes(rest[1:5], "big")
        trailers = (headers + rest[5 + length :]).decode(errors="replace").lower()
        if done.returncode != 0 or "grpc-status: 0" not in trailers:
            raise CriError(f"{method}: {done.stderr.decode()} {trailers}")
        return decode(rest[5 : 5 + length])

    def run_sandbox(self, pod: Pod, attempt: int = 0) -> str:
        """RunPodSandbox; gives the sandbox's id."""
        (sandbox,) = self.call("RunPodSandbox", {1: self._sandbox_config(pod, attempt)})[1]
        return sandbox.decode()

    def start_container(self, pod: Pod, sandbox: str, *command: str, attempt: int = 0) -> str:
        """Create and start a container of a pod, which sleeps where there is no command; gives its id."""
        container = {1: {1: "main"}, 2: {1: IMAGE}, 3: list(command), 15: {}}
        request = {1: sandbox, 2: container, 3: self._sandbox_config(pod, attempt)}
        (made,) = self.call("CreateContainer", request)[1]
        self.call("StartContainer", {1: made.decode()})
        return made.decode()

    def exec(self, container: str, *command: str) -> str:
        """ExecSync; CriError, with the output, where the command fails."""
        answer = self.call("ExecSync", {1: container, 2: list(command), 3: 20})
        output = b"".join(answer.get(1, [])).decode()
        if answer.get(3, [0]) != [0]:
            raise CriError(f"{command}: {output}{b''.join(answer.get(2, [])).decode()}")
        return output

    def address(self, sandbox: str) -> str:
        """Give the address of a sandbox as PodSandboxStatus tells it; empty where it has none."""
        status = decode(self.call("PodSandboxStatus", {1: sandbox})[1][0])
        network = decode(status[5][0]) if 5 in status else {}
        return network.get(1, [b""])[0].decode()

    def sandboxes(self) -> list[str]:
        """Give the ids of all sandboxes, running or not."""
        return [decode(item)[1][0].decode() for item in self.call("ListPodSandbox", {}).get(1, [])]

    def remove_sandbox(self, sandbox: str) -> None:
        """StopPodSandbox and RemovePodSandbox."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self.call(method, {1: sandbox})

    def network_ready(self) -> bool:
        """Whether Status has the condition NetworkReady: a network configuration is there."""
        conditions = decode(self.call("Status", {})[1][0])[1]
        found = {decode(item)[1][0]: decode(item).get(2, [0])[0] for item in conditions}
        return bool(found[b"NetworkReady"])

    def _sandbox_config(self, pod: Pod, attempt: int) -> dict[int, object]:
        metadata = {1: pod.name, 2: pod.uid, 3: pod.namespace, 4: attempt}
        ports = [{2: inside, 3: outside} for outside, inside in pod.ports.items()]
        annotations = [{1: key, 2: value} for key, value in pod.annotations.items()]
        linux = {1: f"/{self._cgroup}"}
        return {1: metadata, 2: pod.name, 3: "/var/log/pods", 5: ports, 7: annotations, 8: linux}


def remove_cgroups(name: str) -> None:
    """Remove what containers of this parent left in the machine's cgroups; their processes have ended."""
    for root in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        root.rmdir()
