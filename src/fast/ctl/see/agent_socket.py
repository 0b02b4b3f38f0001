"""Asking this node's agent over its traffic socket. Standard library only, so that it starts quickly."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fast.errors import AgentUnavailable

_CONNECT_SECONDS = 2.0

#: The ``--traffic-socket`` option.
traffic_socket_option = click.option(
    "--traffic-socket",
    type=click.Path(path_type=Path),
    default="/run/fast/traffic.sock",
    envvar="FAST_TRAFFIC_SOCKET",
    show_default=True,
    show_envvar=True,
    help="Where fast-agent tells of the traffic.",
)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("fast", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask_agent(path: Path, what: str) -> Any:
    """Ask the agent once; gives the answer, decoded.

    Raises:
        AgentUnavailable: It does not run here, or does not answer.
    """
    with _answer(path, what, _CONNECT_SECONDS) as answer:
        return json.loads(answer.read())


def follow_agent(path: Path, what: str) -> Iterator[dict[str, Any]]:
    """Give the objects of an answer of one JSON object a line, as they come.

    Raises:
        AgentUnavailable: It does not run here, or the stream broke.
    """
    with _answer(path, what, None) as answer:
        try:
            for line in answer:
                if line.strip():
                    yield json.loads(line)
        except OSError as error:
            raise AgentUnavailable(f"fast-agent ended the stream: {error}") from error


def _answer(path: Path, what: str, timeout: float | None) -> http.client.HTTPResponse:
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
    except TimeoutError as error:
        raise AgentUnavailable(
            f"fast-agent does not answer on {path}: it hangs; its logs may say why"
        ) from error
    except OSError as error:
        node = os.environ.get("NODE_NAME") or os.uname().nodename
        raise AgentUnavailable(
            f"fast-agent cannot be asked on {path} ({error.strerror}): does it run on {node}? "
            "From elsewhere name a node: --node NODE, or -A for all"
        ) from error
    if answer.status != http.client.OK:
        raise AgentUnavailable(f"fast-agent answered {answer.status} {answer.reason} to {what}")
    return answer
