"""The kernel features that Fast needs or prefers, and the kernel each came with. Probes only.

A probe asks the kernel by trying, never by its version number: distributions backport.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from fast.datapath.bpf.libbpf import Descriptor, check, ffi, lib, quiet
from fast.errors import FeatureUnsupported

_NO_SUCH_DEVICE = 0x7FFFFFFF
_BPF_TCX_INGRESS = 46
_HELPER_REDIRECT_NEIGH = 152
_HELPER_REDIRECT_PEER = 155
_HELPER_RINGBUF_OUTPUT = 130
_MAP_RINGBUF = 27
_MAP_LRU_HASH = 9


@dataclass(frozen=True)
class Feature:
    """A feature of the kernel.

    Args:
        name: For messages.
        kernel: The version it came with.
        probe: Tells whether it is here.
        needed: Whether Fast needs it.
    """

    name: str
    kernel: str
    probe: Callable[[], bool]
    needed: bool = True

    def require(self) -> None:
        """Do nothing, or raise FeatureUnsupported."""
        if not self.probe():
            raise FeatureUnsupported(self.name, self.kernel)


def _helper(number: int) -> Callable[[], bool]:
    """Make a probe for a helper function of tc programs."""

    def probe() -> bool:
        with quiet():
            return check(lib.fast_probe_helper(number), "probing for a helper") == 1

    return cache(probe)


def _map_type(number: int) -> Callable[[], bool]:
    """Make a probe for a map type."""

    def probe() -> bool:
        with quiet():
            return check(lib.fast_probe_map_type(number), "probing for a map type") == 1

    return cache(probe)


@cache
def has_tcx() -> bool:
    """Return whether tcx links exist: they change the error for a device that does not exist."""
    with Descriptor(check(lib.fast_trivial_program(), "loading a trivial program")) as program:
        result: int = lib.bpf_link_create(program.fd, _NO_SUCH_DEVICE, _BPF_TCX_INGRESS, ffi.NULL)
    return result == -errno.ENODEV


TCX = Feature("tcx links", "6.6", has_tcx, needed=False)

FEATURES = (
    Feature("bpf_redirect_peer", "5.10", _helper(_HELPER_REDIRECT_PEER)),
    Feature("bpf_redirect_neigh", "5.10", _helper(_HELPER_REDIRECT_NEIGH)),
    Feature("bpf_ringbuf_output", "5.8", _helper(_HELPER_RINGBUF_OUTPUT)),
    Feature("eBPF ring buffers", "5.8", _map_type(_MAP_RINGBUF)),
    Feature("eBPF LRU hash maps", "4.10", _map_type(_MAP_LRU_HASH)),
    TCX,
)


def require_all() -> None:
    """Check everything that Fast needs.

    Raises:
        FeatureUnsupported: The first that is missing.
    """
    for feature in FEATURES:
        if feature.needed:
            feature.require()
