"""What this node's kernel says of addresses, read whole for whoever compares it. Compares and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fast.datapath.bpf.layout import Kind
from fast.datapath.bpf.maps import ClusterPods, LocalPods
from fast.datapath.netlink import Netlink
from fast.datapath.pod.identity import endpoint_of
from fast.net import IPAddress


@dataclass(frozen=True, slots=True)
class Survey:
    """One look.

    Attributes:
        sandboxes: By address, the (container ID, interface) whose veth says that it has it, and the veth's index here.
        local: ``fast_local_pods``: the veth's index by address.
        cluster: ``fast_cluster_pods`` without the nodes' own addresses: the node's IP by address.
    """

    sandboxes: Mapping[IPAddress, tuple[tuple[str, str], int]]
    local: Mapping[IPAddress, int]
    cluster: Mapping[IPAddress, str]


def survey_node(maps: Path) -> Survey:
    """Look at the devices of this network namespace, and at the maps pinned in ``maps``. Blocking.

    Raises:
        BPFError: A map is not pinned there, or may not be read.
        NetlinkError: The kernel refuses to list devices.
    """
    with LocalPods.open(maps) as local, ClusterPods.open(maps) as cluster, Netlink() as netlink:
        endpoints = [item for link in netlink.links("veth") if (item := endpoint_of(link)) is not None]
        return Survey(
            sandboxes={
                address: ((item.container_id, item.ifname), item.ifindex)
                for item in endpoints
                for address in item.addresses
            },
            local={address: entry.ifindex for address, entry in local.items()},
            cluster={
                address: str(entry.node_ip) for address, entry in cluster.items() if entry.kind is Kind.POD
            },
        )
