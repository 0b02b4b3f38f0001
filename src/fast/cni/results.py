"""CNI results: writes Fast's in each version's format and reads a previous one. No verbs, no I/O.

Sources: the result types of the CNI specification 0.3.1, 0.4.0, 1.0.0 and 1.1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fast.cni.cni_errors import CallError, Code
from fast.cni.network_config import Dns, NetworkConfig
from fast.datapath.pod.identity import Endpoint, gateway_of
from fast.errors import InvalidRange
from fast.net import IPAddress, parse_address

_WITH_IP_VERSION = frozenset({"0.3.1", "0.4.0"})  # 1.0.0 dropped ips[].version
_WITH_MTU = frozenset({"1.1.0"})
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


class Interface(msgspec.Struct, omit_defaults=True, frozen=True):
    """``interfaces[]``; ``sandbox`` is the namespace's path, empty for the host's side. ``mtu`` since 1.1.0."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socketPath: str = ""  # noqa: N815 -- as the specification spells it
    pciID: str = ""  # noqa: N815


class Ip(msgspec.Struct, omit_defaults=True, frozen=True):
    """``ips[]``; ``interface`` is an index into ``interfaces``. ``version`` until 0.4.0."""

    address: str
    interface: int | None = None
    gateway: str = ""
    version: str = ""


class Route(msgspec.Struct, omit_defaults=True, frozen=True):
    """``routes[]``; all but ``dst`` and ``gw`` since 1.1.0."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class Result(msgspec.Struct, frozen=True):
    """What ADD prints, and what the runtime hands to later plugins and verbs as ``prevResult``."""

    cniVersion: str = ""  # noqa: N815
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


def result_of(
    endpoint: Endpoint, netns_path: str, config: NetworkConfig, previous: Result | None = None
) -> Result:
    """Write the result of ADD in the configuration's version, after what an earlier plugin of the chain made.

    Args:
        endpoint: What ADD made.
        netns_path: The sandbox's, as the runtime gave it.
        config: Has the version and ``dns``.
        previous: The earlier plugin's result.
    """
    version = config.cni_version
    before = previous or Result()
    mtu = endpoint.mtu if version in _WITH_MTU else 0
    host = Interface(endpoint.host_device, str(endpoint.host_mac), mtu)
    pod = Interface(endpoint.ifname, str(endpoint.pod_mac), mtu, netns_path)
    pod_index = len(before.interfaces) + 1
    ips = tuple(
        Ip(
            address=f"{address}/{address.max_prefixlen}",
            interface=pod_index,
            gateway=str(gateway_of(address)),
            version=str(address.version) if version in _WITH_IP_VERSION else "",
        )
        for address in endpoint.addresses
    )
    routes = tuple(
        Route(dst=_EVERYWHERE[address.version], gw=str(gateway_of(address))) for address in endpoint.addresses
    )
    return Result(
        cniVersion=version,
        interfaces=(*before.interfaces, host, pod),
        ips=(*before.ips, *ips),
        routes=(*before.routes, *routes),
        dns=config.dns if config.dns != Dns() else before.dns,
    )


def parse_result(decoded: Any) -> Result:
    """Read a ``prevResult`` of any supported version from decoded JSON without nulls.

    Raises:
        CallError: Code 7, it is not a result.
    """
    try:
        return msgspec.convert(decoded, Result)
    except msgspec.ValidationError as error:
        raise CallError(Code.INVALID_CONFIG, f"prevResult is not a CNI result: {error}") from error


def sandbox_addresses(result: Result, ifname: str) -> tuple[IPAddress, ...]:
    """Return the addresses that a result gives the sandbox's interface ``ifname``.

    Raises:
        CallError: Code 7, the result has no such interface, or an address in it is not valid.
    """
    indices = {
        index
        for index, interface in enumerate(result.interfaces)
        if interface.name == ifname and interface.sandbox
    }
    if not indices:
        raise CallError(Code.INVALID_CONFIG, f"prevResult has no sandbox interface {ifname!r}")
    return _addresses([ip for ip in result.ips if ip.interface in indices])


def _addresses(ips: Sequence[Ip]) -> tuple[IPAddress, ...]:
    try:
        return tuple(parse_address(ip.address.partition("/")[0]) for ip in ips)
    except InvalidRange as error:
        raise CallError(Code.INVALID_CONFIG, f"prevResult: {error}") from error
