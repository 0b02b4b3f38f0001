"""Reads and validates the network configuration on a CNI call's stdin. No environment, no I/O.

Null is absence, as for Go's decoder, which runtimes and meta plugins are written with.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fast.cni.cni_errors import CallError, Code
from fast.errors import InvalidRange
from fast.net import IPAddress, parse_address

#: Oldest first. 0.1.0 and 0.2.0 have another kind of result; no runtime in use needs them.
SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST_VERSION = SUPPORTED_VERSIONS[-1]

#: The version of the specification that brought a verb.
_SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_VALID_ATTACHMENTS = "cni.dev/valid-attachments"
_MIN_MTU, _MAX_MTU = 68, 65535  # RFC 791's least; the most that an IP packet can be


class Dns(msgspec.Struct, omit_defaults=True, frozen=True):
    """``dns``, copied into the result."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class RuntimeConfig(msgspec.Struct, frozen=True):
    """What the runtime fills in for declared capabilities. Chained plugins read their own (portMappings …).

    ``bandwidth`` tells Fast that a shaper will be on the pod's veth.
    """

    ips: tuple[str, ...] = ()
    mac: str = ""
    bandwidth: dict[str, Any] | None = None


class ValidAttachment(msgspec.Struct, frozen=True):
    """One of ``cni.dev/valid-attachments`` (GC)."""

    container_id: str = msgspec.field(name="containerID")
    ifname: str


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A network configuration, as a plugin gets it. Unknown fields belong to other plugins or the runtime.

    ``mtu`` (bytes) is Fast's own; 0 takes what the node's underlay carries. ``args`` may hold anything, since the
    specification lets a plugin ignore it. ``prev_result`` is decoded JSON without nulls; None if there is none.
    """

    cni_version: str = msgspec.field(name="cniVersion", default="")
    name: str = ""
    type: str = ""
    mtu: int = 0
    dns: Dns = Dns()
    ipam: Any = None
    runtime_config: RuntimeConfig = msgspec.field(name="runtimeConfig", default=RuntimeConfig())
    args: Any = None
    prev_result: Any = msgspec.field(name="prevResult", default=None)
    valid_attachments: tuple[ValidAttachment, ...] | None = msgspec.field(
        name=_VALID_ATTACHMENTS, default=None
    )

    @property
    def has_prev_result(self) -> bool:
        """Whether a plugin before this one made a result."""
        return self.prev_result is not None


class _Identity(msgspec.Struct, frozen=True):
    """What a DEL needs of a configuration."""

    cni_version: str = msgspec.field(name="cniVersion", default="")
    name: str = ""
    type: str = ""


class _VersionOnly(msgspec.Struct):
    cni_version: str | None = msgspec.field(name="cniVersion", default="")


def version_of(stdin: bytes) -> str:
    """Return the ``cniVersion`` to answer in: the configuration's, or the newest if none can be read."""
    try:
        return msgspec.json.decode(stdin, type=_VersionOnly).cni_version or NEWEST_VERSION
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NEWEST_VERSION


def parse_config(stdin: bytes, command: str) -> NetworkConfig:
    """Read and validate the network configuration for a verb. DEL needs only ``cniVersion``, ``name`` and ``type``.

    Raises:
        CallError: Code 6 (not JSON), 1 (version unsupported, or older than the verb),
            7 (a field is missing or not valid), 2 (a field that Fast cannot serve; key and value in the message).
    """
    config = _decode(stdin, command)
    _check_version(config.cni_version, command)
    if not _NAME.fullmatch(config.name):
        raise CallError(
            Code.INVALID_CONFIG,
            f"network name {config.name!r} must be letters, digits, '_', '.' and '-', with a letter or digit first",
        )
    if not config.type:
        raise CallError(Code.INVALID_CONFIG, "type of the network configuration is missing")
    if config.mtu and not _MIN_MTU <= config.mtu <= _MAX_MTU:
        raise CallError(Code.INVALID_CONFIG, f"mtu {config.mtu} is not between {_MIN_MTU} and {_MAX_MTU}")
    if command == "ADD":
        _refuse_unsupported(config)
    if command == "GC" and config.valid_attachments is None:
        raise CallError(
            Code.INVALID_CONFIG, "cni.dev/valid-attachments is missing: GC without it would end every pod"
        )
    return config


def _decode(stdin: bytes, command: str) -> NetworkConfig:
    try:
        decoded = msgspec.json.decode(stdin)
        if isinstance(decoded, dict) and _VALID_ATTACHMENTS in decoded and not decoded[_VALID_ATTACHMENTS]:
            decoded[_VALID_ATTACHMENTS] = []  # a list without entries, which Go writes as null
        decoded = without_nulls(decoded)
        if command == "DEL":
            needed = msgspec.convert(decoded, _Identity)
            return NetworkConfig(cni_version=needed.cni_version, name=needed.name, type=needed.type)
        return msgspec.convert(decoded, NetworkConfig)
    except msgspec.ValidationError as error:
        raise CallError(Code.INVALID_CONFIG, f"the network configuration is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallError(Code.DECODING_FAILURE, f"the network configuration is not JSON: {error}") from error


def without_nulls(value: Any) -> Any:
    """Remove every member that is null from decoded JSON, at any depth. Elements of arrays keep their places."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def requested_addresses(config: NetworkConfig) -> tuple[IPAddress, ...]:
    """Read the addresses that the runtime asks for: capability ``ips``, else ``args.cni.ips``.

    Raises:
        CallError: Code 7, one of them is not an address.
    """
    texts = config.runtime_config.ips or _ips_of_args(config.args)
    try:
        return tuple(parse_address(text.partition("/")[0]) for text in texts)
    except InvalidRange as error:
        raise CallError(
            Code.INVALID_CONFIG, f"the runtime asks for an address that is not valid: {error}"
        ) from error


def _ips_of_args(args: Any) -> tuple[str, ...]:
    """Read ``args.cni.ips`` of the CNI conventions; empty if ``args`` has another shape."""
    cni = args.get("cni") if isinstance(args, dict) else None
    ips = cni.get("ips") if isinstance(cni, dict) else None
    return tuple(ip for ip in ips if isinstance(ip, str)) if isinstance(ips, list) else ()


def _check_version(version: str, command: str) -> None:
    supported = ", ".join(SUPPORTED_VERSIONS)
    if version not in SUPPORTED_VERSIONS:
        what = f"CNI version {version!r} is not supported" if version else "cniVersion is missing"
        raise CallError(Code.INCOMPATIBLE_VERSION, f"{what}; Fast speaks {supported}")
    since = _SINCE.get(command, SUPPORTED_VERSIONS[0])
    if SUPPORTED_VERSIONS.index(version) < SUPPORTED_VERSIONS.index(since):
        raise CallError(Code.INCOMPATIBLE_VERSION, f"CNI {version} has no {command}; it came with {since}")


def _refuse_unsupported(config: NetworkConfig) -> None:
    if config.ipam:
        written = msgspec.json.encode(config.ipam).decode()
        raise CallError(
            Code.UNSUPPORTED_FIELD,
            f"ipam {written}: Fast manages addresses itself, by Ips objects; remove it",
        )
    if config.runtime_config.mac:
        raise CallError(
            Code.UNSUPPORTED_FIELD,
            f"runtimeConfig.mac {config.runtime_config.mac!r}: Fast chooses the MAC itself",
        )
