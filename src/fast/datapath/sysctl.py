"""The kernel parameters that the datapath depends on; sets those that differ. Only net.*, in this namespace.

/proc/sys/net shows the calling thread's network namespace, whatever the process's is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fast.datapath.repair import Repair, RepairKind
from fast.errors import DatapathError

_ROOT = Path("/proc/sys/net")
_LOOSE = "2"


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A parameter (path below net, as ``ipv4/ip_forward``) and its accepted values; the first is what gets written."""

    path: str
    accepted: tuple[str, ...]


def wanted(tunnel: str, underlays: Iterable[str], *, ipv6: bool) -> Iterator[Sysctl]:
    """Give the parameters that a node needs, in the order in which they must be set.

    - rp_filter: the larger of ``all`` and the device's counts, so 0 on a device does not help against ``all`` = 1, but
      2 (loose) does, on a device that has an address (tunnel.py sees to it). The tunnel brings packets from other
      nodes' own addresses, which are routed to the underlay. The underlay brings packets of other nodes for a node port
      of this one, whose replies are routed to the tunnel; and, in native routing, packets of remote pods.
    - accept_ra: a router ignores router advertisements unless this is 2, and the node would lose its IPv6 route.

    Args:
        tunnel: Name of the tunnel device.
        underlays: Names of the devices that other nodes' packets come in by.
        ipv6: Whether pods have IPv6 addresses.
    """
    yield Sysctl("ipv4/ip_forward", ("1",))
    yield Sysctl(f"ipv4/conf/{tunnel}/rp_filter", (_LOOSE,))
    for underlay in underlays:
        yield Sysctl(f"ipv4/conf/{underlay}/rp_filter", (_LOOSE,))
        if ipv6:
            yield Sysctl(f"ipv6/conf/{underlay}/accept_ra", ("2", "0"))
    if ipv6:
        yield Sysctl("ipv6/conf/all/forwarding", ("1",))


def keeping_router_advertisements(own_prefix: str) -> Iterator[Sysctl]:
    """Give what keeps the node's IPv6 routes when it becomes a router: Linux then ignores router advertisements.

    That is every device, other than those whose name begins with ``own_prefix``, which accepts them now. Nothing if the
    node is a router already: what accepts advertisements is then the administrator's choice.
    """
    if read("ipv6/conf/all/forwarding") == "1":
        return
    for directory in sorted((_ROOT / "ipv6/conf").iterdir()):
        name = directory.name
        if name in ("all", "default", "lo") or name.startswith(own_prefix):
            continue
        if read(f"ipv6/conf/{name}/accept_ra") == "1":
            yield Sysctl(f"ipv6/conf/{name}/accept_ra", ("2",))


def read(path: str) -> str:
    """Read a parameter; empty if the kernel has none of that name."""
    try:
        return (_ROOT / path).read_text().strip()
    except FileNotFoundError:
        return ""


def write(path: str, value: str) -> None:
    """Set a parameter.

    Raises:
        DatapathError: There is none of that name, or /proc/sys is read-only.
    """
    try:
        (_ROOT / path).write_text(value)
    except OSError as error:
        name = f"net.{path.replace('/', '.')}"
        raise DatapathError(f"cannot set {name} = {value}: {error.strerror}") from error


def ensure(parameters: Iterable[Sysctl]) -> list[Repair]:
    """Set what differs; return what that was.

    Raises:
        DatapathError: A parameter cannot be set.
    """
    repairs = []
    for parameter in parameters:
        found = read(parameter.path)
        if found in parameter.accepted:
            continue
        write(parameter.path, parameter.accepted[0])
        name = f"net.{parameter.path.replace('/', '.')}"
        repairs.append(
            Repair(RepairKind.SYSCTL, f"{name} was {found or 'absent'}, set to {parameter.accepted[0]}")
        )
    return repairs
