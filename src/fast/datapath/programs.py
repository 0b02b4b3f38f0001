"""Which eBPF programs run on which kind of device, and whether they do. How they are attached is bpf.links' matter."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from fast.datapath.bpf.links import Attached, Links
from fast.datapath.bpf.objects import Program
from fast.datapath.bpf.spec import DATAPATH, FROM_OVERLAY, FROM_POD, FROM_UNDERLAY, TO_OVERLAY, TO_POD


class DeviceKind(Enum):
    """A kind of device, with the programs that run on it."""

    POD = (FROM_POD, TO_POD)
    TUNNEL = (FROM_OVERLAY, TO_OVERLAY)
    NATIVE_UNDERLAY = (FROM_UNDERLAY,)


class Attachments:
    """The attachments of one node. Calls for different devices may run in parallel."""

    def __init__(self, links: Links, programs: Mapping[str, Program]) -> None:
        """Attach nothing yet; ``programs`` are those of the loaded object, by name."""
        self._links = links
        self._programs = programs

    def ensure(self, ifindex: int, kind: DeviceKind) -> None:
        """Make the programs run on the device. Idempotent.

        Raises:
            BPFError: The device is gone, or the kernel refused.
        """
        for name in kind.value:
            self._links.attach(ifindex, self._programs[name])

    def missing(self, ifindex: int, kind: DeviceKind) -> list[str]:
        """Say which programs do not run there; empty where all do."""
        return [
            f"program {name} does not run on device {ifindex}"
            for name in kind.value
            if (found := self._links.find(ifindex, DATAPATH.program(name).direction, name)) is None
            or not found.alive
        ]

    def remove(self, ifindex: int, kind: DeviceKind) -> None:
        """Take the programs off the device, or their pins away where the device is gone. Idempotent."""
        for name in kind.value:
            self._links.detach(ifindex, DATAPATH.program(name).direction, name)

    def reap(self) -> list[Attached]:
        """Remove the pins of attachments whose device is gone, and give what they were."""
        return self._links.collect_dead()
