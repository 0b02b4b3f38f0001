"""The Node object of a playground's node: registered once, and Ready exactly while pods can get a network."""

from __future__ import annotations

import asyncio
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from fast import __version__
from fast.api.meta import ObjectMeta
from fast.errors import Conflict, FastError
from fast.kube import KubeClient
from fast_playground.cluster.plugins import PluginError, PluginRunner, find_network
from fast_playground.cluster.pod_types import NODES, Node
from fast_playground.cluster.sandbox import current_boot_id

log = structlog.get_logger()

_PROBE_SECONDS_UNREADY, _PROBE_SECONDS_READY = 0.25, 2.0
_HEARTBEAT_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_PODS = "110"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class NodeReporter:
    """Registers the node and keeps its conditions up to date.

    Args:
        client: Client of the API server, with the node's identity.
        name: Of the node.
        addresses: Its InternalIPs, in order.
        plugins: Asked by STATUS whether pods can be attached.
        network_dir: Where the network configuration appears once the agent is ready.
    """

    def __init__(
        self, client: KubeClient, name: str, addresses: list[str], plugins: PluginRunner, network_dir: Path
    ) -> None:
        self._client = client
        self._name = name
        self._addresses = addresses
        self._plugins = plugins
        self._network_dir = network_dir
        self._conditions: dict[str, dict[str, Any]] = {}

    async def run(self) -> None:
        """Report until cancelled; retry if the API server does not answer."""
        loop = asyncio.get_running_loop()
        said: tuple[bool, str] | None = None
        said_at = 0.0
        while True:
            try:
                problem = await self._network_problem()
                fact = (not problem, problem)
                if fact != said or loop.time() - said_at > _HEARTBEAT_SECONDS:
                    if said is None:
                        await self._register()
                    await self._report(problem)
                    said, said_at = fact, loop.time()
                await asyncio.sleep(_PROBE_SECONDS_UNREADY if problem else _PROBE_SECONDS_READY)
            except FastError as error:
                log.warning("node status could not be written", node=self._name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _network_problem(self) -> str:
        """Return why pods cannot be attached; empty if they can."""
        try:
            network = find_network(self._network_dir)
            if network is None:
                raise PluginError("cni plugin not initialized")
            await self._plugins.status(network)
        except FastError as error:
            return (
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"
                f" message:Network plugin returns error: {error}"
            )
        return ""

    async def _register(self) -> None:
        arch = _ARCHITECTURES.get(platform.machine(), platform.machine())
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
        }
        try:
            await self._client.create(NODES, Node(metadata=ObjectMeta(name=self._name, labels=labels)))
        except Conflict as error:
            if not error.already_exists:
                raise

    async def _report(self, problem: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = (
            ("KubeletNotReady", problem) if problem else ("KubeletReady", "kubelet is posting ready status")
        )
        conditions = [
            self._condition("MemoryPressure", False, "KubeletHasSufficientMemory", "", now),
            self._condition("DiskPressure", False, "KubeletHasNoDiskPressure", "", now),
            self._condition("PIDPressure", False, "KubeletHasSufficientPID", "", now),
            self._condition("Ready", not problem, *ready, now),
        ]
        resources = {"cpu": str(os.cpu_count() or 1), "memory": f"{_memory_kib()}Ki", "pods": _PODS}
        status = {
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in self._addresses),
                {"type": "Hostname", "address": self._name},
            ],
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "nodeInfo": _node_info(),
        }
        await self._client.patch(NODES, self._name, {"status": status}, subresource="status")

    def _condition(self, kind: str, holds: bool, reason: str, message: str, now: str) -> dict[str, Any]:
        status = "True" if holds else "False"
        before = self._conditions.get(kind)
        changed = now if before is None or before["status"] != status else before["lastTransitionTime"]
        condition = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": changed,
        }
        self._conditions[kind] = condition
        return condition


def _memory_kib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024


def _node_info() -> dict[str, str]:
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "bootID": current_boot_id(),
        "containerRuntimeVersion": f"playground://{__version__}",
        "kernelVersion": platform.release(),
        "kubeProxyVersion": "",
        "kubeletVersion": f"v{__version__}-playground",
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "Fast playground",
        "systemUUID": "",
    }
