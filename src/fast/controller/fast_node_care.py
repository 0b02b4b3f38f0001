"""Looks after FastNodes whose agent is silent: not ready any more, and removed once their Node is gone.

Everything else in a FastNode is its own agent's to write. Frees no address: ``cluster_gc``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from fast.api.core import Node
from fast.api.fastnode import SILENT_SECONDS, FastNode, lease_name
from fast.api.meta import Condition
from fast.api.resources import FASTNODES, LEASES
from fast.api.timestamps import now_text
from fast.errors import Conflict, FastError, NotFound
from fast.kube import KubeClient

log = structlog.get_logger()

_READY = "Ready"
_REASON = "HeartbeatSilent"


class FastNodeCare:
    """One sweep looks at every FastNode; one that fails does not stop the others."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        fast_nodes: Mapping[str, FastNode],
        nodes: Mapping[str, Node],
        silent_seconds: Callable[[str], float],
    ) -> None:
        """Prepare; nothing is written before :meth:`run`.

        Args:
            client: Speaks to the server.
            namespace: Fast's, where the Leases are.
            fast_nodes: Every FastNode as seen now.
            nodes: Every Node as seen now.
            silent_seconds: For how long a node's Lease was not renewed.
        """
        self._client = client
        self._namespace = namespace
        self._fast_nodes = fast_nodes
        self._nodes = nodes
        self._silent_seconds = silent_seconds

    async def run(self, interval_seconds: float = SILENT_SECONDS / 3) -> None:
        """Sweep until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(interval_seconds)

    async def sweep(self) -> None:
        """Look at every FastNode once."""
        for name, node in list(self._fast_nodes.items()):
            if self._silent_seconds(name) <= SILENT_SECONDS:
                continue
            try:
                if name in self._nodes:
                    await self._mark(name, node)
                else:
                    await self._remove(name, node)
            except (NotFound, Conflict):
                continue  # it changed just now: the next sweep looks again
            except FastError as error:
                log.warning("silent FastNode not taken care of", node=name, error=str(error))

    async def _mark(self, name: str, node: FastNode) -> None:
        """Set Ready to Unknown; the other conditions are as the agent last wrote them."""
        before = node.status.conditions if node.status else []
        if any(item.type == _READY and item.reason == _REASON for item in before):
            return
        ready = Condition(
            type=_READY,
            status="Unknown",
            reason=_REASON,
            message=f"the node's agent has not renewed Lease {lease_name(name)} for {SILENT_SECONDS} s",
            last_transition_time=now_text(),
        )
        conditions = [ready, *(item for item in before if item.type != _READY)]
        patch = {
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        }
        await self._client.patch(FASTNODES, name, patch, subresource="status")
        log.warning("FastNode is silent", node=name)

    async def _remove(self, name: str, node: FastNode) -> None:
        await self._client.delete(
            FASTNODES, name, uid=node.metadata.uid, resource_version=node.metadata.resource_version
        )
        log.info("FastNode removed: its Node is gone, and its agent silent", node=name)
        await self._client.delete(LEASES, lease_name(name), self._namespace)
