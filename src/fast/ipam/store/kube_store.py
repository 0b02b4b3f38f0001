"""The store on a Kubernetes API server: two informers for the view, the client for writes. No decisions."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Mapping

import msgspec
import structlog

from fast.api.ipendpoint import IpEndpoint, PodPort
from fast.api.ips import Ips
from fast.api.resources import IPENDPOINTS, IPSES
from fast.errors import KubeError, NotFound
from fast.ipam.rules.sticky_keys import LABEL_STICKY_KEY, sticky_labels
from fast.ipam.store.record_store import EndpointChange, PoolChange
from fast.ipam.store.record_view import EndpointView
from fast.kube import Change, Informer, KubeClient

log = structlog.get_logger()

_SETTLE_EVERY_SECONDS = 10.0
#: How long the watch may take to show a write of this process.
SETTLE_AFTER_SECONDS = 30.0


class KubeStore:
    """IpEndpoints and Ipses of a cluster.

    :meth:`run` must be running (a task), and :meth:`wait_synced` have returned, before the view is relied upon.

    Args:
        client: The cluster.
        clock: Monotonic seconds.
    """

    def __init__(self, client: KubeClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._view = EndpointView(clock)
        self._pool_subscribers: list[Callable[[PoolChange], None]] = []
        self.endpoint_informer = Informer(client, IPENDPOINTS, transform=compact)
        self.pool_informer = Informer(client, IPSES)
        self.endpoint_informer.add_handler(self._endpoint_changed)
        self.pool_informer.add_handler(self._pool_changed)

    @property
    def endpoints(self) -> Mapping[str, IpEndpoint]:
        """Records by name: the watch's, and over them what this process wrote since."""
        return self._view.endpoints

    @property
    def pools(self) -> Mapping[str, Ips]:
        """Pools by name."""
        return self.pool_informer.cache

    @property
    def synced(self) -> bool:
        """Whether records and pools were listed."""
        return self.endpoint_informer.synced and self.pool_informer.synced

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.endpoint_informer.run())
            group.create_task(self.pool_informer.run())
            group.create_task(self._keep_settling())

    async def wait_synced(self) -> None:
        """Wait until records and pools were listed."""
        await self.pool_informer.wait_synced()
        await self.endpoint_informer.wait_synced()

    def subscribe(
        self, endpoint: Callable[[EndpointChange], None], pool: Callable[[PoolChange], None]
    ) -> None:
        """Call the functions for every change of the view from now on."""
        self._view.subscribe(endpoint)
        self._pool_subscribers.append(pool)

    async def create(self, endpoint: IpEndpoint) -> IpEndpoint:
        """See :class:`fast.ipam.store.record_store.Store`."""
        with self._view.asking() as gone:
            created = compact(await self._client.create(IPENDPOINTS, endpoint))
            self._view.answered(created, gone)
        return created

    async def replace(self, endpoint: IpEndpoint) -> IpEndpoint:
        """See :class:`fast.ipam.store.record_store.Store`."""
        with self._view.asking() as gone:
            try:
                replaced = compact(await self._client.update(IPENDPOINTS, endpoint))
            except NotFound:
                self._view.removed(endpoint, gone)
                raise
            self._view.answered(replaced, gone)
        return replaced

    async def delete(self, endpoint: IpEndpoint) -> None:
        """See :class:`fast.ipam.store.record_store.Store`."""
        meta = endpoint.metadata
        with self._view.asking() as gone:
            try:
                await self._client.delete(
                    IPENDPOINTS, meta.name, uid=meta.uid, resource_version=meta.resource_version
                )
            except NotFound:
                self._view.removed(endpoint, gone)
                raise
            self._view.removed(endpoint, gone)

    async def refresh(self, name: str) -> IpEndpoint | None:
        """See :class:`fast.ipam.store.record_store.Store`."""
        known = self._view.endpoints.get(name)
        with self._view.asking() as gone:
            try:
                self._view.answered(compact(await self._client.get(IPENDPOINTS, name)), gone)
            except NotFound:
                if known is not None:
                    self._view.removed(known, gone)
        return self._view.endpoints.get(name)

    async def names_in_pool(self, pool: str) -> Collection[str]:
        """See :class:`fast.ipam.store.record_store.Store`."""
        listed = await self._client.list(IPENDPOINTS, field_selector=f"spec.pool={pool}")
        return {item.metadata.name for item in listed.items} | listed.undecodable.keys()

    async def refresh_sticky(self, *keys: str) -> None:
        """See :class:`fast.ipam.store.record_store.Store`."""
        values = sorted({sticky_labels(key)[LABEL_STICKY_KEY] for key in keys})
        selector = f"{LABEL_STICKY_KEY} in ({','.join(values)})"
        with self._view.asking() as gone:
            for found in (await self._client.list(IPENDPOINTS, label_selector=selector)).items:
                self._view.answered(compact(found), gone)

    async def settle(self) -> None:
        """Read live what this process knows better than the watch, though the watch should have shown it long ago.

        A record that was created by us and deleted by others between two lists of the informer is in no event;
        without this it would stay in the view for ever.

        Raises:
            KubeError: The API server refused or is away.
        """
        for name in self._view.unconfirmed(SETTLE_AFTER_SECONDS):
            if await self.refresh(name) is None and name not in self.endpoint_informer.cache:
                self._view.forget(name)

    async def _keep_settling(self) -> None:
        while True:
            await asyncio.sleep(_SETTLE_EVERY_SECONDS)
            try:
                await self.settle()
            except KubeError as error:
                log.debug("own writes not confirmed", error=str(error))

    def _endpoint_changed(self, change: Change[IpEndpoint]) -> None:
        self._view.observed(change.old, change.new)

    def _pool_changed(self, change: Change[Ips]) -> None:
        for subscriber in self._pool_subscribers:
            subscriber(PoolChange(change.old, change.new))


#: Label sets and port lists that many records have: each set once. They are cleared when they have grown odd.
_LABELS: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
_PORTS: dict[tuple[PodPort, ...], tuple[PodPort, ...]] = {}
_MOST_SHARED = 20_000


def _shared(labels: dict[str, str]) -> dict[str, str]:
    """Return an equal dictionary that other records may have, too: nobody changes it."""
    if len(_LABELS) > _MOST_SHARED:  # of pods that are gone, or each with labels of its own
        _LABELS.clear()
        _PORTS.clear()
    return _LABELS.setdefault(tuple(labels.items()), labels)


def compact(endpoint: IpEndpoint) -> IpEndpoint:
    """Give the record with what repeats over records held once: 100,000 of them must fit into an agent."""
    spec = endpoint.spec
    shared = msgspec.structs.replace(
        spec,
        pool=sys.intern(spec.pool),
        node=sys.intern(spec.node),
        boot_id=sys.intern(spec.boot_id),
        interface=sys.intern(spec.interface),
        pod_labels=_shared({sys.intern(key): sys.intern(value) for key, value in spec.pod_labels.items()}),
        named_ports=_PORTS.setdefault(spec.named_ports, spec.named_ports) if spec.named_ports else (),
    )
    return IpEndpoint(metadata=endpoint.metadata, spec=shared)
