"""Reads what this node's kernel knows of addresses: from devices and maps. Compares and changes nothing."""

from __future__ import annotations

from pathlib import Path

from fast.datapath.bpf.layout import Kind
from fast.datapath.bpf.maps import ClusterPods, LocalPods
from fast.datapath.netlink import Netlink
from fast.datapath.pod.identity import endpoint_of
from fast.net.node_state import NodeState


def read_node_state(maps: Path) -> NodeState:
    """Read the devices of this network namespace, and the maps pinned in ``maps``. Blocking.

    Raises:
        BPFError: A map is not pinned there, or may not be read.
        NetlinkError: The kernel refuses to list devices.
    """
    with LocalPods.open(maps) as local, ClusterPods.open(maps) as cluster, Netlink() as netlink:
        endpoints = [item for link in netlink.links("veth") if (item := endpoint_of(link)) is not None]
        return NodeState(
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
