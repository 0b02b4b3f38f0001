"""Services as kube-proxy makes them, in nftables or iptables (nf_tables), for tests. Only what the tests use.

Cluster IPs with one backend each, node ports with and without source NAT, masquerade of hairpins and of what nodes
send, and the drop of invalid packets that catches whoever splits a translated flow between stack and fast path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from fast.net import IPAddress
from kernel.fastlab import Node

Flavour = Literal["nft", "iptables"]

SERVICE_PORT = 80
BACKEND_PORT = 8080
MASQUERADE_MARK = 0x4000


@dataclass(frozen=True)
class Service:
    """One backend behind a cluster IP and, where given, a port of every node."""

    vip: IPAddress
    backend: IPAddress
    node_port: int | None = None
    keeps_source: bool = False
    backend_port: int = BACKEND_PORT

    @property
    def target(self) -> str:
        """Where DNAT sends its packets."""
        host = str(self.backend) if self.backend.version == 4 else f"[{self.backend}]"
        return f"{host}:{self.backend_port}"


def vip(number: int, version: int) -> IPAddress:
    """Give the cluster IP of that number."""
    return ip_address(f"10.96.0.{number}" if version == 4 else f"fd00:96::{number:x}")


def install(node: Node, services: Iterable[Service], flavour: Flavour) -> None:
    """Replace the node's services by these."""
    listed = list(services)
    if flavour == "nft":
        node.run("nft -f -", stdin=_nft(node, listed))
        return
    for family, command in ((4, "iptables-nft"), (6, "ip6tables-nft")):
        ours = [service for service in listed if service.vip.version == family]
        node.run("\n".join(f"{command} -w {rule}" for rule in _iptables(node, ours, family)))


def _nft(node: Node, services: list[Service]) -> str:
    cluster, ports = [], []
    for service in services:
        ip = "ip" if service.vip.version == 4 else "ip6"
        match = f"meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT}"
        cluster.append(f"{ip} daddr {service.vip} {match} dnat {ip} to {service.target}")
        if service.node_port:
            mark = "" if service.keeps_source else f"meta mark set meta mark or {MASQUERADE_MARK:#x} "
            local = f"{ip} daddr {node.ip if ip == 'ip' else node.ip6}"
            match = f"meta l4proto {{ tcp, udp }} th dport {service.node_port}"
            ports.append(f"{local} {match} {mark}dnat {ip} to {service.target}")
    hairpins = [
        f"ct status dnat {'ip' if s.backend.version == 4 else 'ip6'} saddr {s.backend} "
        f"{'ip' if s.backend.version == 4 else 'ip6'} daddr {s.backend} masquerade"
        for s in services
    ]
    lines = "\n    ".join
    return f"""
add table inet kube_proxy
delete table inet kube_proxy
table inet kube_proxy {{
  chain services {{
    {lines(cluster)}
    {lines(ports)}
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain output {{ type nat hook output priority -100; jump services; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    meta mark and {MASQUERADE_MARK:#x} != 0 masquerade fully-random
    {lines(hairpins)}
  }}
  chain forward {{ type filter hook forward priority filter; ct state invalid counter drop; }}
}}
"""


def _iptables(node: Node, services: list[Service], family: int) -> Iterator[str]:
    yield "-t nat -F"
    yield "-F FORWARD"
    yield "-A FORWARD -m conntrack --ctstate INVALID -j DROP"
    for service in services:
        for chain in ("PREROUTING", "OUTPUT"):
            for protocol in ("tcp", "udp"):
                base = f"-t nat -A {chain} -p {protocol}"
                yield f"{base} -d {service.vip} --dport {SERVICE_PORT} -j DNAT --to-destination {service.target}"
                if not service.node_port:
                    continue
                port = f"{base} -d {node.ip if family == 4 else node.ip6} --dport {service.node_port}"
                if not service.keeps_source:
                    yield f"{port} -j MARK --or-mark {MASQUERADE_MARK:#x}"
                yield f"{port} -j DNAT --to-destination {service.target}"
        hairpin = f"-s {service.backend} -d {service.backend} -m conntrack --ctstate DNAT"
        yield f"-t nat -A POSTROUTING {hairpin} -j MASQUERADE"
    yield f"-t nat -A POSTROUTING -m mark --mark {MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x} -j MASQUERADE --random-fully"
