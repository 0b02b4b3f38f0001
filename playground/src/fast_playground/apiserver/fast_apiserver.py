"""The command ``fast-apiserver``: flags, sockets and signals. What it runs lives in ``runtime``."""

from __future__ import annotations

import asyncio
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import structlog

from fast.errors import InvalidConfig
from fast_playground.apiserver.runtime import ApiServer
from fast_playground.default_signals import restore_default_signals

_MAX_PORT = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT`` or ``[V6]:PORT``. Raises InvalidConfig: It is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise InvalidConfig(f"{text!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


def open_socket(text: str) -> socket.socket:
    """Bind ``HOST:PORT``; port 0 takes a free one. Raises InvalidConfig: It is no address, or cannot be bound."""
    host, port = parse_address(text)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise InvalidConfig(f"cannot listen on {text}: {error}") from error
    opened.setblocking(False)
    return opened


def adopt_socket(descriptor: int) -> socket.socket:
    """Take over a listening socket that the starter made, maybe in another network namespace.

    Raises:
        InvalidConfig: The descriptor is no bound socket.
    """
    try:
        adopted = socket.socket(fileno=descriptor)
        adopted.getsockname()
    except OSError as error:
        raise InvalidConfig(f"file descriptor {descriptor} is no socket: {error}") from error
    adopted.setblocking(False)
    return adopted


def url_of(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def serve(server: ApiServer, sockets: Sequence[socket.socket], kubeconfig: Path | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    urls = [url_of(listening) for listening in sockets]
    try:
        await server.start(sockets)
        if kubeconfig is not None:
            server.write_admin_kubeconfig(kubeconfig, urls[0])
        click.echo(f"fast-apiserver is ready on {', '.join(urls)}")
        ended = [asyncio.create_task(stopping.wait()), asyncio.create_task(server.wait())]
        done, pending = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()
    finally:
        await server.stop()


def configure_logs() -> None:
    """Log to stderr: of stdout a starter reads one line, and the server would stop if the pipe is full.

    Failures are logged without the values of variables, some of which are secrets.
    """
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@click.command(context_settings={"auto_envvar_prefix": "FAST_APISERVER"})
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where it keeps all."
)
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="Serve there; port 0 takes a free one.")
@click.option(
    "--listen-fd", multiple=True, type=int, help="Serve on a listening socket passed as this descriptor."
)
@click.option("--tls-san", multiple=True, help="A further name or address for the server's certificate.")
@click.option(
    "--exec-command", default="", help="What enters a pod for kubectl exec: program and first arguments."
)
@click.option(
    "--kubeconfig-out", type=click.Path(dir_okay=False, path_type=Path), help="Write an admin's kubeconfig."
)
@click.option("--scheduler/--no-scheduler", default=True, help="Bind pods to nodes.")
def main(
    data_dir: Path,
    listen: tuple[str, ...],
    listen_fd: tuple[int, ...],
    tls_san: tuple[str, ...],
    exec_command: str,
    kubeconfig_out: Path | None,
    scheduler: bool,
) -> None:
    """Serve the Kubernetes API from one file, for playgrounds and tests. Not for production."""
    restore_default_signals()
    configure_logs()
    try:
        sockets = [open_socket(text) for text in listen] + [adopt_socket(number) for number in listen_fd]
        if not sockets:
            raise InvalidConfig("nowhere to listen: give --listen or --listen-fd")
        hosts = {listening.getsockname()[0] for listening in sockets} - {"0.0.0.0", "::"}  # noqa: S104
        server = ApiServer(
            data_dir,
            names=[*tls_san, *sorted(hosts)],
            exec_command=shlex.split(exec_command),
            scheduler=scheduler,
        )
    except (InvalidConfig, OSError) as error:
        raise click.ClickException(str(error)) from error
    asyncio.run(serve(server, sockets, kubeconfig_out))
