"""Updates a node's translation of Services when Services or pods change. It takes the place of kube-proxy."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from fast.kube import Informer, KubeClient
from fast_playground.cluster.service_rules import BACKENDS, NOTHING, SERVICES, render

log = structlog.get_logger()

_SETTLE_SECONDS = 0.05
_RETRY_SECONDS = 2.0


class ServiceProxy:
    """Writes one nftables table when a change of a Service or pod concerns it.

    Args:
        client: Client of the API server, with the node's identity.
    """

    def __init__(self, client: KubeClient) -> None:
        self._services = Informer(client, SERVICES)
        self._pods = Informer(client, BACKENDS)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled. If nft refuses the table, log it and retry."""
        informers = (self._services, self._pods)
        following = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            for informer in informers:
                await informer.wait_synced()
                informer.add_handler(lambda _: self._changed.set())
            written = NOTHING
            while True:
                self._changed.clear()
                script = render(self._services.cache.values(), self._pods.cache.values())
                done = script == written or await _apply(script)
                written = script if done else written
                await self._wait(None if done else _RETRY_SECONDS)
        finally:
            for task in following:
                task.cancel()

    async def _wait(self, seconds: float | None) -> None:
        """Wait up to ``seconds`` for a change, then a moment for those that follow."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
            await asyncio.sleep(_SETTLE_SECONDS)


async def _apply(script: str) -> bool:
    """Replace the table; False if nft refuses."""
    pipe = asyncio.subprocess.PIPE
    nft = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=pipe, stderr=pipe)
    _, said = await nft.communicate(script.encode())
    if nft.returncode:
        log.warning("Services cannot be translated", error=said.decode(errors="replace").strip())
    return nft.returncode == 0
