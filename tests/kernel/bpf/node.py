"""One node's programs and maps, loaded and filled, in a machine of its own; with devices that carry nothing.

Pods A and B are local, R is on the other node. Each has an address of either family. No assertions live here.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from fast.datapath.bpf import (
    DATAPATH,
    ClusterPod,
    Config,
    DevFlag,
    Device,
    EventSwitch,
    Interface,
    Kind,
    LocalDev,
    LocalPod,
    LocalPodFlag,
    Metric,
    Object,
    ObjectSpec,
    PacketDirection,
    Reason,
    RunContext,
    RunResult,
    load,
)
from fast.datapath.bpf.drop_maps import DropCounts, EventBudgets, ListenedEvents
from fast.datapath.bpf.layout import EventBudget, NextHop
from fast.datapath.bpf.libbpf import ffi, lib
from fast.net import IPAddress, Mac
from kernel.bpf.packets import Ip, ethernet
from kernel.lab import Machine

PASS, SHOT, REDIRECT = -1, 2, 7

NODE, OTHER_NODE = IPv4Address("192.168.77.1"), IPv4Address("192.168.77.2")
NODE6, OTHER_NODE6 = IPv6Address("fd77::1"), IPv6Address("fd77::2")
A, B, R = (ip_address(f"10.244.{node}.{host}") for node, host in ((1, 10), (1, 11), (2, 12)))
A6, B6, R6 = (ip_address(f"fd00:244::{node}:{host}") for node, host in ((1, 10), (1, 11), (2, 12)))
OUTSIDE, OUTSIDE6 = ip_address("8.8.8.8"), ip_address("2001:db8::8")
VIP, VIP6 = ip_address("10.96.0.10"), ip_address("fd00:96::10")

HOST_MAC, MAC_A, MAC_B = Mac.derived("host"), Mac.derived("a"), Mac.derived("b")
ENCAP_BYTES, NEXT_HOP_WAYS = 50, 4
TUNNEL_PORT, VNI, TUNNEL_MTU, UNDERLAY_MTU = 8472, 7, 1450, 1500
DEVICES = ("ha", "hb", "tunnel", "nic")


@dataclass(frozen=True)
class Family:
    """The same places by the addresses of one family."""

    a: IPAddress
    b: IPAddress
    r: IPAddress
    node: IPAddress
    other_node: IPAddress
    outside: IPAddress
    vip: IPAddress
    nobody: IPAddress


V4 = Family(A, B, R, NODE, OTHER_NODE, OUTSIDE, VIP, ip_address("10.244.9.9"))
V6 = Family(A6, B6, R6, NODE6, OTHER_NODE6, OUTSIDE6, VIP6, ip_address("fd00:244::9:9"))


def make_devices(machine: Machine) -> dict[str, int]:
    """Make the devices and give their indexes by name."""
    machine.run(
        "sysctl -qw net.ipv6.conf.default.disable_ipv6=1"
    )  # a device that is up says nothing of its own
    machine.run("\n".join(f"ip link add {name} type veth peer name {name}-p" for name in DEVICES))
    links = {link["ifname"]: link["ifindex"] for link in json.loads(machine.run("ip -j link show"))}
    return {name: links[name] for name in DEVICES}


def open_fast_path(machine: Machine) -> None:
    """Give the machine a route to OTHER_NODE, and let it forward what comes from pod A."""
    machine.run(
        f"sysctl -qw net.ipv4.ip_forward=1; ip link set ha up; ip addr add {NODE}/24 dev nic\n"
        f"ip link set nic mtu {UNDERLAY_MTU} up; ip link set nic-p up; sysctl -qw net.ipv6.conf.nic.disable_ipv6=0"
    )


class LoadedNode:
    """The programs and maps of node NODE."""

    def __init__(
        self, machine: Machine, devices: dict[str, int], config: Config, spec: ObjectSpec = DATAPATH
    ) -> None:
        self.machine = machine
        self.devices = devices
        spec = spec.configured(config).sized(
            fast_flow_table=1024, fast_cluster_pods=1024, fast_local_pods=64, fast_events=1 << 16
        )
        self.object: Object = machine.call(load, spec)
        self.flows = self.object.flows
        self.metrics = self.object.metrics
        self.local_pods = self.object.local_pods
        self.interfaces = self.object.interfaces
        self.flow_limits = self.object.flow_limits
        self.cluster_pods = self.object.cluster_pods
        self.local_devices = self.object.local_devices
        self.drop_counts = DropCounts.adopt(os.dup(self.object.maps["fast_drops"].fd))
        self.listen(config.events)
        self.fill()

    def fill(self) -> None:
        """Set the maps to the picture in this module's first lines, without flows."""
        self.flows.delete_many([key for key, _ in self.flows.items()])
        self.flow_limits.delete_many([key for key, _ in self.flow_limits.items()])
        for addresses, device, mac in (((A, A6), "ha", MAC_A), ((B, B6), "hb", MAC_B)):
            self.interfaces.put(self.devices[device], Interface(mac))
            for address in addresses:
                tail = int.from_bytes(address.packed[-4:])
                self.local_pods.put(address, LocalPod(self.devices[device], mac, HOST_MAC, address_tail=tail))
        pods = {A: NODE, A6: NODE, B: NODE, B6: NODE, R: OTHER_NODE, R6: OTHER_NODE}
        nodes = {NODE: NODE, NODE6: NODE, OTHER_NODE: OTHER_NODE, OTHER_NODE6: OTHER_NODE}
        self.cluster_pods.put_many({address: ClusterPod(node) for address, node in pods.items()})
        self.cluster_pods.put_many({address: ClusterPod(node, Kind.NODE) for address, node in nodes.items()})
        self.set_tunnel(DevFlag.MAY_BE_SKIPPED)
        self.local_devices.put(Device.UNDERLAY, LocalDev(self.devices["nic"], UNDERLAY_MTU))

    def set_tunnel(self, flags: DevFlag, mtu: int = TUNNEL_MTU) -> None:
        """Say what the tunnel device is."""
        self.local_devices.put(Device.TUNNEL, LocalDev(self.devices["tunnel"], mtu, flags))

    def run(self, program: str, frame: bytes, device: str, **context) -> tuple[RunResult, dict]:
        """Run a program on a frame that is at a device; give its result and the counters that grew."""
        before = self.metrics.read()
        result = self.machine.call(
            self.object.programs[program].run, frame, RunContext(ifindex=self.devices[device], **context)
        )
        return result, grown(before, self.metrics.read())

    def from_pod(self, packet: Ip | bytes, *, mac: Mac = MAC_A, ethertype: int | None = None, **context):
        """Pod A sends the packet."""
        ethertype = ethertype or packet.ethertype
        return self.run("fast_from_pod", ethernet(mac, HOST_MAC, ethertype, bytes(packet)), "ha", **context)

    def to_pod(self, packet: Ip, **context):
        """The stack sends the packet to pod A."""
        frame = ethernet(HOST_MAC, MAC_A, packet.ethertype, bytes(packet))
        return self.run("fast_to_pod", frame, "ha", **context)

    def to_overlay(self, packet: Ip, **context):
        """The stack sends the packet to another node."""
        frame = ethernet(Mac.derived("tunnel"), Mac(bytes(6)), packet.ethertype, bytes(packet))
        return self.run("fast_to_overlay", frame, "tunnel", **context)

    def shape(self, address: IPAddress, flags: LocalPodFlag) -> None:
        """Set a local pod's flags."""
        found = self.local_pods.get(address)
        assert found is not None
        self.local_pods.put(address, LocalPod(found.ifindex, found.pod_mac, found.host_mac, flags))

    def next_hops(self) -> list[tuple[int, NextHop]]:
        """Give what the CPUs remember of the ways to other nodes, with which way of a node's it is."""
        fd, spec = self.object.maps["fast_next_hops"].fd, DATAPATH.map("fast_next_hops")
        values = ffi.new("char[]", lib.libbpf_num_possible_cpus() * spec.value_bytes)
        found = []
        for index in range(spec.max_entries):
            assert lib.bpf_map_lookup_elem(fd, ffi.new("uint32_t *", index), values) == 0
            raw, size = bytes(ffi.buffer(values)), spec.value_bytes
            hops = [NextHop.unpack(raw[at : at + size]) for at in range(0, len(raw), size)]
            found += [(index % NEXT_HOP_WAYS, hop) for hop in hops if hop.found_jiffies]
        return found

    def listen(self, kinds: EventSwitch) -> None:
        """Have these kinds of events told besides drops."""
        with ListenedEvents.adopt(os.dup(self.object.maps["fast_event_switch"].fd)) as listened:
            listened.set(kinds)

    def untold(self) -> int:
        """Give how many events were never told."""
        with EventBudgets(os.dup(self.object.maps["fast_event_budgets"].fd)) as budgets:
            return budgets.untold()

    def allow_events(self, events: int) -> None:
        """Let every CPU tell so many drops, and as many other events, in the next 100 ms."""
        budget = EventBudget(time.monotonic_ns(), events, events, 0).pack()
        values = budget * lib.libbpf_num_possible_cpus()
        fd = self.object.maps["fast_event_budgets"].fd
        assert lib.bpf_map_update_elem(fd, bytes(4), values, 0) == 0

    def close(self) -> None:
        for handle in (
            self.flows,
            self.metrics,
            self.local_pods,
            self.interfaces,
            self.flow_limits,
            self.cluster_pods,
            self.local_devices,
        ):
            handle.close()
        self.object.close()


def grown(
    before: dict[tuple[Reason, PacketDirection], Metric], after: dict[tuple[Reason, PacketDirection], Metric]
) -> dict[tuple[Reason, PacketDirection], int]:
    """Give by how many packets each counter grew, of those that did."""
    zero = Metric(0, 0)
    grew = {key: metric.packets - before.get(key, zero).packets for key, metric in after.items()}
    return {key: packets for key, packets in grew.items() if packets}


def only(reason: Reason, direction: PacketDirection) -> dict[tuple[Reason, PacketDirection], int]:
    """Give what one packet under one reason counts."""
    return {(reason, direction): 1}
