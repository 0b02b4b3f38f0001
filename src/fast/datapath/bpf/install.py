"""Puts a version of the object into service without losing a packet: load, move entries, exchange, pin.

If maps are replaced, the order makes it hitless. Every entry moves first, while the earlier version keeps working from
the old maps. Then the programs on egress hooks, which write flows, are exchanged; then the flows that
came up meanwhile move; then the programs on ingress hooks, which read flows, are exchanged. A reader that got the new
map before its entries would send replies by the fast path, past the NAT that must translate them. What remains: if
``fast_flow_table`` itself is replaced, a Service connection opened in the milliseconds between the two exchanges may
have its first reply lost, and its client tries again.

An agent may die at any point of this: maps stay staged, and the next one goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Set

from fast.datapath.bpf.links import AttachMode, Links
from fast.datapath.bpf.migration import TAKEN_OVER, WRITTEN_BY_PROGRAMS, add_entries, move_entries, raw_map
from fast.datapath.bpf.objects import Object, load
from fast.datapath.bpf.pins import PinDirectory, find_pin, pin
from fast.datapath.bpf.spec import Direction, ObjectSpec


def install(spec: ObjectSpec, pins: PinDirectory, mode: AttachMode | None = None) -> Object:
    """Put the object into service: after this, every attachment runs its programs, and new ones can be made.

    Idempotent. Existing attachments are turned to ``mode``, if one is given. Must not run twice at a time for one
    directory.

    Args:
        spec: What to load.
        pins: Where maps, programs and links are pinned.
        mode: How to attach; None: existing attachments stay as they are.

    Returns:
        The object; the caller closes it when it no longer needs its programs and maps.

    Raises:
        VerifierError, FeatureUnsupported, BPFError: As :func:`fast.datapath.bpf.objects.load`. The version of before
            goes on running.
        MapFull: The entries do not fit into a map that was made smaller. Likewise.
        LayoutMismatch: The entries cannot be converted. Likewise.
    """
    links = Links(pins, mode)
    loaded = load(spec, pins)
    try:
        _move(loaded, pins, loaded.staged)
        _take_over(loaded, pins)
        links.replace(loaded.programs, Direction.EGRESS)
        _move(loaded, pins, {name for name in loaded.staged if name in WRITTEN_BY_PROGRAMS})
        _take_over(loaded, pins)
        links.replace(loaded.programs, Direction.INGRESS)
        _pin_programs(loaded, pins)
        _commit(loaded, pins)
    except BaseException:
        loaded.close()
        raise
    return loaded


def _move(loaded: Object, pins: PinDirectory, names: Set[str]) -> None:
    """Move entries into the staged maps from those in use."""
    for name in names:
        old = find_pin(pins.maps / name)
        if old is None:
            continue
        with raw_map(old, name) as source, raw_map(os.dup(loaded.maps[name].fd), name) as target:
            if loaded.spec.map(name).migrated:
                move_entries(source, target)


def _take_over(loaded: Object, pins: PinDirectory) -> None:
    """Move entries from the maps of an earlier version that have a successor of another name."""
    for spec in loaded.spec.maps:
        old = find_pin(pins.maps / spec.replaces) if spec.replaces else None
        if old is None:
            continue
        with (
            raw_map(old, spec.replaces) as source,
            raw_map(os.dup(loaded.maps[spec.name].fd), spec.name) as target,
        ):
            add_entries(source, target, TAKEN_OVER[spec.name])


def _pin_programs(loaded: Object, pins: PinDirectory) -> None:
    """Let new attachments run this version."""
    for program in loaded.programs.values():
        pin(program.fd, pins.programs / program.name)


def _commit(loaded: Object, pins: PinDirectory) -> None:
    """Let the staged maps take the place of those that were in use."""
    for name in loaded.staged:
        (pins.staged / name).rename(pins.maps / name)
    for spec in loaded.spec.maps:
        if spec.replaces:
            (pins.maps / spec.replaces).unlink(missing_ok=True)
    for left_over in pins.staged.iterdir():
        left_over.unlink()
