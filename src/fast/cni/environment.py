"""Reads and validates the environment of a CNI call: which attachment, and where. No configuration, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fast.api.ipendpoint import PodRef
from fast.cni.cni_errors import CallError, Code
from fast.errors import InvalidRange
from fast.ipam import Attachment, AttachmentKey
from fast.net import IPAddress, parse_address

COMMANDS = frozenset({"ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"})

#: A longer ID does not fit into the alias of an endpoint's device, beside an address of each family.
MAX_CONTAINER_ID_LENGTH = 160
#: A longer ID does not fit into the name of a tombstone file (``cni-plugin/fast-cni.c`` has the same limit).
_MAX_TOMBSTONE_ID_LENGTH = 200
_MAX_IFNAME_BYTES = 15  # IFNAMSIZ - 1

_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
#: "%": the kernel takes eth%d for a pattern and picks the name itself.
_IFNAME = re.compile(r"(?!\.{1,2}$)[^\s/:%]+")
#: Kernel names: the loopback device, and two directories of /proc/sys/net that are not devices.
_RESERVED_IFNAMES = frozenset({"lo", "all", "default"})
_TEXTS = {  # what a verb reads; everything else may be any bytes
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}

_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}


@dataclass(frozen=True, slots=True)
class Invocation:
    """The environment of a call.

    Attributes:
        command: One of :data:`COMMANDS`.
        container_id: The sandbox; empty for verbs without one.
        ifname: The interface inside it.
        netns: Path of its network namespace, as the runtime gave it; empty if it has none any more (DEL).
        opened_netns: A path at which this process can open the same namespace; empty if fast-cni passed none.
        pod: The sandbox's pod; None for a plain container.
        addresses: What ``CNI_ARGS`` asks for with ``IP=``.
    """

    command: str
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    pod: PodRef | None = None
    addresses: tuple[IPAddress, ...] = ()
    opened_netns: str = ""

    @property
    def attachment(self) -> Attachment:
        """Which interface of which sandbox, its pod, and the addresses asked for."""
        return Attachment(self.container_id, self.ifname, self.pod, self.addresses)

    @property
    def key(self) -> AttachmentKey:
        """(container_id, ifname)."""
        return (self.container_id, self.ifname)


def parse_invocation(env: Mapping[str, str], opened_netns: str = "") -> Invocation:
    """Read the ``CNI_*`` variables of a call.

    DEL is lenient: it reads no more than it needs, and takes every name that an ADD was ever served for.

    Raises:
        CallError: Code 4, naming every variable that is missing or not valid.
    """
    command = env.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise CallError(
            Code.INVALID_ENVIRONMENT, f"CNI_COMMAND={command!r} is not one of {', '.join(sorted(COMMANDS))}"
        )
    missing = [name for name in _REQUIRED.get(command, ()) if not env.get(name)]
    if missing:
        raise CallError(Code.INVALID_ENVIRONMENT, f"{', '.join(missing)} missing; {command} needs it")
    if command not in _REQUIRED:
        return Invocation(command)
    _refuse_other_than_utf8(env, _TEXTS[command])
    limit = _MAX_TOMBSTONE_ID_LENGTH if command == "DEL" else MAX_CONTAINER_ID_LENGTH
    container_id = _valid_container_id(env["CNI_CONTAINERID"], limit)
    if command == "DEL":
        return Invocation(command, container_id, _usable_ifname(env["CNI_IFNAME"]))
    args = _parse_args(env.get("CNI_ARGS", ""))
    return Invocation(
        command,
        container_id,
        ifname=_valid_ifname(env["CNI_IFNAME"]),
        netns=env.get("CNI_NETNS", ""),
        pod=_pod(args),
        addresses=_addresses(args.get("IP", "")),
        opened_netns=opened_netns,
    )


def _refuse_other_than_utf8(env: Mapping[str, str], names: tuple[str, ...]) -> None:
    """JSON is UTF-8: no result and no object of the API could hold such a name."""
    for name in names:
        try:
            env.get(name, "").encode()
        except UnicodeEncodeError as error:
            raise CallError(Code.INVALID_ENVIRONMENT, f"{name}={env[name]!r} is not UTF-8") from error


def _valid_container_id(text: str, limit: int) -> str:
    if not _CONTAINER_ID.fullmatch(text):
        raise CallError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID={text!r} must start with a letter or digit and have only letters, digits, '_', '.', '-'",
        )
    if len(text) > limit:
        raise CallError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID has {len(text)} characters; the limit is {limit}",
        )
    return text


def _usable_ifname(text: str) -> str:
    """Check what a DEL needs: a name that fits into a tombstone's file name."""
    if "/" in text or len(text.encode()) > _MAX_IFNAME_BYTES:
        raise CallError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME={text!r} is not a valid interface name")
    return text


def _valid_ifname(text: str) -> str:
    if text in _RESERVED_IFNAMES:
        raise CallError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME={text!r} is reserved by the kernel")
    if len(text.encode()) > _MAX_IFNAME_BYTES or not _IFNAME.fullmatch(text):
        raise CallError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_IFNAME={text!r} is not a valid interface name: at most {_MAX_IFNAME_BYTES} bytes, "
            "not '.' or '..', and without '/', ':', '%' and white space",
        )
    return text


def _parse_args(text: str) -> dict[str, str]:
    """``CNI_ARGS``: ``KEY=VALUE;KEY=VALUE``. Unknown keys are kept (containerd sends IgnoreUnknown and more)."""
    args: dict[str, str] = {}
    for item in text.split(";"):
        if not item:
            continue
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise CallError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS has {item!r}, which is not KEY=VALUE")
        args[key] = value
    return args


def _pod(args: Mapping[str, str]) -> PodRef | None:
    """Read the pod; None for a plain container: Podman sets K8S_POD_NAME to a container's name, without a namespace."""
    namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
    if not namespace:
        return None
    if not name:
        raise CallError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS names K8S_POD_NAMESPACE={namespace} without K8S_POD_NAME; a pod has both",
        )
    return PodRef(namespace, name, args.get("K8S_POD_UID", ""))


def _addresses(text: str) -> tuple[IPAddress, ...]:
    try:
        return tuple(parse_address(item.partition("/")[0]) for item in text.split(",") if item)
    except InvalidRange as error:
        raise CallError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS has IP={text}: {error}") from error
