"""Wires the controller together: informers, the queue, the reconciler and the garbage collection under one Lease."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import REGISTRY

from fast.api.core import Node
from fast.api.fastnode import lease_name
from fast.api.resources import FASTNODES, LEASES, NODES
from fast.controller.census import Census
from fast.controller.cluster_gc import ClusterCollector
from fast.controller.fast_node_care import FastNodeCare
from fast.controller.pool_reconciler import PoolReconciler
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.store.kube_store import KubeStore
from fast.ipam.store.live_reads import KubeCluster
from fast.kube import (
    Change,
    ClusterConfig,
    EventRecorder,
    Informer,
    KubeClient,
    LeaderElector,
    Silence,
    WorkQueue,
)
from fast.probes import ProbeServer

log = structlog.get_logger()

LEASE = "fast-controller-manager"
#: Changes of one pool within this time are one reconcile.
_DEBOUNCE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """Every option of the controller; names are those of the flags."""

    kubeconfig: Path | None
    namespace: str
    leader_elect: bool
    identity: str
    http_address: str
    gc_interval_seconds: float


class Controller:
    """The parts of the controller; they live as long as the process."""

    def __init__(self, client: KubeClient, config: ControllerConfig, metrics: IpamMetrics) -> None:
        self._client = client
        self._config = config
        self._metrics = metrics
        self._queue: WorkQueue[str] = WorkQueue()
        self._events = EventRecorder(client, LEASE)
        self._store = KubeStore(client)
        self._nodes = Informer(client, NODES)
        self._census = Census(self._store, lambda pool: self._queue.add_after(pool, _DEBOUNCE_SECONDS))
        self._leases = Informer(client, LEASES, namespace=config.namespace)
        silence = Silence(self._leases)
        self._fast_nodes = Informer(client, FASTNODES)
        self._care = FastNodeCare(
            client,
            config.namespace,
            self._fast_nodes.cache,
            self._nodes.cache,
            lambda node: silence.seconds(lease_name(node)),
        )
        cluster = KubeCluster(client, lambda node: silence.seconds(lease_name(node)))
        self._collector = ClusterCollector(
            self._store, cluster, self._events, self._queue, metrics, config.gc_interval_seconds
        )
        self._nodes.add_handler(self._collector.node_changed)
        self._nodes.add_handler(self._node_changed)
        self._store.subscribe(self._collector.record_changed, self._collector.pool_changed)

    async def run(self) -> None:
        """Run until cancelled: the views always, the work while this process leads."""
        server = ProbeServer(self._config.http_address, self._not_ready, self._update_gauges)
        await server.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._store.run())
                group.create_task(self._nodes.run())
                group.create_task(self._leases.run())
                group.create_task(self._fast_nodes.run())
                group.create_task(self._lead())
        finally:
            await self._events.close()
            await server.stop()

    async def _lead(self) -> None:
        await self._store.wait_synced()
        await self._nodes.wait_synced()
        if not self._config.leader_elect:
            await self._work()
            return
        elector = LeaderElector(self._client, self._config.namespace, LEASE, self._config.identity)
        await elector.run(self._work)

    async def _work(self) -> None:
        """What only the leader does. Cancelled when leadership is lost."""
        reconciler = PoolReconciler(
            self._client, self._store, self._census, self._events, self._queue, self._collector.stopped
        )
        for pool in self._store.pools:
            self._queue.add(pool)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(reconciler.reconcile, workers=4))
            group.create_task(self._collector.run())
            group.create_task(self._care.run())

    def _node_changed(self, change: Change[Node]) -> None:
        addresses = change.new.addresses if change.new is not None else ()
        self._census.reserve(f"node {change.current.metadata.name}", addresses)

    def _not_ready(self) -> str:
        return "" if self._store.synced else "records and pools have not been read from the API server yet"

    def _update_gauges(self) -> None:
        self._metrics.count_pools({name: self._census.counts(name) for name in self._store.pools})


async def run_controller(config: ControllerConfig) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Raises:
        InvalidConfig: No way to the API server, or the HTTP address cannot be listened on.
    """
    async with KubeClient(ClusterConfig.load(config.kubeconfig), user_agent=LEASE) as client:
        work = asyncio.ensure_future(Controller(client, config, IpamMetrics(REGISTRY)).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            log.info("stopped")


def default_identity() -> str:
    """Name this process among the candidates for the Lease: the pod's name and the process's number."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{os.getpid()}"
