"""Attachments: a program on a device's ingress or egress, pinned, adopted by the next agent, replaced atomically.

By a tcx link, or by a clsact filter and a pin of the program that records it: for kernels without tcx links, and where
making one costs too much (ADR 7). The pin shows which of the two an attachment is, so either can be turned
into the other: the new one is created before the old one is removed. Both at once is harmless: a program's verdict does
not depend on how often it saw a packet.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fast.datapath.bpf.features import TCX
from fast.datapath.bpf.libbpf import Descriptor, check, ffi, lib, quiet
from fast.datapath.bpf.objects import Program
from fast.datapath.bpf.pins import PinDirectory, find_pin, kind_of, pin
from fast.datapath.bpf.spec import Direction
from fast.errors import BPFError

#: Fast's clsact filters are told from others by these; the priority leaves room before and after.
FILTER_HANDLE = 0xFA57
FILTER_PRIORITY = 50


class AttachMode(Enum):
    """How programs are attached."""

    TCX = "tcx"
    CLSACT = "clsact"

    @classmethod
    def best(cls) -> AttachMode:
        """Give tcx where the kernel has it, clsact otherwise."""
        return cls.TCX if TCX.probe() else cls.CLSACT


@dataclass(frozen=True, slots=True)
class Attached:
    """One attachment. ``program_id`` is the kernel's id of what runs there; 0 if nothing runs any longer.

    ``alive`` is False once the device is gone, or somebody removed the filter.
    """

    ifindex: int
    direction: Direction
    program: str
    mode: AttachMode
    program_id: int

    @property
    def alive(self) -> bool:
        """Whether the program still sees packets."""
        return self.program_id != 0


class Links:
    """The attachments of one node. Calls for different devices may run in parallel; for one device they must not."""

    def __init__(self, pins: PinDirectory, mode: AttachMode | None = None) -> None:
        """Make no change yet.

        Args:
            pins: Where attachments are pinned.
            mode: How to attach, whatever is asked for later; None: as asked for, and what is there stays as it is.

        Raises:
            FeatureUnsupported: tcx is asked for and the kernel lacks it.
        """
        self._pins = pins
        if mode is AttachMode.TCX:
            TCX.require()
        self._forced = mode

    def attach(self, ifindex: int, program: Program, mode: AttachMode | None = None) -> Attached:
        """Make the program run on the device, in the direction it is made for. Idempotent.

        An attachment that is there is adopted: left alone if it runs this very program, else given it atomically, so
        that no packet meets a gap. A tcx program is put behind those that are there.

        Args:
            ifindex: Of a device in the calling thread's network namespace.
            program: What to run.
            mode: How to attach; None: the best that the kernel has.

        Raises:
            BPFError: No such device (errno ENODEV), or the kernel refused.
        """
        mode = self._forced or mode or AttachMode.best()
        path = self._path(ifindex, program.direction, program.name)
        old = self._read(path)
        if old is not None and old.alive and old.mode is mode and old.program_id == program.id:
            return old
        if mode is AttachMode.TCX:
            self._attach_tcx(path, ifindex, program, old)
        else:
            self._attach_clsact(path, ifindex, program, old)
        return Attached(ifindex, program.direction, program.name, mode, program.id)

    def detach(self, ifindex: int, direction: Direction, program: str) -> bool:
        """Remove the attachment; tell whether there was one. Also for a device that is gone. Idempotent."""
        path = self._path(ifindex, direction, program)
        old = self._read(path)
        if old is None:
            return False
        if old.mode is AttachMode.CLSACT:
            self._delete_filter(ifindex, direction)
        elif old.alive:
            self._detach_link(path)
        path.unlink(missing_ok=True)
        return True

    def find(self, ifindex: int, direction: Direction, program: str) -> Attached | None:
        """Give the attachment, dead or alive; None where there is none."""
        return self._read(self._path(ifindex, direction, program))

    def all(self) -> list[Attached]:
        """Give every attachment, dead or alive, by device."""
        if not self._pins.links.is_dir():
            return []
        found = (self._read(path) for path in self._pins.links.iterdir())
        return sorted(
            (item for item in found if item is not None), key=lambda item: (item.ifindex, item.direction)
        )

    def collect_dead(self) -> list[Attached]:
        """Remove the pins whose device is gone (the kernel keeps such links), and give what they were."""
        dead = [item for item in self.all() if not item.alive]
        for item in dead:
            self._path(item.ifindex, item.direction, item.program).unlink(missing_ok=True)
        return dead

    def replace(self, programs: Mapping[str, Program], direction: Direction) -> list[Attached]:
        """Give every living attachment of that direction its program's new version, and the mode of these Links.

        Args:
            programs: New versions by name; attachments of other programs are left alone.
            direction: Which ones.

        Returns:
            The attachments as they are now.
        """
        replaced = []
        for item in self.all():
            if item.direction is direction and item.alive and item.program in programs:
                try:
                    replaced.append(self.attach(item.ifindex, programs[item.program], item.mode))
                except BPFError as error:
                    if error.errno not in (errno.ENODEV, errno.ENOLINK):  # the device went this moment
                        raise
        return replaced

    def _path(self, ifindex: int, direction: Direction, program: str) -> Path:
        """Give the pin of an attachment."""
        return self._pins.links / f"{ifindex}-{direction}-{program}"

    def _read(self, path: Path) -> Attached | None:
        """Read what a pin stands for."""
        name = path.name.split("-", 2)
        fd = find_pin(path)
        if fd is None:
            return None
        ifindex, direction = int(name[0]), Direction[name[1].upper()]
        with Descriptor(fd):
            if kind_of(fd) == "link":
                info = ffi.new("struct fast_link_info *")
                check(lib.fast_link_info(fd, info), f"reading {path}")
                program_id = info.program_id if info.ifindex == ifindex else 0
                return Attached(ifindex, direction, name[2], AttachMode.TCX, program_id)
        return Attached(
            ifindex, direction, name[2], AttachMode.CLSACT, self._filter_program(ifindex, direction)
        )

    def _attach_tcx(self, path: Path, ifindex: int, program: Program, old: Attached | None) -> None:
        """Update the pinned link, or create one; then delete an earlier filter."""
        if old is not None and old.mode is AttachMode.TCX and old.alive and self._update_link(path, program):
            return
        doing = f"attaching {program.name} to device {ifindex}"
        result = lib.bpf_link_create(program.fd, ifindex, program.direction, ffi.NULL)
        if result == -errno.EEXIST:
            doing += " (it is attached already by a link that is not pinned)"
        with Descriptor(check(result, doing)) as link:
            pin(link.fd, path)
        if old is not None and old.mode is AttachMode.CLSACT:
            self._delete_filter(ifindex, program.direction)

    def _update_link(self, path: Path, program: Program) -> bool:
        """Exchange the program of the pinned link; False where its device is gone."""
        fd = find_pin(path)
        if fd is None:
            return False
        with Descriptor(fd):
            result = lib.bpf_link_update(fd, program.fd, ffi.NULL)
        if result == -errno.ENOLINK:
            return False
        check(result, f"updating {path}")
        return True

    def _detach_link(self, path: Path) -> None:
        """Detach the pinned link now: the kernel removes one that only lost its last pin some time later."""
        fd = find_pin(path)
        if fd is not None:
            with Descriptor(fd):
                lib.bpf_link_detach(fd)

    def _attach_clsact(self, path: Path, ifindex: int, program: Program, old: Attached | None) -> None:
        """Set the filter; then detach an earlier link and replace its pin by the program's.

        The first clsact qdisc of a device that is up costs the packets of a moment: the kernel stops its transmit
        queues to put it there (net/sched/sch_api.c, qdisc_graft).
        """
        egress = program.direction is Direction.EGRESS
        doing = f"attaching {program.name} to device {ifindex} by clsact"
        with quiet():
            check(lib.fast_clsact_ensure(ifindex), doing)
            check(lib.fast_filter_replace(ifindex, egress, program.fd, FILTER_HANDLE, FILTER_PRIORITY), doing)
        if old is not None and old.mode is AttachMode.TCX and old.alive:
            self._detach_link(path)
        pin(program.fd, path)

    def _delete_filter(self, ifindex: int, direction: Direction) -> None:
        """Remove Fast's filter, if it is there. The clsact qdisc stays: others may use it."""
        with quiet():
            lib.fast_filter_delete(ifindex, direction is Direction.EGRESS, FILTER_HANDLE, FILTER_PRIORITY)

    def _filter_program(self, ifindex: int, direction: Direction) -> int:
        """Give the id of the program that Fast's filter runs; 0 where there is no filter or no device."""
        program_id = ffi.new("uint32_t *")
        egress = direction is Direction.EGRESS
        with quiet():
            result = lib.fast_filter_program(ifindex, egress, FILTER_HANDLE, FILTER_PRIORITY, program_id)
        return 0 if result < 0 else int(program_id[0])
