"""Asks the program in service what it would do with a packet of a pod. The packet is made here and never sent.

The kernel runs the pinned ``fast_from_pod`` on it (``BPF_PROG_RUN``) with the live maps, so the answer is the data
plane's own and not a second implementation's. Programs behind the tunnel cannot be asked: BPF_PROG_RUN cannot give a
packet its tunnel metadata.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from fast.datapath.bpf.layout import LocalPod, Metric
from fast.datapath.bpf.maps import LocalPods, Metrics
from fast.datapath.bpf.objects import Program, RunContext
from fast.datapath.bpf.pins import PinDirectory
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.bpf.spec import FROM_POD
from fast.errors import DatapathError
from fast.net import IPAddress

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_IPV4, _IPV6 = 0x0800, 0x86DD
_SOURCE_PORT = 40_000
#: The counters are the node's, and traffic goes on: a reason counted by every run of a batch is the packet's.
_RUNS, _BATCHES = 16, 8
_ETHERNET_BYTES, _OUTER_BYTES = 14, 14 + 20 + 8 + 8

Counters = Mapping[tuple[Reason, PacketDirection], Metric]


@dataclass(frozen=True, slots=True)
class PacketSpec:
    """A packet to ask about.

    Attributes:
        source: A pod of this node.
        destination: Where to.
        protocol: TCP (a SYN), UDP or ICMP (an echo request).
        destination_port: For TCP and UDP.
        size_bytes: The IP packet's length; short ones are as long as their headers.
    """

    source: IPAddress
    destination: IPAddress
    protocol: int = TCP
    destination_port: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the program does with the packet.

    Attributes:
        reason: Why, which also says what.
        outer_source: The tunnel's addresses if the program encapsulates, else None.
        outer_destination: Likewise.
        outer_port: Likewise.
    """

    reason: Reason
    outer_source: IPv4Address | None = None
    outer_destination: IPv4Address | None = None
    outer_port: int = 0


def ask_verdict(bpf_dir: Path, packet: PacketSpec) -> Verdict:
    """Ask the program in service.

    Counters of the node grow by the packets asked about. Run it in the node's network namespace.

    Args:
        bpf_dir: Fast's directory in the bpf filesystem.
        packet: What to ask about.

    Raises:
        DatapathError: The source is no pod of this node, the program is not pinned, or there is so much traffic that
            the answer cannot be told from it; trying again helps then.
    """
    pins = PinDirectory(bpf_dir)
    with LocalPods.open(pins.maps) as pods:
        entry = pods.get(packet.source)
    if entry is None:
        raise DatapathError(f"{packet.source} is not in this node's map of local pods")
    frame = build_frame(packet, entry)
    with Program.open(pins, FROM_POD) as program, Metrics.open(pins.maps) as metrics:
        for _ in range(_BATCHES):
            before = metrics.read()
            for _ in range(_RUNS):
                result = program.run(frame, RunContext(ifindex=entry.ifindex))
            reasons = _counted(before, metrics.read())
            if len(reasons) == 1:
                return _verdict(reasons[0], result.packet, packet)
    raise DatapathError("the node's traffic counts under too many reasons to tell this packet's; try again")


def build_frame(packet: PacketSpec, pod: LocalPod) -> bytes:
    """Build the Ethernet frame as the pod would send it."""
    ipv4 = packet.source.version == 4  # noqa: PLR2004 -- the version's own number
    payload = _transport(packet)
    header = _ipv4_header(packet, payload) if ipv4 else _ipv6_header(packet, payload)
    ethertype = _IPV4 if ipv4 else _IPV6
    return bytes(pod.host_mac) + bytes(pod.pod_mac) + struct.pack("!H", ethertype) + header + payload


def _transport(packet: PacketSpec) -> bytes:
    if packet.protocol == TCP:
        head = struct.pack(
            "!HHIIBBHHH", _SOURCE_PORT, packet.destination_port, 1, 0, 5 << 4, 0x02, 64240, 0, 0
        )
    elif packet.protocol == UDP:
        head = struct.pack("!HHHH", _SOURCE_PORT, packet.destination_port, 8, 0)
    else:
        kind = 8 if packet.protocol == ICMP else 128
        head = struct.pack("!BBHHH", kind, 0, 0, _SOURCE_PORT, 1)
    ip_bytes = 20 if packet.source.version == 4 else 40  # noqa: PLR2004
    return head + bytes(max(0, packet.size_bytes - ip_bytes - len(head)))


def _ipv4_header(packet: PacketSpec, payload: bytes) -> bytes:
    ends = packet.source.packed + packet.destination.packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, packet.protocol, 0)
    return head[:10] + struct.pack("!H", _checksum(head + ends)) + ends


def _ipv6_header(packet: PacketSpec, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), packet.protocol, 64)
    return head + packet.source.packed + packet.destination.packed


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _counted(before: Counters, after: Counters) -> list[Reason]:
    """Give the reasons under which every run of a batch was counted."""
    nothing = Metric(0, 0)
    return [
        reason
        for (reason, direction), metric in after.items()
        if direction is PacketDirection.FROM_POD
        and metric.packets - before.get((reason, direction), nothing).packets >= _RUNS
    ]


def _verdict(reason: Reason, frame: bytes, packet: PacketSpec) -> Verdict:
    """Read the tunnel's headers if the program wrote them in front of the packet."""
    outer = frame[_ETHERNET_BYTES : _ETHERNET_BYTES + 28]
    inner_source = packet.source.packed
    if len(frame) < _OUTER_BYTES + 34 or outer[9] != UDP or outer[12:16] == inner_source:
        return Verdict(reason)
    (port,) = struct.unpack_from("!H", outer, 22)
    source, destination = (ipaddress.IPv4Address(outer[at : at + 4]) for at in (12, 16))
    return Verdict(reason, source, destination, port)
