"""The program of policy, loaded over maps of its own, which are filled as the agent fills them. No assertions here."""

from __future__ import annotations

import os
from ipaddress import IPv4Address

from fast.datapath.bpf import ClusterPod, Config, Kind, LocalPod, LocalPodFlag, load
from fast.datapath.bpf.maps import RAW, Map
from fast.datapath.bpf.spec import AFTER_NAT, POLICY
from fast.datapath.policy.after_nat import run
from fast.net import Mac
from fast.policy.map_layout import Map as PolicyMap
from fast.policy.map_layout import pack_key, pack_value
from kernel.bpf.packets import Ip, ethernet

NODE_IP, OTHER_NODE_IP = IPv4Address("192.168.0.1"), IPv4Address("192.168.0.2")
SMALL = {
    "fast_flow_table": 1024,
    "fast_cluster_pods": 1024,
    "fast_local_pods": 64,
    "fast_events": 1 << 16,
    "fast_drops": 64,
    "fast_peers": 4096,
    "fast_ports": 4096,
    "fast_blocks": 4096,
    "fast_rulesets": 512,
    "fast_ruleset_ids": 512,
}


class JudgedNode:
    """Loads ``fast_after_nat`` without attaching it; every map is new."""

    def __init__(self) -> None:
        self.object = load(POLICY.configured(Config(node_ip=NODE_IP)).sized(**SMALL))
        self.program = self.object.programs[AFTER_NAT]
        self.flows = self.object.flows
        self.local_pods = self.object.local_pods
        self.cluster_pods = self.object.cluster_pods
        self.metrics = self.object.metrics

    def raw(self, name: str) -> Map[bytes, bytes]:
        return Map(os.dup(self.object.maps[name].fd), name, RAW, RAW)

    def fill(self, maps) -> None:
        """Make the kernel's maps hold what the simulated ones do; forget every flow."""
        for which in PolicyMap:
            entries = {pack_key(key): pack_value(which, value) for key, value in maps.of(which).items()}
            self._replace(which.value, entries)
        self.forget_flows()
        local = {}
        for index, (key, policy) in enumerate(maps.pods.items()):
            mac = Mac.derived(str(index))
            local[key] = local_pod(index + 100, mac, policy).pack()
        self._replace("fast_local_pods", local)
        cluster = {
            key: ClusterPod(
                OTHER_NODE_IP,
                Kind.NODE if key in maps.nodes else Kind.POD,
                peer_class=maps.classes.get(key, 0),
            ).pack()
            for key in {*maps.classes, *maps.nodes}
        }
        self._replace("fast_cluster_pods", cluster)

    def forget_flows(self) -> None:
        self._replace("fast_flow_table", {})

    def _replace(self, name: str, entries) -> None:
        with self.raw(name) as target:
            there = target.snapshot_raw()
            target.delete_many_raw([key for key in there if key not in entries])
            for key, value in entries.items():
                if there.get(key) != value:
                    target.put_many_raw({key: value})

    def passes(self, packet: Ip, *, from_own_node: bool = False) -> bool:
        frame = ethernet(Mac.derived("from"), Mac.derived("to"), packet.ethertype, bytes(packet))
        return run(self.program, frame, from_own_node=from_own_node)

    def close(self) -> None:
        self.object.close()


def local_pod(ifindex: int, mac: Mac, policy) -> LocalPod:
    return LocalPod(
        ifindex,
        mac,
        mac,
        flags=LocalPodFlag(int(policy.flags)),
        peer_class=policy.peer_class,
        ingress_rules=policy.ingress_rules,
        egress_rules=policy.egress_rules,
        epoch=policy.epoch,
        isolated_since_ns=policy.isolated_since_ns,
    )
