"""The network configuration that stands on a CNI call's stdin: decoding and validation. No environment, no I/O."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fast.cni.cni_errors import CallError, Code
from fast.errors import InvalidRange
from fast.net import IPAddress, parse_address

#: Oldest first. 0.1.0 and 0.2.0 have another kind of result; no runtime in use speaks them.
SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST_VERSION = SUPPORTED_VERSIONS[-1]

#: The version of the specification that brought a verb.
_SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_ABSENT = msgspec.Raw(
    b"null"
)  # not None: msgspec takes an object for a type of "Raw | None" only where it is null
_MIN_MTU, _MAX_MTU = 68, 65535  # RFC 791's least; the most that an IP packet can be


class Dns(msgspec.Struct, omit_defaults=True, frozen=True):
    """``dns``, passed on into the result as it is."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class RuntimeConfig(msgspec.Struct, frozen=True):
    """What the runtime fills in for declared capabilities; those of chained plugins (portMappings …) are theirs.

    ``bandwidth`` only tells Fast that a shaper will sit on the pod's veth.
    """

    ips: tuple[str, ...] = ()
    mac: str = ""
    bandwidth: dict[str, Any] | None = None


class ValidAttachment(msgspec.Struct, frozen=True):
    """One of ``cni.dev/valid-attachments`` (GC)."""

    container_id: str = msgspec.field(name="containerID")
    ifname: str


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A network configuration as a plugin sees it. Fields that Fast does not know are other plugins' or the runtime's.

    ``mtu`` (bytes) is Fast's own: smaller than what the node's underlay carries; 0 takes that. ``args`` may hold
    anything (the specification lets a plugin ignore it), ``prev_result`` stays raw.
    """

    cni_version: str = msgspec.field(name="cniVersion", default="")
    name: str = ""
    type: str = ""
    mtu: int = 0
    dns: Dns = Dns()
    ipam: Any = None
    runtime_config: RuntimeConfig = msgspec.field(name="runtimeConfig", default=RuntimeConfig())
    args: Any = None
    prev_result: msgspec.Raw = msgspec.field(name="prevResult", default=_ABSENT)
    valid_attachments: tuple[ValidAttachment, ...] | None = msgspec.field(
        name="cni.dev/valid-attachments", default=None
    )

    @property
    def has_prev_result(self) -> bool:
        """Whether a plugin before this one made a result."""
        return bytes(self.prev_result) != b"null"


class _VersionOnly(msgspec.Struct):
    cni_version: str = msgspec.field(name="cniVersion", default="")


def version_of(stdin: bytes) -> str:
    """Find the ``cniVersion`` to answer in: the configuration's, or the newest where none can be read."""
    try:
        return msgspec.json.decode(stdin, type=_VersionOnly).cni_version or NEWEST_VERSION
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NEWEST_VERSION


def parse_config(stdin: bytes, command: str) -> NetworkConfig:
    """Read and validate the network configuration for a verb.

    Raises:
        CallError: Code 6 (no JSON, or a field of the wrong type), 1 (version unsupported, or older than the verb),
            7 (a field is missing or not valid), 2 (a field that Fast cannot serve; key and value in the message).
    """
    try:
        config = msgspec.json.decode(stdin, type=NetworkConfig)
    except msgspec.ValidationError as error:
        raise CallError(Code.INVALID_CONFIG, f"the network configuration is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CallError(Code.DECODING_FAILURE, f"the network configuration is no JSON: {error}") from error
    _check_version(config.cni_version, command)
    if not _NAME.fullmatch(config.name):
        raise CallError(
            Code.INVALID_CONFIG,
            f"name {config.name!r} of the network must start alphanumeric and go on with alphanumerics, '_', '.', '-'",
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


def requested_addresses(config: NetworkConfig) -> tuple[IPAddress, ...]:
    """Read the addresses that the runtime asks for: capability ``ips``, else ``args.cni.ips``.

    Raises:
        CallError: Code 7, one of them is no address.
    """
    texts = config.runtime_config.ips or _ips_of_args(config.args)
    try:
        return tuple(parse_address(text.partition("/")[0]) for text in texts)
    except InvalidRange as error:
        raise CallError(Code.INVALID_CONFIG, f"an address that the runtime asks for: {error}") from error


def _ips_of_args(args: Any) -> tuple[str, ...]:
    """``args.cni.ips`` of the CNI conventions; empty where args is shaped otherwise."""
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
