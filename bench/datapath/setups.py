"""Builds the networks to compare, in namespaces that end with this process. Nothing is measured here.

Each has two pods on one node and, but for the bare veth, one on another: all with IPv4, an MTU of 1450, and nothing
shaped. Nodes masquerade what pods send to outside, as any cluster's do (Fast by its own table), unless asked not to.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel.fastlab import attach_pods, cluster
from kernel.lab import Machine, Sandbox, node_ip, underlay

HERE = Path(__file__).parent
MTU = 1450
_SUBNET = "10.9.0.0/24"


@dataclass(frozen=True)
class Network:
    """A client and its servers: for each place, the sandbox and its address."""

    name: str
    client: Sandbox
    servers: dict[str, tuple[Sandbox, str]]


def _wire(machine: Machine, name: str, address: str) -> tuple[Sandbox, str]:
    """Make a sandbox with eth0, whose host side is ``name``; return it and the MAC of eth0."""
    sandbox = machine.sandbox(name)
    machine.run(
        f"ip link add {name} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {Path(sandbox.path).name}\n"
        f"ip link set {name} up"
    )
    sandbox.run(f"ip link set lo up; ip addr add {address} dev eth0; ip link set eth0 up")
    return sandbox, _mac(sandbox, "eth0")


def _mac(place: Sandbox | Machine, device: str) -> str:
    return json.loads(place.run(f"ip -j link show {device}"))[0]["address"]


def _index(place: Machine, device: str) -> int:
    return json.loads(place.run(f"ip -j link show {device}"))[0]["ifindex"]


def _masquerade(machine: Machine) -> None:
    """Masquerade as ``ipMasq`` of the reference plugins does, with as few rules as possible."""
    machine.run(
        "nft -f -",
        stdin="table ip simple { chain postrouting { type nat hook postrouting priority srcnat; policy accept;\n"
        f"ip saddr {_SUBNET} ip daddr != {_SUBNET} masquerade\n}}\n}}\n",
    )


@contextlib.contextmanager
def bare_veth() -> Iterator[Network]:
    """Join two pods by one veth. No network can be faster."""
    machine = Machine("veth", workers=8)
    try:
        one, two = machine.sandbox("one"), machine.sandbox("two")
        machine.run(
            f"ip link add eth0 mtu {MTU} netns {Path(one.path).name} type veth "
            f"peer name eth0 mtu {MTU} netns {Path(two.path).name}"
        )
        for host, sandbox in enumerate((one, two), 1):
            sandbox.run(f"ip link set lo up; ip addr add 10.9.0.{host}/24 dev eth0; ip link set eth0 up")
        yield Network("bare veth", one, {"same node": (two, "10.9.0.2")})
    finally:
        machine.close()


@contextlib.contextmanager
def bridge(*, masquerade: bool) -> Iterator[Network]:
    """A Linux bridge on each node, joined by the kernel's VXLAN as a port of both: nothing is routed."""
    with underlay() as net:
        pods = []
        for host, names in ((1, ("pod1", "pod2")), (2, ("pod3",))):
            machine = net.join(f"bridge{host}", host, workers=8)
            if masquerade:
                _masquerade(machine)
            machine.run(
                f"ip link add br0 mtu {MTU} type bridge stp_state 0 forward_delay 0; ip link set br0 up\n"
                f"ip link add vx mtu {MTU} type vxlan id 1 dstport 4789 dev u0 "
                f"local {node_ip(host)} remote {node_ip(3 - host)}\n"
                "ip link set vx master br0 up"
            )
            for name in names:
                address = f"10.9.0.{len(pods) + 1}"
                pods.append((_wire(machine, name, f"{address}/24")[0], address))
                machine.run(f"ip link set {name} master br0")
        yield Network("bridge", pods[0][0], {"same node": pods[1], "across": pods[2]})


def compile_bpf(source: Path, target: Path, *flags: str) -> None:
    """Compile an eBPF object."""
    machine = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True)
    include = f"/usr/include/{machine.stdout.strip()}"
    subprocess.run(
        [
            "clang",
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-mcpu=v3",
            f"-I{include}",
            *flags,
            "-c",
            source,
            "-o",
            target,
        ],
        check=True,
    )


def _bytes(raw: bytes) -> str:
    return "hex " + " ".join(f"{byte:02x}" for byte in raw)


class _ShortestNode:
    """A node whose pods use the shortest eBPF path."""

    _PINS = "/sys/fs/bpf/sp"

    def __init__(self, machine: Machine, program: Path) -> None:
        self.machine = machine
        machine.run(
            f"mkdir -p {self._PINS}\n"
            f"bpftool prog loadall {program} {self._PINS}/programs type classifier pinmaps {self._PINS}/maps\n"
            "ip link add tun0 type vxlan external dstport 4789; ip link set tun0 up"
        )
        self._attach("tun0", "sp_from_tunnel")
        self._put("sp_tunnel", bytes(4), _index(machine, "tun0").to_bytes(4, "little"))

    def _attach(self, device: str, program: str) -> None:
        self.machine.run(
            f"tc qdisc add dev {device} clsact\n"
            f"tc filter add dev {device} ingress bpf direct-action object-pinned {self._PINS}/programs/{program}"
        )

    def _put(self, name: str, key: bytes, value: bytes) -> None:
        self.machine.run(
            f"bpftool map update pinned {self._PINS}/maps/{name} key {_bytes(key)} value {_bytes(value)}"
        )

    def pod(self, name: str, address: str) -> Sandbox:
        """Make a pod on this node."""
        sandbox, mac = _wire(self.machine, name, f"{address}/32")
        sandbox.run(
            "ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1\n"
            f"ip neigh replace 169.254.1.1 lladdr {_mac(self.machine, name)} dev eth0 nud permanent"
        )
        self._attach(name, "sp_from_pod")
        index = _index(self.machine, name).to_bytes(4, "little")
        value = index + bytes.fromhex(mac.replace(":", "")) + bytes(2)
        self._put("sp_local", _packed(address), value)
        return sandbox

    def remote(self, address: str, node: str) -> None:
        """Add the map entry of another node's pod."""
        self._put("sp_remote", _packed(address), _packed(node))


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


@contextlib.contextmanager
def shortest(program: Path, *, masquerade: bool) -> Iterator[Network]:
    """Build the network of the shortest eBPF path: the least work that a program can do."""
    with underlay() as net:
        first, second = (
            _ShortestNode(net.join(f"shortest{host}", host, workers=8), program) for host in (1, 2)
        )
        one, two, three = (
            first.pod("pod1", "10.9.0.1"),
            first.pod("pod2", "10.9.0.2"),
            second.pod("pod3", "10.9.0.3"),
        )
        first.remote("10.9.0.3", str(node_ip(2)))
        second.remote("10.9.0.1", str(node_ip(1)))
        yield Network("shortest eBPF", one, {"same node": (two, "10.9.0.2"), "across": (three, "10.9.0.3")})


@contextlib.contextmanager
def fast(*, masquerade: bool) -> Iterator[Network]:
    """Build Fast's network with VXLAN, as an agent does."""
    with cluster(nodes=2) as made:
        if not masquerade:
            for node in made.nodes:
                node.run("nft flush ruleset")
        pods = attach_pods(made, 2)
        one, two, three = pods[0], pods[1], pods[2]
        yield Network(
            "Fast",
            one.sandbox,
            {"same node": (two.sandbox, str(two.ip)), "across": (three.sandbox, str(three.ip))},
        )
