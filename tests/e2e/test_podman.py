"""Debian's Podman, whose build still has the CNI backend: plain containers on two nodes."""

import uuid

import pytest

from e2e.containerd import IMAGE, image_archive, remove_cgroups
from e2e.running import running

_CONTAINERS = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "fast"
"""
_STORAGE = """
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Podman:
    """Podman on one node."""

    def __init__(self, node, cgroup):
        self.node = node
        self._cgroup = cgroup
        folder = node.path("/etc/containers")
        folder.mkdir(exist_ok=True)
        for name, text in (
            ("containers.conf", _CONTAINERS),
            ("storage.conf", _STORAGE),
            ("policy.json", _POLICY),
        ):
            (folder / name).write_text(text)
        node.path("/run/busybox.tar").write_bytes(image_archive())
        self("load", "-i", "/run/busybox.tar")

    def __call__(self, *arguments):
        done = self.node.run("podman", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *options):
        return self(
            "run", "--network", "fast", "--cgroup-parent", f"/{self._cgroup}", "--entrypoint", "[]", *options
        )


@pytest.fixture
def cluster():
    with running(nodes=2) as found:
        found.make_pool("default-ips", "10.244.30.0-10.244.30.99")
        yield found


@pytest.fixture
def cgroup():
    name = f"fast-test-{uuid.uuid4().hex[:8]}"
    yield name
    remove_cgroups(name)


def test_podmans_containers_reach_each_other_across_nodes_and_give_their_addresses_back(cgroup, cluster):
    first, second = (Podman(cluster.playground.node(name), cgroup) for name in ("n1", "n2"))
    assert first("info", "--format", "{{.Host.NetworkBackend}}").strip() == "cni"
    second.run("--detach", "--name", "server", IMAGE, "sleep", "600")
    (address,) = [item["metadata"]["name"] for item in cluster.items("ipendpoints")]
    assert address.startswith("10.244.30.")
    assert f"inet {address}/32" in second("exec", "server", "ip", "address", "show", "eth0")
    assert " 0% packet loss" in first.run(
        "--rm", "--cap-add", "NET_RAW", IMAGE, "ping", "-c", "2", "-W", "3", address
    )
    second("rm", "--force", "--time", "0", "server")
    assert cluster.items("ipendpoints") == []
