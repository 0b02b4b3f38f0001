"""What the commands on eBPF maps share: opening a pinned map, and reading arguments."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fast.errors import BPFError, FastError, InvalidConfig, InvalidRange
from fast.net import IPAddress, Mac, parse_address

M = TypeVar("M")


def open_pinned(opener: Callable[[Path], M], bpf_dir: Path) -> M:
    """Open one of Fast's pinned maps.

    Args:
        opener: ``open`` of the map's class, which is given the directory of the maps.
        bpf_dir: Fast's directory in the bpf filesystem.

    Raises:
        FastError: There are no pins, or they may not be opened; the message says what to do.
    """
    maps = bpf_dir / "maps"
    try:
        return opener(maps)
    except BPFError as error:
        if error.errno == errno.ENOENT:
            raise FastError(
                f"there are no eBPF maps of Fast in {maps}. fast-agent makes them at its start: is it on this node?"
                " If it pins elsewhere, say so with --bpf-dir or FAST_BPF_DIR;"
                " in a playground, run this on a node: fast-ctl playground node n1 -- fast-ctl …"
            ) from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise FastError(f"opening the maps in {maps} needs root (CAP_BPF): {error}") from error
        raise


class AddressType(click.ParamType[IPAddress]):
    """An IPv4 or IPv6 address on the command line."""

    name = "IP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IPAddress:
        """Read it, or fail with what is wrong."""
        try:
            return parse_address(str(value))
        except InvalidRange as error:
            self.fail(str(error), param, ctx)


class MacType(click.ParamType[Mac]):
    """A MAC address on the command line."""

    name = "MAC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Mac:
        """Read it, or fail with what is wrong."""
        try:
            return Mac.parse(str(value))
        except InvalidConfig as error:
            self.fail(str(error), param, ctx)


class DeviceType(click.ParamType[int]):
    """A network device on the command line, by name or index; gives the index."""

    name = "DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Look it up in this network namespace, or fail."""
        text = str(value)
        try:
            return int(text) if text.isdigit() else socket.if_nametoindex(text)
        except OSError:
            self.fail(f"there is no device {text!r} on this node", param, ctx)


def device_name(ifindex: int) -> str:
    """Name the device of this network namespace; empty where there is none (any more)."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return ""


def delete_entries(delete: Callable[[IPAddress], bool], addresses: tuple[IPAddress, ...], what: str) -> None:
    """Delete entries, saying of each what happened; exit status 1 where one was not there."""
    missing = [address for address in addresses if not delete(address)]
    for address in addresses:
        if address not in missing:
            click.echo(f"{what} {address} deleted")
    if missing:
        raise FastError(f"there is no {what} {', '.join(map(str, missing))}")


def sort_key(address: IPAddress) -> tuple[int, int]:
    """Order addresses by family, then by number."""
    return address.version, int(address)


def boot_age_seconds(time_ns: int) -> float:
    """Give how long ago an eBPF program took this time (CLOCK_MONOTONIC)."""
    import time

    return max(0.0, (time.monotonic_ns() - time_ns) / 1e9)


def on_this_node() -> str:
    """Name the node for messages: NODE_NAME, or the host's name."""
    return os.environ.get("NODE_NAME") or socket.gethostname()
