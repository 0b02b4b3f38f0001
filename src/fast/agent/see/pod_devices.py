"""Which addresses belong to the pod behind a device of this node, also for a while after the pod is gone."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from fast.datapath.bpf.layout import LocalPod
from fast.net import IPAddress

#: Devices that are remembered at most; the kernel gives no index twice until it has given all.
MOST_DEVICES = 8192
_REFRESH_SECONDS = 1.0

Entries = Iterable[tuple[IPAddress, LocalPod]]


class PodDevices:
    """Answers by the map of local pods, which is read again at most once a second.

    Args:
        read: Gives the entries of ``fast_local_pods``; none if the datapath is not up.
        clock: Seconds that never jump back.
    """

    def __init__(self, read: Callable[[], Entries], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._read_at = float("-inf")
        self._addresses: OrderedDict[int, list[IPAddress]] = OrderedDict()

    def addresses(self, ifindex: int) -> Sequence[IPAddress]:
        """Return the addresses of the pod whose veth has this index; none for other devices."""
        if ifindex not in self._addresses:
            self.refresh()
        return self._addresses.get(ifindex, ())

    def refresh(self) -> None:
        """Read the map, unless that was done just now."""
        now = self._clock()
        if now - self._read_at < _REFRESH_SECONDS:
            return
        self._read_at = now
        found: dict[int, list[IPAddress]] = {}
        for address, pod in self._read():
            found.setdefault(pod.ifindex, []).append(address)
        for ifindex, addresses in found.items():
            self._addresses[ifindex] = addresses
            self._addresses.move_to_end(ifindex)
        while len(self._addresses) > MOST_DEVICES:
            self._addresses.popitem(last=False)
