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
from fast.policy.map_layout import PodFlag, PodPolicy


class LocalEntries:
    """The entries of ``fast_local_pods``, and of ``fast_interfaces`` for their devices. Thread-safe."""

    def __init__(self, pods: LocalPods, interfaces: Interfaces, *, policed: bool = False) -> None:
        """Wrap the maps.

        Args:
            pods: The map.
            interfaces: That of the devices.
            policed: Whether an address whose policy is not known yet gets no packets.
        """
        self._policed = policed
        self._policies: dict[IPAddress, PodPolicy] = {}
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

    def set_policy(self, address: IPAddress, policy: PodPolicy) -> None:
        """Write policy's part of the address's entry, by one update; or keep it for when there is one.

        Raises:
            BPFError: The kernel refused.
        """
        with self._lock:
            self._policies[address] = policy
            entry = self._pods.get(address)
            if entry is not None:
                self._pods.put(address, _with_policy(entry, policy))

    def forget_policy(self, address: IPAddress) -> None:
        """Forget what :meth:`set_policy` was told of the address; its entry stays as it is."""
        with self._lock:
            self._policies.pop(address, None)

    def clear_policies(self) -> None:
        """Take policy's part out of every entry: nobody judges any more."""
        with self._lock:
            self._policies.clear()
            for address, entry in self.all():
                if (cleared := _with_policy(entry, PodPolicy())) != entry:
                    self._pods.put(address, cleared)

    def wrong(
        self, endpoint: Endpoint, own: Mapping[IPAddress, LocalPod | None]
    ) -> dict[IPAddress, LocalPod]:
        """Return the entries to write for the endpoint in place of its :meth:`own`; what others added stays."""
        entries = {address: self._entry(endpoint, address, found) for address, found in own.items()}
        return {address: entry for address, entry in entries.items() if entry != own[address]}

    def put(self, endpoint: Endpoint) -> None:
        """Make the endpoint's addresses lead to it, whatever they led to.

        Raises:
            MapFull: The node has as many pods as the map holds.
        """
        with self._lock:
            self._interfaces.add(endpoint.ifindex, Interface(endpoint.pod_mac))
            for address in endpoint.addresses:
                self._pods.put(address, self._entry(endpoint, address))

    def restore(self, host: Netlink, endpoint: Endpoint) -> None:
        """Write what is :meth:`wrong`.

        Raises:
            MapFull: As :meth:`put`.
        """
        with self._lock:
            self._interfaces.add(endpoint.ifindex, Interface(endpoint.pod_mac))
            for address, entry in self.wrong(endpoint, self.own(host, endpoint)).items():
                self._pods.put(address, entry)

    def _entry(self, endpoint: Endpoint, address: IPAddress, found: LocalPod | None = None) -> LocalPod:
        """Return the entry of one of the endpoint's addresses, with what policy says of it."""
        entry = _entry_of(endpoint, address, found)
        policy = self._policies.get(address)
        if policy is None and self._policed and (found is None or found.ifindex != entry.ifindex):
            policy = PodPolicy(PodFlag.POLICY_PENDING)
        return entry if policy is None else _with_policy(entry, policy)

    def forget(self, addresses: Iterable[IPAddress], ifindex: int) -> list[IPAddress]:
        """Delete the entries that still lead to this device, and its interface; return the addresses."""
        with self._lock:
            self._interfaces.delete(ifindex)
            return [
                address for address in addresses if self.has(address, ifindex) and self._pods.delete(address)
            ]


_POLICY_FLAGS = LocalPodFlag(int(sum(PodFlag)))


def _with_policy(entry: LocalPod, policy: PodPolicy) -> LocalPod:
    return replace(
        entry,
        flags=entry.flags & ~_POLICY_FLAGS | LocalPodFlag(int(policy.flags)),
        peer_class=policy.peer_class,
        ingress_rules=policy.ingress_rules,
        egress_rules=policy.egress_rules,
        audit_ingress_rules=policy.audit_ingress_rules,
        audit_egress_rules=policy.audit_egress_rules,
        epoch=policy.epoch,
        isolated_since_ns=policy.isolated_since_ns,
    )


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
