"""Agents of several nodes on one cluster without an API server; what they are asked to do the tests say."""

from __future__ import annotations

import asyncio
import random

from fakes.store import FakeCluster, FakeStore, Fate
from fast.api.ipendpoint import PodRef
from fast.ipam import Attachment, ClaimRequest, Ipam, NodeIdentity


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Caller(Ipam):
    """Address management as the CNI verbs call it: under the attachment's lock, an ADD marked before it waits."""

    async def claim(self, attachment, request=None):
        with self.attaching(*attachment.key):
            async with self.locks.hold(attachment.key):
                return await super().claim(attachment, request)

    async def unclaim(self, container_id, ifname):
        async with self.locks.hold((container_id, ifname)):
            await super().unclaim(container_id, ifname)

    async def release(self, container_id, ifname):
        async with self.locks.hold((container_id, ifname)):
            return await super().release(container_id, ifname)


class Nodes:
    """Agents of several nodes on one cluster."""

    def __init__(self, *pools) -> None:
        self.cluster = FakeCluster()
        self.clock = Clock()
        for pool in pools:
            self.cluster.put_pool(pool)

    def agent(
        self,
        name: str = "n1",
        *,
        boot: str = "boot-1",
        lagging: bool = False,
        gate=None,
        pods=None,
        **labels: str,
    ) -> Ipam:
        fate = {} if gate is None else {"gate": gate}
        store = FakeStore(self.cluster, lagging=lagging, clock=self.clock, **fate)
        node = NodeIdentity(name=name, boot_id=boot, labels=labels)
        return Caller(store, node, pods=pods, clock=self.clock, rng=random.Random(1))


def sandbox(number: int, pod: str = "", ifname: str = "eth0", uid: str = "") -> Attachment:
    name = pod or f"pod-{number}"
    return Attachment(
        f"c{number}", ifname, PodRef(namespace="default", name=name, uid=uid or f"uid-of-{name}")
    )


def names(records) -> list[str]:
    return [record.metadata.name for record in records]


SMALL = ClaimRequest(pools=("small",))


class Gate:
    """Lets every request through, but for those that a test holds back or loses.

    Attributes:
        fates: What becomes of the next requests of a verb, in order.
        held: By verb, what its requests wait for.
    """

    def __init__(self) -> None:
        self.fates: dict[str, list[Fate]] = {}
        self.held: dict[str, asyncio.Event] = {}

    async def __call__(self, verb: str, name: str) -> Fate:
        if verb in self.held:
            await self.held[verb].wait()
        waiting = self.fates.get(verb)
        return waiting.pop(0) if waiting else Fate.ANSWERED


async def settle_down() -> None:
    """Let every task run until it waits for something."""
    for _ in range(30):
        await asyncio.sleep(0)
