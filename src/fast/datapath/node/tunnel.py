"""The devices towards other nodes: the underlay device and the collect-metadata VXLAN device.

The VXLAN device exists in native routing too: it carries IPv6 there, as the underlay is IPv4, and the stack's packets
to remote pods leave through it, so that a program can send them on. Its routes are in routing.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from fast.datapath.datapath_config import MAX_IP_BYTES, MIN_MTU, TUNNEL_OVERHEAD_BYTES, DatapathConfig
from fast.datapath.netlink import Link, Netlink, Request, requests
from fast.datapath.pod.identity import DEVICE_PREFIX
from fast.datapath.repair import Repair, RepairKind
from fast.errors import DatapathError, NetlinkError
from fast.net import IPAddress, Mac

_LOOPBACK = "lo"
TUNNEL_DEVICE = f"{DEVICE_PREFIX}_vxlan"


@dataclass(frozen=True, slots=True)
class Mtus:
    """How large packets may be, in bytes without the Ethernet header.

    Attributes:
        pod: Pods' interfaces.
        tunnel_device: The VXLAN device: what the stack may send into it.
        tunnel: What fits through the tunnel.
    """

    pod: int
    tunnel_device: int
    tunnel: int

    @classmethod
    def of(cls, config: DatapathConfig, underlay: Link) -> Mtus:
        """Derive them from the underlay's.

        Raises:
            DatapathError: The underlay's MTU leaves less than IPv4's minimum for the pods.
        """
        tunnel = min(underlay.mtu, MAX_IP_BYTES) - TUNNEL_OVERHEAD_BYTES
        if tunnel < MIN_MTU:
            raise DatapathError(
                f"device {underlay.name} has an MTU of {underlay.mtu}, which leaves {tunnel} bytes for pods; "
                f"at least {MIN_MTU + TUNNEL_OVERHEAD_BYTES} are needed"
            )
        carried = underlay.mtu if config.routing == "native" else tunnel
        return cls(config.pod_mtu or carried, carried, tunnel)


def find_underlay(netlink: Netlink, node_ip: IPAddress) -> Link:
    """Find the device that has the node's address; if several have it, one that is not the loopback device.

    If only the loopback device has it, as on nodes that announce it to routers, the MTU returned is the smallest of the
    devices that lead out.

    Raises:
        DatapathError: None has it, or it is down.
    """
    links = {link.index: link for link in netlink.links()}
    owners = [
        links[address.index]
        for address in netlink.addresses()
        if address.address == node_ip
        and address.index in links
        and links[address.index].name != TUNNEL_DEVICE
    ]
    if not owners:
        raise DatapathError(f"no network device of this node has the node's address {node_ip}")
    owner = min(owners, key=lambda link: (link.name == _LOOPBACK, not link.up, link.index))
    if not owner.up:
        raise DatapathError(f"device {owner.name}, which has the node's address {node_ip}, is down")
    if owner.name != _LOOPBACK:
        return owner
    return replace(owner, mtu=min((link.mtu for link in find_ways_out(netlink, owner)), default=MAX_IP_BYTES))


def has_address(address: IPv4Address) -> bool:
    """Tell whether a device of this node, other than the tunnel device, has the address. Blocking.

    Raises:
        NetlinkError: The kernel refused.
    """
    with Netlink() as netlink:
        names = {link.index: link.name for link in netlink.links()}
        return any(
            item.address == address and names.get(item.index) != TUNNEL_DEVICE for item in netlink.addresses()
        )


def find_node_ip6(node_ip: IPv4Address) -> IPv6Address | None:
    """Give the lowest lasting IPv6 address of the device that has ``node_ip``; None if it has none. Blocking.

    Raises:
        DatapathError: No device has ``node_ip``, or the kernel refused.
    """
    with Netlink() as netlink:
        addresses = netlink.addresses(find_underlay(netlink, node_ip).index)
    found = (item.address for item in addresses if item.lasting and not item.address.is_loopback)
    return min((address for address in found if isinstance(address, IPv6Address)), default=None)


def find_ways_out(netlink: Netlink, underlay: Link) -> list[Link]:
    """Give the devices that carry the packets between nodes.

    That is the underlay; if that is the loopback device, every device with a route to a gateway; if none has, all
    hardware devices.
    """
    if underlay.name != _LOOPBACK:
        return [underlay]
    others = {link.index: link for link in netlink.links() if link.name != _LOOPBACK}
    gateways = {route.index for route in netlink.routes() if route.gateway is not None}
    leading_out = [link for index, link in others.items() if index in gateways and link.name != TUNNEL_DEVICE]
    return leading_out or [link for link in others.values() if not link.kind and link.up]


def ensure_tunnel(
    netlink: Netlink, config: DatapathConfig, mtus: Mtus, guard: Callable[[Link], None]
) -> tuple[Link, list[Repair]]:
    """Create the VXLAN device, or repair the one that exists; traffic flows on if nothing differs.

    Args:
        netlink: In the node's namespace.
        config: The node's.
        mtus: What the device carries.
        guard: Attaches the programs. Called while the device is down: without them, it would pass what anybody sends to
            its port to the stack.

    Raises:
        DatapathError: Its UDP port is taken; the message names the port and who has it.
    """
    mac = Mac.derived(f"{config.node_name} {config.node_ip}")
    repairs: list[Repair] = []
    link = netlink.find_link(TUNNEL_DEVICE)
    if link is not None and (problem := _unusable(link, config)):
        netlink.execute(requests.delete_link(link.index, link.name))
        repairs.append(Repair(RepairKind.TUNNEL_DEVICE, f"{TUNNEL_DEVICE} {problem}; deleted"))
        link = None
    if link is None:
        link = _make(netlink, config, mac, mtus, guard)
        repairs.append(Repair(RepairKind.TUNNEL_DEVICE, f"{TUNNEL_DEVICE} was missing; created"))
    elif differences := _differences(link, mac, mtus):
        if not link.up:
            guard(link)
        _bring_up(netlink, config, requests.set_link(link.index, mac=mac, mtu=mtus.tunnel_device, up=True))
        repairs.append(
            Repair(RepairKind.TUNNEL_DEVICE, f"{TUNNEL_DEVICE} {', '.join(differences)}; repaired")
        )
    return link, repairs + _ensure_addresses(netlink, config, link)


def _ensure_addresses(netlink: Netlink, config: DatapathConfig, link: Link) -> list[Repair]:
    """Give the device the node's own addresses, too, and take those away that it had before.

    What kube-proxy masquerades into the tunnel takes an address of the device, and only the node's own is taken at the
    other end; a device without any would lend that of the first NIC. And loose reverse path filtering is strict on a
    device without an address: it would drop what other nodes' own addresses send here, as replies of node ports.
    """
    own = [address for address in (config.node_ip, config.node_ip6) if address is not None]
    has = netlink.addresses(link.index)
    lacks = [address for address in own if address not in {item.address for item in has}]
    # an address that the node had before may be another machine's now, which would be unreachable from here
    extra = [item for item in has if item.address not in own and not item.address.is_link_local]
    netlink.execute(
        *(requests.add_address(link.index, address) for address in lacks),
        *(requests.delete_address(item.index, item.address, item.prefix_length) for item in extra),
    )
    return [
        *(
            Repair(RepairKind.TUNNEL_DEVICE, f"{TUNNEL_DEVICE} had no address {address}; added")
            for address in lacks
        ),
        *(
            Repair(RepairKind.TUNNEL_DEVICE, f"{TUNNEL_DEVICE} had the address {item.address}; removed")
            for item in extra
        ),
    ]


def _unusable(link: Link, config: DatapathConfig) -> str:
    """Say how the device differs in what cannot be changed; empty if it does not."""
    if link.kind != "vxlan" or not link.collect_metadata:
        return "was no collect-metadata vxlan device"
    if link.vxlan_port != config.tunnel_port:
        return f"had UDP port {link.vxlan_port} instead of {config.tunnel_port}"
    return "learned MAC addresses" if link.learning else ""


def _differences(link: Link, mac: Mac, mtus: Mtus) -> list[str]:
    found = [] if link.up else ["was down"]
    if link.mac != mac:
        found.append(f"had MAC {link.mac} instead of {mac}")
    if link.mtu != mtus.tunnel_device:
        found.append(f"had MTU {link.mtu} instead of {mtus.tunnel_device}")
    return found


def _make(
    netlink: Netlink, config: DatapathConfig, mac: Mac, mtus: Mtus, guard: Callable[[Link], None]
) -> Link:
    """Create the device and bring it up; delete it again if that fails."""
    try:
        netlink.execute(requests.add_vxlan(TUNNEL_DEVICE, mac, config.tunnel_port, mtus.tunnel_device))
    except NetlinkError as error:
        raise _port_taken(netlink, config, error) from error
    link = netlink.find_link(TUNNEL_DEVICE)
    if link is None:
        raise DatapathError(f"{TUNNEL_DEVICE} vanished as soon as it was made")
    try:
        guard(link)
        _bring_up(netlink, config, requests.set_link(link.index, up=True))
    except DatapathError:
        netlink.execute(requests.delete_link(link.index, TUNNEL_DEVICE))
        raise
    return replace(link, up=True)


def _bring_up(netlink: Netlink, config: DatapathConfig, request: Request) -> None:
    """Carry out the request that opens the device's UDP socket."""
    try:
        netlink.execute(request)
    except NetlinkError as error:
        raise _port_taken(netlink, config, error) from error


def _port_taken(netlink: Netlink, config: DatapathConfig, error: NetlinkError) -> DatapathError:
    """Name the owner of the tunnel's port if that is what the error means; else return the error."""
    if error.errno not in (errno.EADDRINUSE, errno.EEXIST):
        return error
    port = config.tunnel_port
    owner = find_port_owner(netlink, port) or "somebody else"
    return DatapathError(
        f"UDP port {port}, which the tunnel device {TUNNEL_DEVICE} needs for itself, is taken by {owner}; "
        f"give Fast another port (the same on every node) or remove the other one"
    )


def find_port_owner(netlink: Netlink, port: int) -> str:
    """Say who else has a UDP port of this network namespace; empty if nobody or Fast's own device has it."""
    devices = [link for link in netlink.links("vxlan") if link.vxlan_port == port]
    other = next((link.name for link in devices if link.name != TUNNEL_DEVICE), None)
    if other:
        return f"VXLAN device {other}"
    # a device that is down has no socket
    return "a socket of some process" if not any(link.up for link in devices) and _is_bound(port) else ""


def _is_bound(port: int) -> bool:
    """Whether a socket of this network namespace is bound to the UDP port."""
    suffix = f":{port:04X}"
    for table in ("udp", "udp6"):
        lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
        if any(line.split()[1].endswith(suffix) for line in lines):
            return True
    return False
