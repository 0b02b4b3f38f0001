"""What the tests of fast.kube share: informers that clean up, waiting without sleeping blindly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from fakes.nasty_server import NastyServer
from fast.api.ipendpoint import IpEndpoint
from fast.api.resources import IPENDPOINTS
from fast.kube import ClusterConfig, Informer, KubeClient
from fast.kube.informer import Timing

QUICK = Timing(watch=(30, 30), silence=0.6, backoff=(0.01, 0.05))

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
RunInformer = Callable[..., AbstractAsyncContextManager[Informer[IpEndpoint]]]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds, for at most 20 seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 -- conditions are plain state of many kinds
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def run_informer() -> RunInformer:
    """Runs an informer of IpEndpoints on a nasty server with quick timing; it must still be alive at the end."""

    @asynccontextmanager
    async def run(nasty: NastyServer, **options: Any) -> AsyncIterator[Informer[IpEndpoint]]:
        async with KubeClient(ClusterConfig(nasty.url)) as client:
            informer = Informer(client, IPENDPOINTS, **{"timing": QUICK, **options})
            task = asyncio.create_task(informer.run())
            try:
                yield informer
                assert not task.done(), "an informer never ends by itself"
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return run
