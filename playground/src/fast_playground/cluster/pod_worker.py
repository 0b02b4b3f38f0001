"""Runs one pod on a node: sandbox, ADD, processes, status, and on deletion the reverse. There is one task per pod.

Reconciles from the newest Pod object, never from an event's content. Every failure is retried until the pod is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from fast.errors import Conflict, FastError, KubeError, NotFound
from fast.kube import EventRecorder, KubeClient
from fast_playground.cluster.containers import ContainerProcesses
from fast_playground.cluster.plugins import Attachment, Json, Network, PluginError, PluginRunner, find_network
from fast_playground.cluster.pod_root import start_pause, stop_pause
from fast_playground.cluster.pod_status import sandbox_status, waiting_status
from fast_playground.cluster.pod_types import PODS, Pod
from fast_playground.cluster.sandbox import (
    Sandbox,
    SandboxRecords,
    current_boot_id,
    is_running,
    make_netns,
    remove_netns,
)

log = structlog.get_logger()

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 8.0
_RESTART_SECONDS = 1.0


@dataclass(frozen=True)
class Machinery:
    """The objects that the workers of a node share."""

    client: KubeClient
    events: EventRecorder
    plugins: PluginRunner
    processes: ContainerProcesses
    records: SandboxRecords
    network_dir: Path
    node_ip: str

    def network(self) -> Network:
        """Read the network configuration; PluginError if there is none."""
        network = find_network(self.network_dir)
        if network is None:
            raise PluginError("cni plugin not initialized")
        return network


class PodWorker:
    """Runs one pod (one UID) until nothing of it is left.

    Args:
        machinery: Shared by all workers of the node.
        uid: The pod's.
        sandbox: One that was found on the node's disk.
    """

    def __init__(self, machinery: Machinery, uid: str, sandbox: Sandbox | None = None) -> None:
        self._with = machinery
        self._uid = uid
        self._pod: Pod | None = None
        self._last: Pod | None = None
        self._sandbox = sandbox
        self._exits: dict[str, int] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._published: Json | None = None
        self._changed = asyncio.Event()

    def update(self, pod: Pod | None) -> None:
        """Set the pod's newest state; None: the API server no longer has it."""
        self._pod = pod
        self._last = pod or self._last
        self._changed.set()

    async def run(self) -> None:
        """Work until nothing of the pod is left on the node."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            self._changed.clear()
            try:
                if await self._reconcile():
                    return
                delay, wait = _FIRST_RETRY_SECONDS, None
            except (FastError, OSError) as error:
                log.warning(
                    "pod not reconciled, will retry", pod=self._name, error=str(error), retry_in=delay
                )
                wait = delay
                delay = min(delay * 2, _LONGEST_RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)

    @property
    def _name(self) -> str:
        if self._last is not None:
            return self._last.metadata.key
        return f"{self._sandbox.namespace}/{self._sandbox.name}" if self._sandbox else self._uid

    async def _reconcile(self) -> bool:
        """Bring the pod one step closer to its spec; True if nothing is left of it."""
        pod = self._pod
        if pod is None or pod.terminating:
            await self._tear_down(pod)
            return True
        if pod.finished:
            if self._sandbox is not None:
                await self._remove_sandbox()
            return False
        if self._sandbox is not None and not self._sandbox.complete:
            await self._remove_sandbox()
        if self._sandbox is None:
            await self._publish(pod, waiting_status(pod, self._with.node_ip, _now()))
            self._sandbox = await self._make_sandbox(pod)
        self._ensure_processes(pod, self._sandbox)
        await self._publish(pod, sandbox_status(pod, self._sandbox, self._exits, self._with.node_ip, _now()))
        return False

    # Sandbox.

    async def _make_sandbox(self, pod: Pod) -> Sandbox:
        meta = pod.metadata
        netns = "" if pod.spec.host_network else str(await asyncio.to_thread(make_netns))
        sandbox = Sandbox(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            container_id=secrets.token_hex(32),
            netns=netns,
            pause=await asyncio.to_thread(start_pause, meta.name, netns),
            boot_id=current_boot_id(),
            created_at=_now(),
        )
        self._with.records.write(sandbox)  # written first, so that a crash leaves no unrecorded attachment
        if netns:
            try:
                sandbox.result = await self._with.plugins.add(self._with.network(), _attachment(sandbox, pod))
                if not sandbox.has_network:
                    raise PluginError("ADD gave no address")
            except FastError as error:
                message = f"Failed to create pod sandbox: {error}"
                self._with.events.event(pod.reference, "Warning", "FailedCreatePodSandBox", message)
                self._sandbox = sandbox  # so that the next attempt begins with DEL, as the spec requires
                await self._remove_sandbox()
                raise
            self._with.records.write(sandbox)
        return sandbox

    async def _remove_sandbox(self) -> None:
        """Take the sandbox down: DEL, namespace, record. PluginError if DEL must be retried."""
        sandbox = self._sandbox
        assert sandbox is not None
        if sandbox.netns:
            attachment = _attachment(sandbox, self._last)
            try:
                await self._with.plugins.delete(self._with.network(), attachment, sandbox.result)
            except PluginError as error:
                if self._last is not None:
                    message = f"error killing pod: {error}"
                    self._with.events.event(self._last.reference, "Warning", "FailedKillPod", message)
                raise
            await asyncio.to_thread(remove_netns, Path(sandbox.netns))
        if sandbox.pause is not None:
            await asyncio.to_thread(stop_pause, sandbox.pause)
        self._with.records.remove(sandbox.uid)
        self._sandbox = None

    async def _tear_down(self, pod: Pod | None) -> None:
        if self._sandbox is not None:
            grace = float(pod.metadata.deletion_grace_period_seconds or 0) if pod is not None else 0.0
            await self._stop_watchers()
            running = [
                self._with.processes.stop(record, grace) for record in self._sandbox.processes.values()
            ]
            await asyncio.gather(*running)
            await self._remove_sandbox()
        if pod is not None:
            with contextlib.suppress(NotFound, Conflict):
                await self._with.client.delete(
                    PODS, pod.metadata.name, pod.metadata.namespace, uid=self._uid, grace_period_seconds=0
                )

    # Processes.

    def _ensure_processes(self, pod: Pod, sandbox: Sandbox) -> None:
        """Start the processes that are missing, and watch those that run (also after a kubelet restart)."""
        watched = {task.get_name() for task in self._watchers}
        for container in pod.spec.containers:
            if container.name in watched or container.name in self._exits:
                continue
            record = sandbox.processes.get(container.name)
            if record is None or not is_running(record):
                sandbox.processes[container.name] = self._with.processes.start(
                    pod, container, sandbox, _now()
                )
                self._with.records.write(sandbox)
            task = asyncio.create_task(self._watch(container.name, sandbox), name=container.name)
            self._watchers.add(task)
            task.add_done_callback(self._watchers.discard)

    async def _watch(self, container: str, sandbox: Sandbox) -> None:
        """Wait until the container ends, then apply the pod's restart policy."""
        status = await self._with.processes.wait(sandbox.processes[container])
        policy = self._last.spec.restart_policy if self._last else "Never"
        if policy == "Always" or (policy == "OnFailure" and status != 0):
            sandbox.restarts[container] = sandbox.restarts.get(container, 0) + 1
            del sandbox.processes[container]
            await asyncio.sleep(_RESTART_SECONDS)
        else:
            self._exits[container] = status
        self._with.records.write(sandbox)
        self._changed.set()

    async def _stop_watchers(self) -> None:
        tasks = list(self._watchers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Status.

    async def _publish(self, pod: Pod, status: Json) -> None:
        """Write the status if anything but its times has changed."""
        if self._published is not None and _same(self._published, status):
            return
        try:
            patch = {"metadata": {"uid": self._uid}, "status": status}
            await self._with.client.patch(
                PODS, pod.metadata.name, patch, pod.metadata.namespace, subresource="status"
            )
        except (NotFound, Conflict):
            return  # the pod of this UID is gone; the informer will report it
        except KubeError:
            self._published = None
            raise
        self._published = status


def _attachment(sandbox: Sandbox, pod: Pod | None) -> Attachment:
    ports = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.lower(),
            "hostIP": port.host_ip,
        }
        for container in (pod.spec.containers if pod is not None else ())
        for port in container.ports
        if port.host_port
    ]
    return Attachment(
        container_id=sandbox.container_id,
        netns=sandbox.netns if Path(sandbox.netns).exists() else "",
        arguments={
            "K8S_POD_NAMESPACE": sandbox.namespace,
            "K8S_POD_NAME": sandbox.name,
            "K8S_POD_INFRA_CONTAINER_ID": sandbox.container_id,
            "K8S_POD_UID": sandbox.uid,
        },
        capabilities={"portMappings": ports} if ports else {},
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _same(one: Json, other: Json) -> bool:
    return _without_times(one) == _without_times(other)


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        times = ("lastTransitionTime", "startTime", "finishedAt")
        return {key: _without_times(item) for key, item in value.items() if key not in times}
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    return value
