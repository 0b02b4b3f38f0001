"""One pod's interface: the veth, the configuration of both ends, the map entry; created completely or not at all.

No packet passes before it can be checked: programs are attached while the pod's end is down, and the map entry, by
which others reach the pod, comes last. All state is in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterable, Iterator, Set
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import structlog

from fast.datapath import sysctl
from fast.datapath.netlink import Link, Netlink, Request, records, requests
from fast.datapath.netns import Netns, run_in
from fast.datapath.pod.device_programs import Attachments, DeviceKind
from fast.datapath.pod.identity import (
    GATEWAY4,
    GATEWAY6,
    Endpoint,
    EndpointSpec,
    describe,
    endpoint_of,
    format_alias,
    gateway_of,
    host_device_name,
    macs_of,
    parse_alias,
)
from fast.datapath.pod.local_pods import LocalEntries
from fast.datapath.pod.retirement import FINISHED_GROUP, GONE_GROUP, UNFINISHED_GROUP, Retirement
from fast.errors import DatapathError, NetlinkError, NetnsOfNode
from fast.net import IPAddress, IPNetwork, Mac

log = structlog.get_logger()

_DEFAULT4, _DEFAULT6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
_LOOPBACK_INDEX = 1  # of lo, in every network namespace


def _host_network(address: IPAddress) -> IPNetwork:
    return ip_network(address)


class Endpoints:
    """The endpoints of this node. Every method blocks on the kernel; all are thread-safe.

    Args:
        entries: Their entries in the maps.
        programs: Attaches and looks after the programs of the veths.
        node_ip: Preferred source of what the node itself sends to pods.
        node_ip6: The same for IPv6; None: whatever the kernel chooses.
    """

    def __init__(
        self,
        entries: LocalEntries,
        programs: Attachments,
        node_ip: IPv4Address,
        node_ip6: IPv6Address | None,
    ) -> None:
        self._entries = entries
        self._programs = programs
        self._node_ip = node_ip
        self._node_ip6 = node_ip6
        self._busy: set[str] = set()
        self._free = threading.Condition()
        self._retirement = Retirement(lambda ifindex: programs.remove(ifindex, DeviceKind.POD))

    @contextlib.contextmanager
    def _exclusively(self, name: str) -> Iterator[None]:
        """Allow one call at a time on the device of that name: a DEL may come while its ADD still runs."""
        with self._free:
            self._free.wait_for(lambda: name not in self._busy)
            self._busy.add(name)
        try:
            yield
        finally:
            with self._free:
                self._busy.remove(name)
                self._free.notify_all()

    def attach(self, spec: EndpointSpec, mtu: int) -> Endpoint:
        """Create the endpoint, or find it complete; a failure leaves nothing behind.

        An endpoint of that identity which differs from ``spec`` is replaced.

        Args:
            spec: What is wanted.
            mtu: For both ends; the spec's own is not looked at.

        Raises:
            NetnsGone: The pod's namespace does not exist.
            NetnsOfNode: The path leads to the calling thread's own namespace.
            DatapathError: The kernel refused a step, or the interface's name is taken inside the pod.
        """
        with (
            self._exclusively(host_device_name(spec.container_id, spec.ifname)),
            Netns.open(spec.netns_path) as netns,
            Netlink() as host,
            Netlink(netns.fd) as pod,
        ):
            if netns.is_own():  # a sandbox that ended: its PID was given to a process of the node
                raise NetnsOfNode("CNI_NETNS leads to the node's own network namespace, not to a pod's")
            link, made = self._make_veth(host, pod, netns, spec, mtu)
            if not made:
                return describe(spec.alias, link, mtu)
            try:
                self._configure(host, pod, netns, spec, link)
            except BaseException:
                with contextlib.suppress(DatapathError):
                    self._remove(host, link)
                raise
        return describe(spec.alias, link, mtu)

    def _make_veth(
        self, host: Netlink, pod: Netlink, netns: Netns, spec: EndpointSpec, mtu: int
    ) -> tuple[Link, bool]:
        """Give the pair's host end, and whether it was made: not where the endpoint exists as it should be."""
        try:
            return self._add_veth(host, netns, spec, mtu), True
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            # One that was detached a moment ago may hold the name yet, at either end.
            self._retirement.sweep(host)
            existing = host.find_link(host_device_name(spec.container_id, spec.ifname))
            if existing is None and pod.find_link(spec.ifname) is None:
                return self._add_veth(host, netns, spec, mtu), True
            if existing is None:
                raise DatapathError(
                    f"the pod's namespace {spec.netns_path} has an interface {spec.ifname} already, not made by Fast"
                ) from error
        if not self._differences(host, pod, existing, spec):
            return existing, False
        self._remove(host, existing)
        return self._add_veth(host, netns, spec, mtu), True

    def _add_veth(self, host: Netlink, netns: Netns, spec: EndpointSpec, mtu: int) -> Link:
        """Create the pair and read its index in one round trip."""
        name = host_device_name(spec.container_id, spec.ifname)
        host_mac, pod_mac = macs_of(spec.container_id, spec.ifname)
        answers = host.execute(
            requests.add_veth(name, host_mac, spec.ifname, pod_mac, netns.fd, mtu, UNFINISHED_GROUP),
            requests.get_link(name).tolerating(errno.ENODEV),  # where the first failed, that is what counts
        )
        return records.parse_link(answers[0])

    def _configure(self, host: Netlink, pod: Netlink, netns: Netns, spec: EndpointSpec, link: Link) -> None:
        """Configure the pair once it exists."""
        self._programs.ensure(link.index, DeviceKind.of_pod(via_stack=spec.via_stack))
        host_mac, pod_mac = macs_of(spec.container_id, spec.ifname)
        if any(address.version == 6 for address in spec.addresses):  # noqa: PLR2004 -- IP version
            run_in(netns.fd, lambda: _enable_ipv6(spec.ifname))
        taken = _foreign_defaults(pod, link.peer_index)
        pod.execute(*_pod_requests(spec, link.peer_index, host_mac, taken))
        host.execute(
            *self._host_requests(spec.addresses, link.index, pod_mac),
            requests.set_link(link.index, alias=format_alias(spec.alias), group=FINISHED_GROUP),
        )
        self._entries.put(describe(spec.alias, link, link.mtu))

    def _host_requests(self, addresses: Iterable[IPAddress], index: int, pod_mac: Mac) -> Iterable[Request]:
        for address in addresses:
            source = self._node_ip if isinstance(address, IPv4Address) else self._node_ip6
            yield requests.replace_neighbour(index, address, pod_mac)
            yield requests.replace_route(_host_network(address), index, source=source)

    def detach(self, container_id: str, ifname: str) -> bool:
        """Remove the endpoint, also if the pod's namespace and the veth are gone already.

        Afterwards nothing reaches the pod. The device is down and is deleted a little later.

        Returns:
            Whether anything was there to remove.

        Raises:
            DatapathError: The kernel refused.
        """
        name = host_device_name(container_id, ifname)
        with self._exclusively(name), Netlink() as host:
            link = host.find_link(name)
            if link is None:
                # The veth went with the namespace; which entries were its is to be seen by what has no device now.
                return bool(self.reap(host))
            found = parse_alias(link.alias)
            if link.group == GONE_GROUP or (found is not None and found[:2] != (container_id, ifname)):
                return False
            self._entries.forget(self._addresses_of(link), link.index)
            self._retirement.retire(host, link)
        return True

    def _addresses_of(self, link: Link) -> Iterable[IPAddress]:
        if (parsed := parse_alias(link.alias)) is not None:
            return parsed.addresses
        return self._entries.of_device(link.index)

    def _remove(self, host: Netlink, link: Link) -> None:
        """Delete it and wait until it is gone. Entries go first, so that nothing is redirected into a dying device."""
        self._entries.forget(self._addresses_of(link), link.index)
        host.execute(requests.delete_link(link.index, link.name))
        self._programs.remove(link.index, DeviceKind.POD)

    def reap(self, host: Netlink) -> list[IPAddress]:
        """Delete what is left of endpoints whose device is gone; return their addresses.

        Entries are listed before devices: an endpoint being attached has its device before its entry.
        """
        entries = self._entries.all()
        devices = host.links("veth")
        alive = {link.index for link in devices if link.group != GONE_GROUP}
        if len(alive) < len(devices):
            self._retirement.sweep(host)
        gone = []
        for address, pod in entries:
            if pod.ifindex not in alive:
                gone += self._entries.forget([address], pod.ifindex)
        self._programs.reap()
        return gone

    @staticmethod
    def drop_unfinished(host: Netlink) -> None:
        """Delete what a process that died left half-created. Call it at a process's start, before any ADD."""
        host.execute(requests.delete_group(UNFINISHED_GROUP))

    def check(self, spec: EndpointSpec) -> None:
        """Check that the endpoint is complete.

        Raises:
            NetnsGone: The pod's namespace does not exist.
            DatapathError: The message lists everything that is missing or differs.
        """
        name = host_device_name(spec.container_id, spec.ifname)
        with Netns.open(spec.netns_path) as netns, Netlink() as host, Netlink(netns.fd) as pod:
            link = host.find_link(name)
            if link is None:
                raise DatapathError(
                    f"the host's device {name} of {spec.container_id}/{spec.ifname} does not exist"
                )
            differences = self._differences(host, pod, link, spec)
        if differences:
            raise DatapathError(f"endpoint {spec.container_id}/{spec.ifname}: {'; '.join(differences)}")

    def _differences(self, host: Netlink, pod: Netlink, link: Link, spec: EndpointSpec) -> list[str]:
        """List how the endpoint behind ``link`` differs from ``spec``; empty if it does not."""
        found = self._host_differences(host, link, spec)
        inside = pod.find_link(spec.ifname)
        if inside is None or inside.index != link.peer_index:
            return [*found, f"the pod has no interface {spec.ifname} on the other end of {link.name}"]
        if not inside.up:
            found.append(f"{spec.ifname} in the pod is down")
        have = {address.address for address in pod.addresses(inside.index)}
        routes = {(route.destination, route.gateway) for route in pod.routes(inside.index)}
        taken = _foreign_defaults(pod, inside.index)
        neighbours = {(neighbour.address, neighbour.mac) for neighbour in pod.neighbours(inside.index)}
        for address in spec.addresses:
            if address not in have:
                found.append(f"{spec.ifname} in the pod lacks the address {address}")
            default = _DEFAULT4 if isinstance(address, IPv4Address) else _DEFAULT6
            if default not in taken and (default, gateway_of(address)) not in routes:
                found.append(f"the pod has no default route via {gateway_of(address)}")
            if (gateway_of(address), link.mac) not in neighbours:
                found.append(
                    f"the pod has no neighbour entry for {gateway_of(address)}, where nobody answers"
                )
        return found

    def _host_differences(self, host: Netlink, link: Link, spec: EndpointSpec) -> list[str]:
        found = [] if link.up else [f"{link.name} is down"]
        if link.alias != format_alias(spec.alias):
            found.append(f"{link.name} is of {link.alias or 'nobody'}")
        routed = {route.destination for route in host.routes(link.index)}
        for address in spec.addresses:
            if _host_network(address) not in routed:
                found.append(f"the host has no route to {address} through {link.name}")
            if not self._entries.has(address, link.index):
                found.append(f"the map of local pods has no entry for {address} on {link.name}")
        return found + self._programs.missing(link.index, DeviceKind.POD)

    def find_all(self, host: Netlink) -> list[Endpoint]:
        """List the endpoints, by what their devices say of themselves."""
        return [endpoint for link in host.links("veth") if (endpoint := endpoint_of(link)) is not None]

    def repair(self, host: Netlink) -> list[Endpoint]:
        """Repair entries, routes and programs of endpoints whose device exists; return those that were repaired.

        Endpoints come and go meanwhile: what seems wrong is checked again while nobody else works on it.
        """
        routed = {(route.destination, route.index) for route in host.routes()}
        suspects = [link.name for link in host.links("veth") if self._is_wrong(host, link, routed)]
        return [endpoint for name in suspects if (endpoint := self._repair(host, name)) is not None]

    def _is_wrong(self, host: Netlink, link: Link, routed: Set[tuple[IPNetwork, int]]) -> bool:
        """Return whether the device belongs to an endpoint whose host side is incomplete."""
        endpoint = endpoint_of(link)
        if endpoint is None:
            return False
        own = self._entries.own(host, endpoint)
        return (
            not link.up
            or link.mac != endpoint.host_mac
            or any((_host_network(address), link.index) not in routed for address in own)
            or bool(self._entries.wrong(endpoint, own))
            or not self._entries.has_interface(link.index)
            or bool(self._programs.missing(link.index, DeviceKind.of_pod(via_stack=endpoint.via_stack)))
        )

    def _repair(self, host: Netlink, name: str) -> Endpoint | None:
        with self._exclusively(name):
            link = host.find_link(name)
            if link is None or (endpoint := endpoint_of(link)) is None:
                return None
            routed = {(route.destination, route.index) for route in host.routes(link.index)}
            if not self._is_wrong(host, link, routed):
                return None
            try:
                self._restore(host, endpoint)
            except DatapathError:
                if host.find_link(name) is not None:
                    raise
                return None  # its pod's namespace ended meanwhile
        return endpoint

    def _restore(self, host: Netlink, endpoint: Endpoint) -> None:
        self._programs.ensure(endpoint.ifindex, DeviceKind.of_pod(via_stack=endpoint.via_stack))
        host.execute(
            requests.set_link(endpoint.ifindex, mac=endpoint.host_mac, up=True),
            *self._host_requests(endpoint.addresses, endpoint.ifindex, endpoint.pod_mac),
        )
        self._entries.restore(host, endpoint)


def _foreign_defaults(pod: Netlink, index: int) -> Set[IPNetwork]:
    """Return the default routes that the pod has through other interfaces: those of a network attached earlier."""
    defaults = (_DEFAULT4, _DEFAULT6)
    return {
        route.destination for route in pod.routes() if route.destination in defaults and route.index != index
    }


def _pod_requests(spec: EndpointSpec, index: int, host_mac: Mac, taken: Set[IPNetwork]) -> Iterable[Request]:
    """Configure the pod's end, in the order that the kernel needs; default routes in ``taken`` stay as they are."""
    yield requests.set_link(_LOOPBACK_INDEX, up=True)
    yield requests.set_link(index, up=True)
    for address in spec.addresses:
        yield requests.add_address(index, address)
    for gateway, default in ((GATEWAY4, _DEFAULT4), (GATEWAY6, _DEFAULT6)):
        if all(gateway_of(address) != gateway for address in spec.addresses):
            continue
        yield requests.replace_neighbour(index, gateway, host_mac)
        if gateway.version == 4:  # noqa: PLR2004 -- IP version; IPv6 takes any link-local next hop
            yield requests.replace_route(_host_network(gateway), index)
        if default not in taken:
            yield requests.replace_route(default, index, gateway=gateway)


def _enable_ipv6(ifname: str) -> None:
    """Switch IPv6 on: runtimes create sandboxes without it."""
    for device in ("lo", ifname):
        path = f"ipv6/conf/{device}/disable_ipv6"
        if sysctl.read(path) != "0":
            sysctl.write(path, "0")
