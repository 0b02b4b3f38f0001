"""What a node's kernel knows of addresses, as a value that the datapath fills and address management compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fast.net.address import IPAddress


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node at one moment.

    Attributes:
        sandboxes: Interfaces that exist, by address: the attachment (container ID, interface name) and the index of
            the host's device. A veth ends with its sandbox's network namespace.
        local: ``fast_local_pods``: the device's index by address.
        cluster: ``fast_cluster_pods`` without the nodes' own addresses: the node's IP by address.
    """

    sandboxes: Mapping[IPAddress, tuple[tuple[str, str], int]]
    local: Mapping[IPAddress, int]
    cluster: Mapping[IPAddress, str]
