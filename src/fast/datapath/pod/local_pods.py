"""The map of local pods as endpoints use it: an endpoint changes only entries that still lead to its device.

A new sandbox may get an address before the endpoint that had it is removed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from fast.datapath.bpf.layout import Interface, LocalPod, LocalPodFlag
from fast.datapath.bpf.maps import Interfaces, LocalPods
from fast.datapath.netlink import Netlink
from fast.datapath.pod.identity import Endpoint, endpoint_of
from fast.net import IPAddress


class LocalEntries:
    """The entries of ``fast_local_pods``, and of ``fast_interfaces`` for their devices. Thread-safe."""

    def __init__(self, pods: LocalPods, interfaces: Interfaces) -> None:
        self._pods = pods
        self._interfaces = interfaces
        # The kernel cannot write or delete an entry on the condition that it leads to a certain device.
        self._lock = threading.Lock()

    def all(self) -> list[tuple[IPAddress, LocalPod]]:
        """Give every entry."""
        return list(self._pods.items())

    def has(self, address: IPAddress, ifindex: int) -> bool:
        """Tell whether the address leads to that device."""
        entry = self._pods.get(address)
        return entry is not None and entry.ifindex == ifindex

    def of_device(self, ifindex: int) -> list[IPAddress]:
        """Give the addresses that lead to that device."""
        return [address for address, entry in self.all() if entry.ifindex == ifindex]

    def own(self, host: Netlink, endpoint: Endpoint) -> dict[IPAddress, LocalPod | None]:
        """Return the endpoint's addresses that no other endpoint has taken over, each with its entry."""
        found = {}
        for address in endpoint.addresses:
            entry = self._pods.get(address)
            if entry is not None and entry.ifindex != endpoint.ifindex:
                link = host.find_link_at(entry.ifindex)
                holder = None if link is None else endpoint_of(link)
                if holder is not None and address in holder.addresses:
                    continue
            found[address] = entry
        return found

    def has_interface(self, ifindex: int) -> bool:
        """Return whether the programs know the device as a pod's interface."""
        return self._interfaces.get(ifindex) is not None

    @staticmethod
    def wrong(endpoint: Endpoint, own: Mapping[IPAddress, LocalPod | None]) -> dict[IPAddress, LocalPod]:
        """Return the entries to write for the endpoint in place of its :meth:`own`; what others added stays."""
        entries = {address: _entry_of(endpoint, address, found) for address, found in own.items()}
        return {address: entry for address, entry in entries.items() if entry != own[address]}

    def put(self, endpoint: Endpoint) -> None:
        """Make the endpoint's addresses lead to it, whatever they led to.

        Raises:
            MapFull: The node has as many pods as the map holds.
        """
        with self._lock:
            self._interfaces.add(endpoint.ifindex, Interface(endpoint.pod_mac))
            for address in endpoint.addresses:
                self._pods.put(address, _entry_of(endpoint, address))

    def restore(self, host: Netlink, endpoint: Endpoint) -> None:
        """Write what is :meth:`wrong`.

        Raises:
            MapFull: As :meth:`put`.
        """
        with self._lock:
            self._interfaces.add(endpoint.ifindex, Interface(endpoint.pod_mac))
            for address, entry in self.wrong(endpoint, self.own(host, endpoint)).items():
                self._pods.put(address, entry)

    def forget(self, addresses: Iterable[IPAddress], ifindex: int) -> list[IPAddress]:
        """Delete the entries that still lead to this device, and its interface; return the addresses."""
        with self._lock:
            self._interfaces.delete(ifindex)
            return [
                address for address in addresses if self.has(address, ifindex) and self._pods.delete(address)
            ]


def _entry_of(endpoint: Endpoint, address: IPAddress, found: LocalPod | None = None) -> LocalPod:
    """Return the entry of one of the endpoint's addresses, with what others wrote into the one that was found."""
    entry = LocalPod(
        endpoint.ifindex,
        endpoint.pod_mac,
        endpoint.host_mac,
        flags=(LocalPodFlag.VIA_STACK if endpoint.via_stack else LocalPodFlag.NONE)
        | (LocalPodFlag.METADATA_ALLOWED if endpoint.metadata_allowed else LocalPodFlag.NONE),
        address_tail=int.from_bytes(address.packed[-4:]),
    )
    if found is None or found.ifindex != entry.ifindex:
        return entry
    return replace(
        found,
        pod_mac=entry.pod_mac,
        host_mac=entry.host_mac,
        flags=found.flags | entry.flags,
        address_tail=entry.address_tail,
    )
