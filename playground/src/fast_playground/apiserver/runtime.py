"""The server as a whole: storage, controllers, access and listening sockets, put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import structlog
from aiohttp import web

from fast_playground.apiserver.access import AccessControl, Authority, TokenStore, write_kubeconfig
from fast_playground.apiserver.api import ApiError
from fast_playground.apiserver.exec import PodExec
from fast_playground.apiserver.kinds import NAMESPACES
from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.server import Handler
from fast_playground.apiserver.storage import Store
from fast_playground.apiserver.workloads import run_workloads

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
#: How long a connection may take for its handshake, and for the next request's headers.
_HANDSHAKE_SECONDS, _IDLE_SECONDS = 10.0, 60.0
_SHUTDOWN_SECONDS = 5.0
#: How long the rest of a refused body is taken, so that its sender reads the answer.
_LINGER_SECONDS = 2.0
log = structlog.get_logger()


class ApiServer:
    """The embedded API server, in this process.

    Args:
        data_dir: Holds the database, certificates and tokens; made if it is missing.
        names: Host names and addresses clients call it by, beyond localhost.
        exec_command: What enters a pod for ``kubectl exec``; empty: not supported.
        scheduler: Whether it binds pods to nodes.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        names: Sequence[str] = (),
        exec_command: Sequence[str] = (),
        scheduler: bool = True,
    ) -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.authority = Authority(data_dir / "pki")
        self.tokens = TokenStore(data_dir / "tokens.json")
        self.store = Store(data_dir / "objects.sqlite")
        self.verbs = Verbs(self.store, Registry())
        self.access = AccessControl(self.tokens)
        self._tls = self.authority.server_context(names)
        self._handler = Handler(self.verbs, self.access, PodExec(self.verbs, exec_command))
        self._scheduler = scheduler
        self._server: web.Server | None = None
        self._listening: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on these bound sockets, which then belong to the server, until ``stop``."""
        self._tasks.append(asyncio.create_task(self.store.run(), name="store"))
        for name in _NAMESPACES:
            with contextlib.suppress(ApiError):  # it is there already
                await self.verbs.create(
                    NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                )
        await self.access.start(self.verbs)
        self._tasks.append(asyncio.create_task(self.access.follow(self.verbs), name="access policy"))
        workloads = run_workloads(self.verbs, self.verbs.registry, scheduler=self._scheduler)
        self._tasks.append(asyncio.create_task(workloads, name="workloads"))
        self._server = web.Server(
            self._handler,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
        )
        for listening in sockets:
            serving = await asyncio.get_running_loop().create_server(
                self._server,
                sock=listening,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                backlog=1024,
            )
            self._listening.append(serving)

    async def wait(self) -> None:
        """Return when a part of it failed, with that part's error."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stop answering, end the watches, finish the writes under way, and close everything."""
        for listening in self._listening:
            listening.close()
        for task in self._tasks[1:]:  # the store's followers, before their watches end
            task.cancel()
        self.store.end_watches()
        if self._server is not None:
            self._server.pre_shutdown()  # else the shutdown waits for idle connections
            await self._server.shutdown(_SHUTDOWN_SECONDS)
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()

    def write_admin_kubeconfig(self, path: Path, url: str) -> None:
        """Write a kubeconfig that may do everything; mode 0600.

        Args:
            path: Where to.
            url: Where the server listens.
        """
        token = self.tokens.ensure_identity("fast-admin", ["system:masters"])
        write_kubeconfig(path, server=url, ca_pem=self.authority.ca_pem, user="fast-admin", token=token)
