"""Keeps the node's datapath up: brings it up at start, verifies it regularly, applies changed pod subnets.

It is verified at once if the kernel reports a change that concerns it (``fast.datapath.node.kernel_watch``). What
blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import structlog
from prometheus_client import Counter

from fast.agent.readiness import Readiness
from fast.agent.repairs import count_repairs
from fast.datapath.node.kernel_watch import KernelWatch
from fast.datapath.node.node_datapath import NodeDatapath
from fast.datapath.pod.identity import Endpoint, EndpointSpec
from fast.errors import AgentUnavailable, FastError
from fast.net import IPNetwork

log = structlog.get_logger()

CONDITION = "datapath"

#: The least time between two verifications that the kernel's reports cause: repeated changes must not make a busy loop.
_LEAST_SECONDS = 1.0

_FAILURES = Counter("fast_datapath_failures", "Attempts to bring up or verify the datapath that failed.")


class DatapathKeeper:
    """The datapath for the verbs (``fast.cni.dependencies.Datapath``), and the loop that keeps it up."""

    def __init__(
        self,
        datapath: NodeDatapath,
        readiness: Readiness,
        *,
        verify_interval_seconds: float,
        came_up: Callable[[], None],
    ) -> None:
        """Prepare; nothing is touched before :meth:`run`.

        Args:
            datapath: The node's.
            readiness: Told about condition ``datapath``.
            verify_interval_seconds: Between two verifications.
            came_up: Called, in the event loop, each time the datapath comes up after it was not.
        """
        self.datapath = datapath
        self.up = asyncio.Event()
        self._readiness = readiness
        self._interval_seconds = verify_interval_seconds
        self._came_up = came_up
        self._subnets: frozenset[IPNetwork] | None = None
        self._subnets_changed = False
        self._woken = asyncio.Event()
        self._verified_at = 0.0

    def set_pod_subnets(self, subnets: frozenset[IPNetwork]) -> None:
        """Set the subnets of all pools; they are applied soon."""
        if subnets != self._subnets:
            self._subnets = subnets
            self._subnets_changed = True
            self._woken.set()

    def set_verify_interval(self, seconds: float) -> None:
        """Verify at once, and then that often."""
        self._interval_seconds = seconds
        self._woken.set()

    async def run(self) -> None:
        """Keep the datapath up for ever."""
        with self._woken_by_the_kernel():
            await self._keep()

    @contextlib.contextmanager
    def _woken_by_the_kernel(self) -> Iterator[None]:
        """Verify soon after a report of the kernel: until then, pods' packets may be lost, or leave unencrypted."""
        loop, watch = asyncio.get_running_loop(), KernelWatch()

        def look() -> None:
            if watch.heard():
                loop.call_at(self._verified_at + _LEAST_SECONDS, self._woken.set)

        for fileno in watch.filenos():
            loop.add_reader(fileno, look)
        try:
            yield
        finally:
            for fileno in watch.filenos():
                loop.remove_reader(fileno)
            watch.close()

    async def _keep(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._converge()
            except (
                FastError,
                OSError,
            ) as error:  # OSError: out of descriptors, a file system that is read-only
                _FAILURES.inc()
                # running pods are cut off only if something broke; the kernel's programs go on without the agent
                self._readiness.missing(CONDITION, str(error), limited_connectivity=self.up.is_set())
            self._verified_at = asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._woken.wait()

    async def _converge(self) -> None:
        if self._subnets_changed and self._subnets is not None:
            self._subnets_changed = False
            await asyncio.to_thread(self.datapath.set_pod_subnets, self._subnets)
        first = not self.up.is_set()
        repairs = await asyncio.to_thread(self.datapath.ensure if first else self.datapath.verify)
        if first:
            log.info("datapath is up", changes=[str(repair.detail) for repair in repairs])
            self.up.set()
            self._came_up()
        else:
            for repair in repairs:
                count_repairs(repair.kind)
        self._readiness.met(CONDITION)

    def attach(self, spec: EndpointSpec) -> Endpoint:
        """Wire a pod."""
        return self.datapath.attach(spec)

    def detach(self, container_id: str, ifname: str) -> bool:
        """Unwire a pod; AgentUnavailable while the datapath is not up."""
        if not self.up.is_set():
            raise AgentUnavailable("the node's datapath is not up yet")
        return self.datapath.detach(container_id, ifname)

    def endpoints(self) -> list[Endpoint]:
        """List the endpoints in the kernel."""
        return self.datapath.endpoints()

    def check(self, spec: EndpointSpec) -> None:
        """Raise DatapathError if a pod is not wired as it should be."""
        self.datapath.check(spec)
