"""``fast_after_nat``: loading it, its links at the stack's hooks, and running it on a packet.

A link outlives the agent by its pin. A netfilter link's program cannot be exchanged, and two links cannot have the same
priority: a new version is attached at the other of two priorities, then the old link is detached. Both give the same
verdict meanwhile.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from fast.datapath.bpf.layout import Config
from fast.datapath.bpf.libbpf import Descriptor, check, ffi, lib
from fast.datapath.bpf.maps import map_info
from fast.datapath.bpf.objects import Object, Program, load
from fast.datapath.bpf.pins import PinDirectory, find_pin, open_pin, pin
from fast.datapath.bpf.spec import AFTER_NAT, POLICY
from fast.errors import BPFError, FeatureUnsupported, LayoutMismatch

_IPV4, _IPV6 = 2, 10  # NFPROTO_IPV4, NFPROTO_IPV6
_FORWARD = 2  # NF_INET_FORWARD: no packet of this node's own passes there
_DEFRAGMENT = 1  # BPF_F_NETFILTER_IP_DEFRAG, Linux 6.6: the program sees whole packets without conntrack, too


class Hook(IntEnum):
    """Where the program runs; the values are ``enum nf_inet_hooks``."""

    LOCAL_IN = 1
    POSTROUTING = 4


#: The two priorities at each hook: in POSTROUTING before SNAT (100), in LOCAL_IN after it.
_PRIORITIES = {Hook.POSTROUTING: (98, 99), Hook.LOCAL_IN: (101, 102)}


@dataclass(frozen=True, slots=True)
class _Place:
    family: int
    hook: Hook

    def pin(self, directory: Path, priority: int) -> Path:
        version = 4 if self.family == _IPV4 else 6
        return directory / f"ipv{version}-{self.hook.name.lower()}-{priority}"


_PLACES = tuple(_Place(family, hook) for family in (_IPV4, _IPV6) for hook in Hook)


def load_policy(pins: PinDirectory, config: Config) -> Object:
    """Load the program over the maps that are pinned, as they are. Nothing is attached.

    Raises:
        FeatureUnsupported: The kernel has no netfilter programs.
        LayoutMismatch: The pinned maps are of another version: install DATAPATH first.
        BPFError, VerifierError: The kernel refused.
    """
    sizes = {}
    for spec in POLICY.maps:
        with Descriptor(open_pin(pins.maps / spec.name)) as descriptor:
            sizes[spec.name] = map_info(descriptor.fd).max_entries
    try:
        loaded = load(POLICY.configured(config).sized(**sizes), pins)
    except BPFError as error:
        if error.errno in (errno.EINVAL, errno.ESRCH, errno.ENOENT):
            raise FeatureUnsupported("netfilter programs (NetworkPolicy)", "6.4", str(error)) from error
        raise
    if loaded.staged:
        loaded.close()
        for name in loaded.staged:
            (pins.staged / name).unlink(missing_ok=True)
        raise LayoutMismatch(f"pinned maps of another version: {', '.join(sorted(loaded.staged))}")
    return loaded


class PolicyLinks:
    """The links of ``fast_after_nat`` in the calling thread's network namespace. One caller at a time."""

    def __init__(self, pins: PinDirectory) -> None:
        self._pins = pins

    def missing(self, program: Program) -> list[str]:
        """Name the hooks at which this very program is not attached."""
        return [
            place.pin(self._pins.netfilter, 0).name.rsplit("-", 1)[0]
            for place in _PLACES
            if not any(
                self._program_at(place, priority) == program.id for priority in _PRIORITIES[place.hook]
            )
        ]

    def attach(self, program: Program) -> None:
        """Make the program run at every hook, and no other version of it. Idempotent; no packet meets a gap.

        Raises:
            BPFError: The kernel refused, as if somebody else has a netfilter program at both priorities.
        """
        self._pins.netfilter.mkdir(exist_ok=True)
        for place in _PLACES:
            self._attach(place, program)

    def detach(self) -> None:
        """Remove every link. Idempotent."""
        for place in _PLACES:
            for priority in _PRIORITIES[place.hook]:
                self._detach(place, priority)

    def _attach(self, place: _Place, program: Program) -> None:
        priorities = _PRIORITIES[place.hook]
        running = {priority: self._program_at(place, priority) for priority in priorities}
        current = next((priority for priority in priorities if running[priority] == program.id), None)
        if current is None:
            current = next((priority for priority in priorities if not running[priority]), priorities[0])
            if running[current]:  # both are taken by earlier versions: an agent died between the two steps
                self._detach(place, current)
            with Descriptor(_create(place, current, program)) as link:
                pin(link.fd, place.pin(self._pins.netfilter, current))
        for priority in priorities:
            if priority != current:
                self._detach(place, priority)

    def _program_at(self, place: _Place, priority: int) -> int:
        """Return the id of the program that our link of that place runs; 0 if there is no link."""
        fd = find_pin(place.pin(self._pins.netfilter, priority))
        if fd is None:
            return 0
        with Descriptor(fd):
            info = ffi.new("struct fast_link_info *")
            check(lib.fast_link_info(fd, info), f"reading the link at {place.hook.name}")
            return int(info.program_id)

    def _detach(self, place: _Place, priority: int) -> None:
        path = place.pin(self._pins.netfilter, priority)
        fd = find_pin(path)
        if fd is None:
            return
        with Descriptor(fd):
            lib.bpf_link_detach(fd)
        path.unlink(missing_ok=True)


def _create(place: _Place, priority: int, program: Program) -> int:
    """Create a link; return its descriptor."""
    result = lib.fast_netfilter_link(program.fd, place.family, place.hook, priority, _DEFRAGMENT)
    if result < 0 and result != -errno.EBUSY:  # no such flag, or no module that puts fragments together
        result = lib.fast_netfilter_link(program.fd, place.family, place.hook, priority, 0)
    return check(result, f"attaching {AFTER_NAT} at {place.hook.name}, priority {priority}")


def run(program: Program, packet: bytes, *, from_own_node: bool = False) -> bool:
    """Run the program on a packet without a device (``BPF_PROG_RUN``); for tests and explanations.

    Args:
        program: ``fast_after_nat``.
        packet: From the Ethernet header on.
        from_own_node: Whether no device brought it.

    Returns:
        Whether the packet passes.

    Raises:
        BPFError: The kernel refused to run it.
    """
    verdict = ffi.new("uint32_t *")
    family = _IPV6 if packet[12:14] == b"\x86\xdd" else _IPV4
    hook = Hook.POSTROUTING if from_own_node else _FORWARD
    result = lib.fast_netfilter_run(program.fd, packet, len(packet), family, hook, verdict)
    check(result, f"running {AFTER_NAT}")
    return bool(verdict[0] == 1)
