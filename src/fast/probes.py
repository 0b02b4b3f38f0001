"""What agent and controller serve for probes and Prometheus (/healthz, /readyz, /metrics). Not what they say there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, disable_created_metrics, generate_latest

from fast.errors import InvalidConfig

log = structlog.get_logger()


class ProbeServer:
    """Serves the endpoints until stopped.

    Args:
        address: ``HOST:PORT``; IPv6 hosts in brackets.
        not_ready: Says why the process is not ready; empty where it is.
        before_scrape: Brings gauges up to date.
    """

    def __init__(
        self, address: str, not_ready: Callable[[], str], before_scrape: Callable[[], None] = lambda: None
    ) -> None:
        self._host, self._port = parse_listen_address(address)
        self._not_ready = not_ready
        self._before_scrape = before_scrape
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            InvalidConfig: The address cannot be listened on.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise InvalidConfig(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        log.info("serving metrics and probes", address=f"{self._host}:{self._port}")

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """That this answers at all is the health: the event loop turns."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._not_ready()
        return web.Response(status=503, text=f"{reason}\n") if reason else web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        self._before_scrape()
        body = await asyncio.to_thread(generate_latest, REGISTRY)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def parse_listen_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``.

    Raises:
        InvalidConfig: It is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) >= 1 << 16:
        raise InvalidConfig(f"{text!r} is no HOST:PORT to listen on")
    return host.strip("[]"), int(port)
