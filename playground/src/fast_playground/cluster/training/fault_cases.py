"""The table of faults: what each breaks, where, and the scripts and objects that do it. Nothing is run here.

A script prints, on stdout, the script that undoes it. It finds NODE and NUMBER in its environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fast.api.ips import ANNOTATION_POOLS, API_VERSION

Object = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: What a user calls it.
        what: What is broken, in a few words.
        at: Where the script runs: on a node, in a pod's network, in the underlay; or nowhere.
        script: See above.
        program: A program that is stopped, or hung if ``hangs``; ``{node}`` stands for the node.
        hangs: See above.
        objects: What is created; ``{node}`` stands for the node.
    """

    name: str
    what: str
    at: Literal["node", "pod", "underlay", "cluster"] = "cluster"
    script: str = ""
    program: str = ""
    hangs: bool = False
    objects: tuple[Object, ...] = ()


def _rule(table: str, hook: str, rule: str, policy: str = "accept") -> str:
    """Return a script that adds an nftables table with one chain, as host hardening does."""
    chain = f"{{ type filter hook {hook} priority 0; policy {policy}; {rule}; }}"
    return f"echo 'table inet {table} {{ chain {hook} {chain}; }}' | nft -f - && echo nft delete table inet {table}"


def _object(version: str, kind: str, name: str, spec: Object, **metadata: Any) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def _pool(name: str, subnet: str, *ranges: str) -> Object:
    return _object(API_VERSION, "Ips", name, {"subnet": subnet, "ips": list(ranges)})


def _pod(name: str, annotations: dict[str, str], **labels: str) -> Object:
    spec = {
        "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "infinity"]}],
        "terminationGracePeriodSeconds": 0,
    }
    return _object("v1", "Pod", name, spec, namespace="default", annotations=annotations, labels=labels)


_PORT = "$(ip -d link show fast_vxlan | sed -n 's/.* dstport \\([0-9]*\\) .*/\\1/p')"
_TINY = {ANNOTATION_POOLS: "broken-tiny"}
_RECORD = {
    "pool": "default-ips",
    "node": "{node}",
    "pod": {"namespace": "default", "name": "never-was", "uid": "00000000-0000-0000-0000-000000000000"},
    "containerID": "0" * 64,
    "interface": "eth0",
    "bootID": "00000000-0000-0000-0000-000000000000",
}
_SERVICE = {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}

_CASES = (
    Case("agent-dead", "the agent of a node does not run", program="{node}/agent"),
    Case("agent-hung", "the agent of a node hangs", program="{node}/agent", hangs=True),
    Case("api-hung", "the API server hangs", program="apiserver", hangs=True),
    Case(
        "api-unreachable",
        "a firewall of a node refuses the way to the API server",
        "node",
        _rule("broken_api", "output", "tcp dport 6443 reject"),
    ),
    Case(
        "underlay-mtu",
        "the network between the nodes carries smaller packets than a node believes",
        "underlay",
        "mtu=$(ip -o link show $NODE | sed 's/.* mtu \\([0-9]*\\) .*/\\1/'); ip link set $NODE mtu 1300"
        " && echo ip link set $NODE mtu $mtu",
    ),
    Case(
        "tunnel-port",
        "a firewall of a node drops the tunnel's port",
        "node",
        f"port={_PORT}; " + _rule("broken_tunnel", "input", "udp dport '$port' drop comment \"hardening\""),
    ),
    Case(
        "forward-policy",
        "a firewall of a node drops what is forwarded, by its policy",
        "node",
        _rule("broken_policy", "forward", "ct state established accept", "drop"),
    ),
    Case(
        "forward-rule",
        "a firewall of a node drops what is forwarded, by a rule",
        "node",
        _rule("broken_forward", "forward", "meta l4proto tcp drop"),
    ),
    Case(
        "conflist-first",
        "another network configuration comes before Fast's on a node",
        "node",
        'f=/etc/cni/net.d/05-other.conflist; echo \'{"cniVersion": "1.0.0", "name": "other",'
        ' "plugins": [{"type": "loopback"}]}\' > $f && echo rm -f $f',
    ),
    Case(
        "tombstone-disk",
        "the disk for tombstones of a node is full",
        "node",
        "d=/var/lib/fast/tombstones; mkdir -p $d && mount -t tmpfs -o size=4k full $d"
        " && head -c 4096 /dev/zero > $d/.full && echo umount -l $d",
    ),
    Case(
        "map-entry",
        "an entry of a node's map of the cluster was deleted (the agent repairs it soon)",
        "node",
        "ip=$(fast-ctl cluster-ips list | awk '$NF == \"pod\" {print $1; exit}'); fast-ctl cluster-ips delete $ip >&2"
        " && echo :",
    ),
    Case(
        "pod-mtu",
        "a pod's device has another MTU than the tunnel",
        "pod",
        "mtu=$(ip -o link show eth0 | sed 's/.* mtu \\([0-9]*\\) .*/\\1/'); ip link set eth0 mtu 9000"
        " && echo ip link set eth0 mtu $mtu",
    ),
    Case(
        "pod-route",
        "a pod's default route was deleted",
        "pod",
        'r=$(ip -4 route show default); ip -4 route del default && echo "ip -4 route add $r"',
    ),
    Case(
        "pod-neighbour",
        "a pod's entry for its gateway was deleted",
        "pod",
        "set -- $(ip -4 neigh show dev eth0 nud permanent | head -1); ip neigh del $1 dev eth0"
        ' && echo "ip neigh replace $1 lladdr $3 dev eth0 nud permanent"',
    ),
    Case(
        "spoofing-pod",
        "a pod sends with an address that is not its own",
        "pod",
        "ip addr add 10.244.255.250/32 dev lo; setsid ping -i 0.2 -I 10.244.255.250 10.244.255.251"
        ' >/dev/null 2>&1 </dev/null & echo "kill $!; ip addr del 10.244.255.250/32 dev lo"',
    ),
    Case(
        "pool-exhausted",
        "a pool has fewer addresses than pods that ask for one",
        objects=(
            _pool("broken-tiny", "10.250.0.0/24", "10.250.0.10"),
            _pod("broken-tiny-1", _TINY),
            _pod("broken-tiny-2", _TINY),
        ),
    ),
    Case(
        "annotation-value",
        "a pod asks for a pool that does not exist",
        objects=(_pod("broken-value", {ANNOTATION_POOLS: "defaul-ips"}),),
    ),
    Case(
        "annotation-key",
        "a pod's annotation is misspelt, so that it gets an address of the default pool",
        objects=(_pod("broken-key", {"fast.io/ip-pool": "default-ips"}),),
    ),
    Case(
        "bad-pool",
        "a pool lies in the network of the nodes",
        objects=(_pool("broken-pool", "192.168.77.0/24", "192.168.77.100-192.168.77.110"),),
    ),
    Case(
        "pools-overlap",
        "two pools have addresses in common",
        objects=(_pool("broken-overlap", "10.244.0.0/16", "10.244.100.0-10.244.100.50"),),
    ),
    Case(
        "record-without-pod",
        "a record names a pod that never existed",
        objects=(_object(API_VERSION, "IpEndpoint", "10.244.200.250", _RECORD),),
    ),
    Case(
        "service-without-backend",
        "a Service selects no pod",
        objects=(_object("v1", "Service", "broken-service", _SERVICE, namespace="default"),),
    ),
    Case(
        "policy-denies",
        "a policy lets nobody reach the pods of the namespace default",
        objects=(
            _object(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "broken-policy",
                {"podSelector": {}, "policyTypes": ["Ingress"]},
                namespace="default",
            ),
        ),
    ),
)
CASES = {case.name: case for case in _CASES}
