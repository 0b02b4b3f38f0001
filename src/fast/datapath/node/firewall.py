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
from fast.datapath.node.host_command import call
from fast.datapath.node.tunnel import TUNNEL_DEVICE
from fast.datapath.pod.identity import DEVICE_PREFIX
from fast.errors import NftablesError
from fast.net import IPAddress, IPNetwork

TABLE = "fast"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The content of the table.

    Attributes:
        tunnel_port: UDP port of the tunnel.
        node_ip: The source that packets into the tunnel get, if the other end would refuse their own.
        node_ip6: The same for IPv6; None if the node has none.
        masquerade: Whether traffic from pods to outside takes the node's address.
        pod_subnets: Where pods live.
    """

    tunnel_port: int
    node_ip: IPAddress
    node_ip6: IPAddress | None
    masquerade: bool
    pod_subnets: frozenset[IPNetwork] = frozenset()

    def render(self) -> str:
        """Return the transaction that replaces the table."""
        return f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
{_set("pods4", 4, self.pod_subnets)}
{_set("pods6", 6, self.pod_subnets)}
  counter pod_to_tunnel_port {{}}
  chain untracked_in {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{DEVICE_PREFIX}*" udp dport {self.tunnel_port} notrack
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
  }}
  chain source_nat {{
    type nat hook postrouting priority srcnat - 1; policy accept;
{self._source_nat()}
  }}
}}
"""

    def _refuse_tunnel_port(self, to: str = "") -> str:
        port = f"udp dport {self.tunnel_port}"
        return f'iifname "{DEVICE_PREFIX}*" {to}{port} counter name pod_to_tunnel_port drop'

    def _source_nat(self) -> str:
        # A packet into the tunnel is refused at the other end unless its source lives on this node: what comes from
        # outside, as for a NodePort whose backend is on another node, or from another address of this node, does not.
        rules = [
            f'oifname "{TUNNEL_DEVICE}" ip saddr != @pods4 ip saddr != {self.node_ip} snat ip to {self.node_ip}',
        ]
        if self.node_ip6:
            foreign = f"ip6 saddr != @pods6 ip6 saddr != {self.node_ip6}"
            rules.append(f'oifname "{TUNNEL_DEVICE}" {foreign} snat ip6 to {self.node_ip6}')
        if self.masquerade:
            outside = f'oifname != "{DEVICE_PREFIX}*"'
            rules.append(f"{outside} ip saddr @pods4 ip daddr != @pods4 masquerade fully-random")
            rules.append(f"{outside} ip6 saddr @pods6 ip6 daddr != @pods6 masquerade fully-random")
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

    def apply(self, ruleset: Ruleset) -> bool:
        """Make the table match ``ruleset``; return whether it was written.

        A table that is as this object left it stays untouched, with its counters; any other is replaced.

        Raises:
            NftablesError: nft is missing or refused.
        """
        if self._applied == ruleset and self._listing is not None and _listing() == self._listing:
            return False
        result = call("nft", "-f", "-", stdin=ruleset.render())
        if result.returncode:
            raise NftablesError(f"nft refused Fast's table: {result.stderr.strip()}")
        self._applied, self._listing = ruleset, _listing()
        return True

    @staticmethod
    def refused() -> Metric:
        """Count the pods' packets that were translated to the tunnel's port, since the table was last written.

        Raises:
            NftablesError: nft is missing, or there is no table.
        """
        result = call("nft", "-j", "list", "counter", "inet", TABLE, "pod_to_tunnel_port")
        if result.returncode:
            raise NftablesError(f"nft cannot read Fast's counter: {result.stderr.strip()}")
        items = json.loads(result.stdout)["nftables"]
        counter = next(item["counter"] for item in items if "counter" in item)
        return Metric(counter["packets"], counter["bytes"])

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
