"""Which eBPF programs run on which kind of device, and whether they do. Attaching them is in bpf.links."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from fast.datapath.bpf.links import Attached, AttachMode, Links
from fast.datapath.bpf.objects import Program
from fast.datapath.bpf.spec import DATAPATH, FROM_OVERLAY, FROM_POD, FROM_UNDERLAY, TO_OVERLAY, TO_POD


class DeviceKind(Enum):
    """A kind of device, with the programs that run on it and how they are attached.

    Pods' devices get clsact filters even if the kernel has tcx links: creating a tcx link waits for RCU while holding
    the lock of all network configuration, as does deleting a device that has one: 31 pods/s against 480. A pod whose
    traffic is shaped gets tcx links: the ``bandwidth`` plugin's ingress qdisc cannot stand beside clsact.
    """

    POD = ((FROM_POD, TO_POD), AttachMode.CLSACT)
    SHAPED_POD = ((FROM_POD, TO_POD), None)
    TUNNEL = ((FROM_OVERLAY, TO_OVERLAY), None)
    NATIVE_UNDERLAY = ((FROM_UNDERLAY,), None)

    def __init__(self, programs: tuple[str, ...], mode: AttachMode | None) -> None:
        """Make the member; ``mode`` None: the best that the kernel has."""
        self.programs = programs
        self.mode = mode

    @classmethod
    def of_pod(cls, *, via_stack: bool) -> DeviceKind:
        """Give a pod's kind."""
        return cls.SHAPED_POD if via_stack else cls.POD


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
        for name in kind.programs:
            self._links.attach(ifindex, self._programs[name], kind.mode)

    def missing(self, ifindex: int, kind: DeviceKind) -> list[str]:
        """List the programs that do not run there."""
        return [
            f"program {name} does not run on device {ifindex}"
            for name in kind.programs
            if (found := self._links.find(ifindex, DATAPATH.program(name).direction, name)) is None
            or found.program_id != self._programs[name].id
        ]

    def remove(self, ifindex: int, kind: DeviceKind) -> None:
        """Detach the programs; remove their pins if the device is gone. Idempotent."""
        for name in kind.programs:
            self._links.detach(ifindex, DATAPATH.program(name).direction, name)

    def reap(self) -> list[Attached]:
        """Remove the pins of attachments whose device is gone, and give what they were."""
        return self._links.collect_dead()
