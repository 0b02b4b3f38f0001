"""Plays kubelet, container runtime and kube-proxy on a node of a playground, inside the node's namespaces.

``python -m fast_playground.cluster.kubelet``. Watches the pods bound to the node and gives each to a ``PodWorker``;
decisions about a single pod are made there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from fast.kube import Change, ClusterConfig, EventRecorder, Informer, KubeClient
from fast_playground.cluster.containers import ContainerProcesses
from fast_playground.cluster.node_status import NodeReporter
from fast_playground.cluster.plugins import PluginRunner
from fast_playground.cluster.pod_types import PODS, Pod
from fast_playground.cluster.pod_worker import Machinery, PodWorker
from fast_playground.cluster.sandbox import SandboxRecords
from fast_playground.cluster.service_proxy import ServiceProxy

CNI_BIN_DIR = Path("/opt/cni/bin")
CNI_CONF_DIR = Path("/etc/cni/net.d")

log = structlog.get_logger()


class Kubelet:
    """The pods of one node.

    Args:
        client: Client of the API server, with the node's identity.
        node: The node's name.
        machinery: What the workers share.
    """

    def __init__(self, client: KubeClient, node: str, machinery: Machinery) -> None:
        self._machinery = machinery
        self._informer = Informer(client, PODS, field_selector=f"spec.nodeName={node}")
        self._workers: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until cancelled. Sandboxes that an earlier kubelet left are adopted or, without a pod, taken down."""
        follow = asyncio.create_task(self._informer.run())
        try:
            await self._informer.wait_synced()
            known = {pod.metadata.uid for pod in self._informer.cache.values()}
            for sandbox in self._machinery.records.read():
                self._start(PodWorker(self._machinery, sandbox.uid, sandbox), sandbox.uid)
                if sandbox.uid not in known:
                    self._workers[sandbox.uid].update(None)
            self._informer.add_handler(self._changed)
            await follow
        finally:
            follow.cancel()
            for task in self._tasks:
                task.cancel()

    def _changed(self, change: Change[Pod]) -> None:
        pod = change.current
        uid = pod.metadata.uid
        if uid not in self._workers:
            if change.new is None or (pod.finished and not pod.terminating):
                return
            self._start(PodWorker(self._machinery, uid), uid)
        self._workers[uid].update(change.new)

    def _start(self, worker: PodWorker, uid: str) -> None:
        self._workers[uid] = worker
        task = asyncio.create_task(worker.run(), name=f"pod {uid}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, uid))

    def _ended(self, task: asyncio.Task[None], uid: str) -> None:
        self._tasks.discard(task)
        del self._workers[uid]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod worker failed", pod=uid, exc_info=error)
            os._exit(1)  # the state on disk is complete; a restart continues from it


async def _serve(node: str, addresses: list[str]) -> None:
    config = ClusterConfig.load()
    async with KubeClient(config, user_agent="fast-playground-kubelet") as client:
        events = EventRecorder(client, "kubelet", host=node)
        plugins = PluginRunner([CNI_BIN_DIR])
        machinery = Machinery(
            client=client,
            events=events,
            plugins=plugins,
            processes=ContainerProcesses(),
            records=SandboxRecords(),
            network_dir=CNI_CONF_DIR,
            node_ip=addresses[0],
        )
        reporter = NodeReporter(client, node, addresses, plugins, CNI_CONF_DIR)
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        kubelet, proxy = Kubelet(client, node, machinery), ServiceProxy(client)
        await asyncio.gather(reporter.run(), kubelet.run(), proxy.run())


def main() -> None:
    """Run until SIGTERM; the pods keep running. The server and identity come from KUBECONFIG."""
    parser = argparse.ArgumentParser(prog="fast_playground.cluster.kubelet")
    parser.add_argument("--node", required=True, help="name of the node")
    parser.add_argument("--address", required=True, action="append", help="its InternalIPs, in order")
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options.node, options.address))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.exit(0)


if __name__ == "__main__":
    main()
