"""Fast's own nftables table: masquerade to outside, no pod's packet to the tunnel's port, no conntrack for the tunnel.

One table, replaced as a whole in one transaction; other tables are not touched. (A FORWARD policy of DROP in another
table cannot be overruled from here: forward.py.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fast.datapath.bpf.layout import Metric
from fast.datapath.netlink.nftables import ruleset_generation
from fast.datapath.node.host_command import call, run
from fast.datapath.node.tunnel import TUNNEL_DEVICE
from fast.datapath.pod.identity import DEVICE_PREFIX
from fast.errors import NftablesError
from fast.net import IPAddress, IPNetwork

TABLE = "fast"
#: The cloud metadata service, by nftables family; as in bpf/lib/addr.h.
METADATA = {"ip": "169.254.169.254", "ip6": "fd00:ec2::254"}


#: What the table drops, by the name of its counter: the reason in the agent's metrics, and where it was seen.
COUNTERS = {
    "tunnel_port": ("drop_tunnel_port_translated", "from_pod"),
    "untunnelled": ("drop_untunnelled_source", "from_underlay"),
    "metadata": ("drop_metadata_translated", "from_pod"),
}
_FIRST_PORT, _LAST_PORT = 1024, 65_535


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The content of the table.

    Attributes:
        tunnel_port: UDP port of the tunnel.
        node_ip: The source that packets into the tunnel get, if the other end would refuse their own.
        node_ip6: The same for IPv6; None if the node has none.
        masquerade: Whether traffic from pods to outside takes the node's address.
        pod_subnets: Where pods live.
        connected: The networks of the node's own devices; what comes from there is no pod.
        native: Whether other nodes' pods reach this node without the tunnel, by IPv4.
        block_metadata: Whether nothing may be translated to the address of cloud metadata.
    """

    tunnel_port: int
    node_ip: IPAddress
    node_ip6: IPAddress | None
    masquerade: bool
    pod_subnets: frozenset[IPNetwork] = frozenset()
    connected: frozenset[IPNetwork] = frozenset()
    native: bool = False
    block_metadata: bool = False

    def render(self) -> str:
        """Return the transaction that replaces the table."""
        counters = "\n".join(f"  counter {name} {{}}" for name in COUNTERS)
        return f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
{_set("pods4", 4, self.pod_subnets)}
{_set("pods6", 6, self.pod_subnets)}
{_set("connected4", 4, self.connected)}
{_set("connected6", 6, self.connected)}
{counters}
  chain untracked_in {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{DEVICE_PREFIX}*" udp dport {self.tunnel_port} notrack accept
{self._refuse_untunnelled()}
  }}
  chain untracked_out {{
    type filter hook output priority raw; policy accept;
    udp dport {self.tunnel_port} notrack
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {self._refuse_tunnel_port("ip daddr != @pods4 ")}
    {self._refuse_tunnel_port("ip6 daddr != @pods6 ")}
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    {self._refuse_tunnel_port()}
    {self._refuse_translated_to_tunnel()}
  }}
  chain translated {{
    type filter hook postrouting priority filter; policy accept;
    {self._refuse_translated_to_tunnel("ip daddr != @pods4 ")}
    {self._refuse_translated_to_tunnel("ip6 daddr != @pods6 ")}
{self._refuse_translated_to_metadata()}
  }}
  chain source_nat {{
    type nat hook postrouting priority srcnat - 1; policy accept;
{self._source_nat()}
  }}
}}
"""

    def _refuse_untunnelled(self) -> str:
        # A pool's address comes by the tunnel or from a pod. The route decides as well, so that a host behind a router
        # is not taken for a pod, whatever a pool's subnet covers.
        families = [("ip6", 6)] if self.native else [("ip", 4), ("ip6", 6)]
        return "\n".join(
            f'    iifname != "{DEVICE_PREFIX}*" {family} saddr @pods{version} {family} saddr != @connected{version}'
            f' fib saddr oifname "{DEVICE_PREFIX}*" counter name untunnelled drop'
            for family, version in families
        )

    def _refuse_tunnel_port(self, to: str = "") -> str:
        port = f"udp dport {self.tunnel_port}"
        return f'iifname "{DEVICE_PREFIX}*" {to}{port} counter name tunnel_port drop'

    def _refuse_translated_to_tunnel(self, to: str = "") -> str:
        # A Service whose endpoint is a node's tunnel port: whoever uses it would speak as a node.
        return f"ct status dnat {to}udp dport {self.tunnel_port} counter name tunnel_port drop"

    def _refuse_translated_to_metadata(self) -> str:
        if not self.block_metadata:
            return ""
        return "\n".join(
            f"    ct status dnat {family} daddr {address} counter name metadata drop"
            for family, address in METADATA.items()
        )

    def _ports(self) -> str:
        """Return the larger range of ports without the tunnel's: a reply to that one would go into the tunnel."""
        below, above = (_FIRST_PORT, self.tunnel_port - 1), (self.tunnel_port + 1, _LAST_PORT)
        first, last = max(below, above, key=lambda ports: ports[1] - ports[0])
        return f"{first}-{last}"

    def _source_nat(self) -> str:
        # A packet into the tunnel is refused at the other end unless its source lives on this node: what comes from
        # outside, as for a NodePort whose backend is on another node, or from another address of this node, does not.
        tunnel, ports = f'oifname "{TUNNEL_DEVICE}"', self._ports()
        from_tunnel_port = f"udp sport {self.tunnel_port}"
        rules = []
        for family, pods, node in (("ip", "pods4", self.node_ip), ("ip6", "pods6", self.node_ip6)):
            if node is None:
                continue
            foreign = f"{tunnel} {family} saddr != @{pods} {family} saddr != {node}"
            target = f"[{node}]" if family == "ip6" else str(node)
            rules += [
                f"{foreign} {from_tunnel_port} snat {family} to {target}:{ports}",
                f"{foreign} snat {family} to {node}",
            ]
        if self.masquerade:
            for family, pods in (("ip", "pods4"), ("ip6", "pods6")):
                outside = f'oifname != "{DEVICE_PREFIX}*" {family} saddr @{pods} {family} daddr != @{pods}'
                rules += [
                    f"{outside} meta l4proto {{ tcp, udp }} masquerade to :{ports} fully-random",
                    f"{outside} masquerade fully-random",
                ]
        return "\n".join(f"    {rule}" for rule in rules)


def _set(name: str, version: int, elements: Iterable[IPNetwork | IPAddress]) -> str:
    """Declare a set with those of the elements that are of the IP version."""
    listed = ", ".join(sorted(str(element) for element in elements if element.version == version))
    filled = f" elements = {{ {listed} }};" if listed else ""
    return f"  set {name} {{ type ipv{version}_addr; flags interval; auto-merge;{filled} }}"


class Firewall:
    """The table in the kernel. Not thread-safe: one caller at a time."""

    def __init__(self) -> None:
        self._applied: Ruleset | None = None
        self._listing: Any = None
        self._generation = 0

    def apply(self, ruleset: Ruleset) -> bool:
        """Make the table match ``ruleset``; return whether it was written.

        A table that is as this object left it stays untouched, with its counters; any other is replaced.

        Raises:
            NftablesError: nft is missing or refused.
        """
        if self._applied == ruleset and self._is_as_left():
            return False
        result = call("nft", "-f", "-", stdin=ruleset.render())
        if result.returncode:
            raise NftablesError(f"nft refused Fast's table: {result.stderr.strip()}")
        self._applied = ruleset
        self._generation, self._listing = ruleset_generation(), _listing()
        return True

    def _is_as_left(self) -> bool:
        """Return whether the table is as this object left it; nothing is listed if no rule of anybody changed."""
        generation = ruleset_generation()
        if generation and generation == self._generation:
            return True
        if self._listing is None or _listing() != self._listing:
            return False
        self._generation = generation
        return True

    @staticmethod
    def refused() -> dict[str, Metric]:
        """Count what the table dropped since it was last written, by the names in :data:`COUNTERS`.

        Raises:
            NftablesError: nft is missing, or there is no table.
        """
        listed = json.loads(run("nft", "-j", "list", "counters", "table", "inet", TABLE))
        counters = [item["counter"] for item in listed["nftables"] if "counter" in item]
        return {item["name"]: Metric(item["packets"], item["bytes"]) for item in counters}

    def remove(self) -> None:
        """Delete the table. Idempotent.

        Raises:
            NftablesError: nft is missing or refused.
        """
        self._applied = self._listing = None
        result = call("nft", "-f", "-", stdin=f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
        if result.returncode:
            raise NftablesError(f"nft cannot delete Fast's table: {result.stderr.strip()}")


def _listing() -> Any:
    """List the table, without handles and counts; None if there is no table."""
    result = call("nft", "-j", "list", "table", "inet", TABLE)
    if result.returncode:
        return None
    return [_lasting(item) for item in json.loads(result.stdout)["nftables"] if "metainfo" not in item]


def _lasting(item: Any) -> Any:
    """Drop handles and counts."""
    if isinstance(item, dict):
        return {
            key: _lasting(value) for key, value in item.items() if key not in ("handle", "packets", "bytes")
        }
    if isinstance(item, list):
        return [_lasting(value) for value in item]
    return item
