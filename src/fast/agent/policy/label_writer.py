"""Keeps the labels and named ports in this node's records as its pods have them: policies elsewhere select by them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import msgspec
import structlog

from fast.api.core import Pod
from fast.api.ipendpoint import IpEndpoint
from fast.errors import KubeError
from fast.ipam.rules.claim_request import named_ports

log = structlog.get_logger()

_RETRY_SECONDS = 2.0


class LabelWriter:
    """Writes the records whose labels differ from their pod's.

    Args:
        pods: This node's pods, by ``namespace/name``.
        records_of: The records that a pod's sandboxes hold, by the pod's UID.
        replace: Compare and swap of a record.
    """

    def __init__(
        self,
        pods: Mapping[str, Pod],
        records_of: Callable[[str], Collection[IpEndpoint]],
        replace: Callable[[IpEndpoint], Awaitable[IpEndpoint]],
    ) -> None:
        self._pods = pods
        self._records_of = records_of
        self._replace = replace
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def pod_changed(self, key: str) -> None:
        """Look at the pod of that ``namespace/name`` soon."""
        self._changed.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; begins with every pod."""
        self._changed.update(self._pods)
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            failed = {key for key in changed if not await self._write(key)}
            if failed:
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed |= failed
                self._wake.set()

    async def _write(self, key: str) -> bool:
        """Write the pod's records; False if that is to be tried again."""
        pod = self._pods.get(key)
        if pod is None:
            return True
        labels, ports = pod.metadata.labels, named_ports(pod)
        for record in list(self._records_of(pod.sandbox_uid)):
            if record.spec.pod_labels == labels and record.spec.named_ports == ports:
                continue
            spec = msgspec.structs.replace(record.spec, pod_labels=dict(labels), named_ports=ports)
            try:
                await self._replace(IpEndpoint(metadata=record.metadata, spec=spec))
            except KubeError as error:  # it changed meanwhile, or the API server is away
                log.debug("labels not written", address=record.metadata.name, error=str(error))
                return False
        return True
