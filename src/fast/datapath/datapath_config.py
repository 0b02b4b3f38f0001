"""The configuration of one node's datapath. Values only; the agent fills them from flags and environment."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal

from fast.datapath.bpf_dir import DEFAULT_BPF_DIR
from fast.errors import InvalidConfig
from fast.net import IPNetwork

RoutingMode = Literal["vxlan", "native"]

#: Neither IANA's VXLAN port 4789 nor 8472 (Linux's old default, flannel, Cilium): a collect-metadata device cannot
#: share its port with another VXLAN device. Below the range that Linux gives to outgoing connections.
DEFAULT_TUNNEL_PORT = 8479
#: Outer IPv4 header 20, UDP 8, VXLAN 8, inner Ethernet 14.
TUNNEL_OVERHEAD_BYTES = 50
MAX_IP_BYTES = 65_535  # RFC 791: what an IPv4 header can say
MIN_MTU = 576  # RFC 791: what every IPv4 host must accept


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """One node's datapath.

    Attributes:
        node_name: The Node object's name; seeds the tunnel device's MAC.
        node_ip: The node's underlay address; one of its devices must have it.
        node_ip6: The node's IPv6 address, for host ↔ pod traffic over IPv6; None if it has none.
        bpf_dir: Where maps, programs and links are pinned; in a bpf filesystem.
        pod_subnets: The subnets of all pools; later changes by NodeDatapath.set_pod_subnets.
        routing: ``vxlan``; or ``native`` if all nodes are on one L2 (IPv6 takes the tunnel then, too).
        tunnel_port: UDP port of the VXLAN device; the same on every node of the cluster.
        vni: VXLAN network identifier, 24 bits; the same on every node.
        pod_mtu: MTU of the pods' interfaces; None: derived from the underlay's.
        masquerade: Whether traffic from pods to outside the cluster takes the node's address.
        skip_tunnel_device: Whether programs may encapsulate what pods send by themselves, without the node's netfilter
            output chains and output routing rules. Turned off once an IPsec policy is seen.
        max_cluster_entries: Size of the map of all pod and node addresses.
        max_flows: Size of the flow table; None: by the node's memory.
        block_metadata: Whether only endpoints marked so (EndpointSpec.metadata_allowed) reach cloud metadata.
        network_policy: Whether ``fast_after_nat`` is attached, and endpoints wait for their rules.
    """

    node_name: str
    node_ip: IPv4Address
    node_ip6: IPv6Address | None = None
    bpf_dir: Path = DEFAULT_BPF_DIR
    pod_subnets: tuple[IPNetwork, ...] = ()
    routing: RoutingMode = "vxlan"
    tunnel_port: int = DEFAULT_TUNNEL_PORT
    vni: int = 1
    pod_mtu: int | None = None
    masquerade: bool = True
    skip_tunnel_device: bool = True
    max_cluster_entries: int = 262_144
    max_flows: int | None = None
    block_metadata: bool = False
    network_policy: bool = False

    def __post_init__(self) -> None:
        if self.routing not in ("vxlan", "native"):
            raise InvalidConfig(f"routing {self.routing!r} is neither vxlan nor native")
        if not 0 < self.tunnel_port < 1 << 16:
            raise InvalidConfig(f"tunnel port {self.tunnel_port} is not between 1 and 65535")
        if not 0 < self.vni < 1 << 24:
            raise InvalidConfig(f"VNI {self.vni} is not between 1 and 16777215")
        if self.pod_mtu is not None and not MIN_MTU <= self.pod_mtu < 1 << 16:
            raise InvalidConfig(f"pod MTU {self.pod_mtu} is not between {MIN_MTU} and 65535")
