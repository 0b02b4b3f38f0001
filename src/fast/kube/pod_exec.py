"""Runs a command in a pod, as ``kubectl exec`` does, and gives its output and exit status.

The streams go over one WebSocket; every message begins with the number of its channel. Source: KEP-4006, the
subprotocols v5 and v4 of channel.k8s.io.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from fast.errors import Unavailable
from fast.kube.client import KubeClient

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _ERROR = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes


async def exec_in_pod(
    client: KubeClient, namespace: str, pod: str, argv: Sequence[str], *, container: str = ""
) -> Finished:
    """Run a command in a pod and wait until it ends. It gets no input and no terminal.

    Args:
        client: With the rights of the caller, who needs the verb ``create`` on ``pods/exec``.
        namespace: The pod's.
        pod: Its name.
        argv: The command.
        container: In which container; empty for the pod's default.

    Raises:
        KubeError: The API server or the kubelet refused, or the connection broke before the command ended.
    """
    query = [("command", word) for word in argv] + [("stdout", "true"), ("stderr", "true")]
    if container:
        query.append(("container", container))
    what = f"exec in pod {namespace}/{pod}"
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/exec"
    output: dict[int, bytearray] = {_STDOUT: bytearray(), _STDERR: bytearray()}
    async with client.websocket(what, path, query, _PROTOCOLS) as socket:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _ERROR:
                return Finished(_exit_status(what, data), bytes(output[_STDOUT]), bytes(output[_STDERR]))
            output.setdefault(channel, bytearray()).extend(data)
    raise Unavailable(f"{what}: the connection ended before the command did", reason="Connection")


def _exit_status(what: str, data: bytes) -> int:
    """Read the Status that ends an exec."""
    try:
        status: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        if status.get("status") == "Success":
            return 0
        for cause in (status.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
    except (msgspec.MsgspecError, AttributeError, KeyError, ValueError) as error:
        raise Unavailable(f"{what}: its end cannot be read: {data[:200]!r}") from error
    raise Unavailable(f"{what}: {status.get('message') or status.get('reason')}")
