"""Programs and maps in the kernel: loading an object file, with the pinned maps of the version before where they fit.

Loading changes nothing about what runs: no link is touched and no pin in use is replaced (``install`` does that).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from fast.datapath.bpf import features
from fast.datapath.bpf.btf import Btf
from fast.datapath.bpf.libbpf import Descriptor, check, error_of, ffi, lib, take_log
from fast.datapath.bpf.map_spec import MapSpec, MapType
from fast.datapath.bpf.maps import (
    ClusterPods,
    FlowLimits,
    Flows,
    Interfaces,
    LocalDevices,
    LocalPods,
    MapInfo,
    Metrics,
    map_info,
)
from fast.datapath.bpf.pins import PinDirectory, find_pin, open_pin, pin
from fast.datapath.bpf.spec import DATAPATH, Direction, ObjectSpec
from fast.errors import BPFError, VerifierError

_MAX_PACKET = 65_536 + 512
_RODATA = ".rodata"
_TYPE_NETFILTER = 32


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a packet comes with beside its bytes, for :meth:`Program.run`. Fields as in ``struct __sk_buff``.

    ``ifindex`` is of the calling thread's network namespace; 0 or 1: the loopback device.
    """

    ifindex: int = 0
    ingress_ifindex: int = 0
    mark: int = 0
    priority: int = 0
    gso_size: int = 0
    gso_segs: int = 0


@dataclass(frozen=True, slots=True)
class RunResult:
    """What :meth:`Program.run` gives: the verdict (``TC_ACT_*``), the packet afterwards, the mean time a run took."""

    verdict: int
    packet: bytes
    mark: int
    priority: int
    duration_ns: int


class Program(Descriptor):
    """A loaded program, ready to be attached by ``links``."""

    def __init__(self, fd: int, name: str, direction: Direction) -> None:
        """Own ``fd``."""
        super().__init__(fd)
        self.name = name
        self.direction = direction
        info = ffi.new("struct fast_program_info *")
        check(lib.fast_program_info(fd, info), f"reading the description of program {name}")
        #: The kernel's id of this very program, and the hash of its instructions.
        self.id: int = info.id
        self.tag: str = ffi.string(info.tag).decode()

    @classmethod
    def open(cls, pins: PinDirectory, name: str) -> Self:
        """Open the pinned program of that name; BPFError with ENOENT where there is none."""
        return cls(open_pin(pins.programs / name), name, DATAPATH.program(name).direction)

    def run(self, packet: bytes, context: RunContext | None = None, repeat: int = 1) -> RunResult:
        """Run the program on a packet without a device (``BPF_PROG_RUN``); for tests, measurements and `explain`.

        Args:
            packet: From the Ethernet header on, at least 14 bytes.
            context: What it comes with.
            repeat: How often; counters count every run.

        Raises:
            BPFError: The kernel refused to run it, as for a device that does not exist.
        """
        context = context or RunContext()
        run = ffi.new("struct fast_run *", {"repeat": repeat})
        for name in ("ifindex", "ingress_ifindex", "mark", "priority", "gso_size", "gso_segs"):
            setattr(run, name, getattr(context, name))
        out = ffi.new("char[]", _MAX_PACKET)
        size = ffi.new("uint32_t *", _MAX_PACKET)
        check(lib.fast_program_run(self.fd, packet, len(packet), out, size, run), f"running {self.name}")
        verdict = run.verdict - (1 << 32) if run.verdict >> 31 else run.verdict
        return RunResult(
            verdict, bytes(ffi.buffer(out, size[0])), run.mark_out, run.priority_out, run.duration_ns
        )


class Object:
    """A loaded object: its programs and maps by name. Closing it leaves what is pinned or attached in the kernel."""

    def __init__(self, spec: ObjectSpec, programs: dict[str, Program], maps: dict[str, Descriptor]) -> None:
        """Own the programs and maps."""
        self.spec = spec
        self.programs = programs
        self.maps = maps
        #: Names of the maps that are not the pinned ones in use, but are to replace them.
        self.staged: frozenset[str] = frozenset()

    @property
    def local_pods(self) -> LocalPods:
        """A new handle on ``fast_local_pods``; the caller closes it."""
        return LocalPods.adopt(self._map_fd("fast_local_pods"))

    @property
    def cluster_pods(self) -> ClusterPods:
        """A new handle on ``fast_cluster_pods``; the caller closes it."""
        return ClusterPods.adopt(self._map_fd("fast_cluster_pods"))

    @property
    def local_devices(self) -> LocalDevices:
        """A new handle on ``fast_local_dev``; the caller closes it."""
        return LocalDevices.adopt(self._map_fd("fast_local_dev"))

    @property
    def flows(self) -> Flows:
        """A new handle on ``fast_flow_table``; the caller closes it."""
        return Flows.adopt(self._map_fd("fast_flow_table"))

    @property
    def interfaces(self) -> Interfaces:
        """A new handle on ``fast_interfaces``; the caller closes it."""
        return Interfaces.adopt(self._map_fd("fast_interfaces"))

    @property
    def flow_limits(self) -> FlowLimits:
        """A new handle on ``fast_flow_limits``; the caller closes it."""
        return FlowLimits.adopt(self._map_fd("fast_flow_limits"))

    @property
    def metrics(self) -> Metrics:
        """A new handle on ``fast_metrics``; the caller closes it."""
        return Metrics(self._map_fd("fast_metrics"))

    def _map_fd(self, name: str) -> int:
        """Duplicate a map's descriptor."""
        return os.dup(self.maps[name].fd)

    def close(self) -> None:
        """Close every descriptor. Idempotent."""
        for descriptor in (*self.programs.values(), *self.maps.values()):
            descriptor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(spec: ObjectSpec, pins: PinDirectory | None = None) -> Object:
    """Load the object's programs and maps into the kernel.

    Args:
        spec: The object file, map sizes and configuration.
        pins: Where to look for maps to use again, and where new ones are pinned: in ``maps`` where none of that name
            is there, in ``staged`` where one is that has another size or layout. None: all maps are new and unpinned.

    Raises:
        VerifierError: The verifier refused a program; ``log`` has why.
        FeatureUnsupported: The kernel lacks something.
        BPFError: Anything else, as a missing object file or no right to load.
    """
    if pins is not None:
        pins.ensure()
    handle = _open(spec)
    try:
        btf = _btf_of(handle)
        maps = dict(_each(lib.bpf_object__next_map, handle, lib.bpf_map__name))
        for map_spec in spec.maps:
            _size(maps, map_spec)
        staged = frozenset(_reuse(spec, pins, maps, btf)) if pins is not None else frozenset()
        _configure(spec, maps, btf)
        _set_types(handle, spec)
        _load(handle, spec)
        loaded = _adopt(handle, spec, maps)
    finally:
        lib.bpf_object__close(handle)
    loaded.staged = staged
    if pins is not None:
        _pin_new_maps(loaded, pins)
    return loaded


def _open(spec: ObjectSpec) -> Any:
    """Open the object file."""
    handle = lib.bpf_object__open_file(os.fsencode(spec.path), ffi.NULL)
    if handle == ffi.NULL:
        raise BPFError(f"opening {spec.path}: {take_log() or os.strerror(ffi.errno)}", ffi.errno)
    return handle


def _each(following: Callable[..., Any], handle: Any, name_of: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Walk an object's maps or programs."""
    found, item = [], following(handle, ffi.NULL)
    while item != ffi.NULL:
        found.append((ffi.string(name_of(item)).decode(), item))
        item = following(handle, item)
    return found


def _btf_of(handle: Any) -> Btf:
    """Read the object file's type information."""
    size = ffi.new("uint32_t *")
    raw = lib.btf__raw_data(lib.bpf_object__btf(handle), size)
    return Btf(bytes(ffi.buffer(raw, size[0])))


def object_btf(spec: ObjectSpec) -> Btf:
    """Read the type information of an object file without loading it; BPFError where there is no such file."""
    handle = _open(spec)
    try:
        return _btf_of(handle)
    finally:
        lib.bpf_object__close(handle)


def kernel_btf(btf_id: int) -> Btf | None:
    """Read type information that the kernel holds, as of a pinned map; None where there is none of that id."""
    handle = lib.btf__load_from_kernel_by_id(btf_id) if btf_id else ffi.NULL
    if handle == ffi.NULL:
        return None
    try:
        size = ffi.new("uint32_t *")
        raw = lib.btf__raw_data(handle, size)
        return Btf(bytes(ffi.buffer(raw, size[0])))
    finally:
        lib.btf__free(handle)


def _size(maps: dict[str, Any], spec: MapSpec) -> None:
    """Set a map's size."""
    if spec.name not in maps:
        raise BPFError(f"the object file has no map {spec.name}: it is of another version of Fast")
    check(lib.bpf_map__set_max_entries(maps[spec.name], spec.max_entries), f"sizing map {spec.name}")


def _reuse(spec: ObjectSpec, pins: PinDirectory, maps: dict[str, Any], btf: Btf) -> list[str]:
    """Let the object use the pinned maps that fit; give the names of those that have to be replaced."""
    replaced = []
    for map_spec in spec.maps:
        name, handle = map_spec.name, maps[map_spec.name]
        current = find_pin(pins.maps / name)
        if current is None:
            continue
        with Descriptor(current):
            if _fits(handle, btf, current):
                check(lib.bpf_map__reuse_fd(handle, current), f"using map {name} again")
                continue
        replaced.append(name)
        half_done = find_pin(
            pins.staged / name
        )  # of an agent that died in the middle: programs may use it already
        if half_done is not None:
            with Descriptor(half_done):
                if _fits(handle, btf, half_done):
                    check(lib.bpf_map__reuse_fd(handle, half_done), f"using staged map {name} again")
    return replaced


def _fits(handle: Any, btf: Btf, fd: int) -> bool:
    """Tell whether a map in the kernel is just what the object file declares."""
    info = map_info(fd)
    wanted = (
        lib.bpf_map__type(handle),
        lib.bpf_map__key_size(handle),
        lib.bpf_map__value_size(handle),
        lib.bpf_map__max_entries(handle),
        lib.bpf_map__map_flags(handle),
    )
    found = (info.type, info.key_bytes, info.value_bytes, info.max_entries, info.flags)
    if wanted != found:
        return False
    types = lib.bpf_map__btf_key_type_id(handle), lib.bpf_map__btf_value_type_id(handle)
    return info.type == MapType.RINGBUF or _layouts(btf, *types) == layouts_of(info)


def _layouts(btf: Btf, key: int, value: int) -> tuple[str, str]:
    """Describe key and value."""
    return btf.layout(key), btf.layout(value)


def layouts_of(info: MapInfo) -> tuple[str, str]:
    """Describe how key and value of a map in the kernel are laid out; empty where it has no type information."""
    btf = kernel_btf(info.btf_id)
    return _layouts(btf, info.btf_key_type_id, info.btf_value_type_id) if btf else ("", "")


def _configure(spec: ObjectSpec, maps: dict[str, Any], btf: Btf) -> None:
    """Write the configuration into the object's read-only data."""
    if spec.config is None:
        return
    raw = spec.config.pack()
    variable = btf.variable(_RODATA, spec.config_symbol)
    if variable.size_bytes != len(raw):
        raise BPFError(
            f"{spec.config_symbol} has {variable.size_bytes} bytes, not {len(raw)}: "
            f"the object file is of another version of Fast"
        )
    handle = next(handle for name, handle in maps.items() if name.endswith(_RODATA))
    size = ffi.new("size_t *")
    initial = bytearray(ffi.buffer(lib.bpf_map__initial_value(handle, size), size[0]))
    initial[variable.offset_bytes : variable.offset_bytes + len(raw)] = raw
    check(lib.bpf_map__set_initial_value(handle, bytes(initial), len(initial)), "writing the configuration")


def _set_types(handle: Any, spec: ObjectSpec) -> None:
    """Say what the sections mean that are younger than libbpf."""
    found = dict(_each(lib.bpf_object__next_program, handle, lib.bpf_program__name))
    for program in spec.programs:
        if program.direction is Direction.NETFILTER:
            check(lib.bpf_program__set_type(found[program.name], _TYPE_NETFILTER), "setting a program's type")
            lib.bpf_program__set_expected_attach_type(found[program.name], program.direction)


def _load(handle: Any, spec: ObjectSpec) -> None:
    """Create maps and verify programs."""
    take_log()
    result = lib.bpf_object__load(handle)
    log = take_log()
    if result == 0:
        return
    if result != -errno.EPERM:
        features.require_all()
    if "BEGIN PROG LOAD LOG" in log:
        raise VerifierError(f"the kernel's verifier refused {spec.path.name}: {_gist(log)}", log, -result)
    raise BPFError(f"{error_of(-result, f'loading {spec.path.name}')}: {_gist(log)}", -result)


def _gist(log: str) -> str:
    """Pick the line of a log that says what is wrong: the last before the verifier's statistics."""
    lines = [line for line in log.splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines) if line.startswith("processed ")), None)
    return (lines[end - 1] if end else lines[0] if lines else "no reason given").strip()


def _adopt(handle: Any, spec: ObjectSpec, maps: dict[str, Any]) -> Object:
    """Duplicate the descriptors, so that they outlive libbpf's object."""
    found = dict(_each(lib.bpf_object__next_program, handle, lib.bpf_program__name))
    programs = {
        program.name: Program(
            os.dup(lib.bpf_program__fd(found[program.name])), program.name, program.direction
        )
        for program in spec.programs
    }
    return Object(
        spec,
        programs,
        {item.name: Descriptor(os.dup(lib.bpf_map__fd(maps[item.name]))) for item in spec.maps},
    )


def _pin_new_maps(loaded: Object, pins: PinDirectory) -> None:
    """Pin the maps that are not pinned yet."""
    for name, descriptor in loaded.maps.items():
        path = (pins.staged if name in loaded.staged else pins.maps) / name
        if not path.exists():
            pin(descriptor.fd, path)
        elif name in loaded.staged:
            with Descriptor(open_pin(path)) as half_done:
                same = map_info(half_done.fd).id == map_info(descriptor.fd).id
            if not same:
                pin(descriptor.fd, path)
