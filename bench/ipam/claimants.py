"""Agents that claim addresses as fast as they can, in one process of the benchmark; prints what it measured as JSON.

Started by bench.py: waits for a line on stdin, so that all processes begin together.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec

from fast.api.ipendpoint import IpEndpointSpec, PodRef
from fast.api.meta import ObjectMeta
from fast.api.resources import Resource
from fast.errors import Conflict
from fast.ipam import Attachment, ClaimRequest, Ipam, KubeStore, NodeIdentity
from fast.kube import ClusterConfig, KubeClient

POOL = "bench"
NAMESPACE = "default"
_TRIES = 5


class ConfigMap(msgspec.Struct, kw_only=True):
    """The status map's object: one field an address."""

    api_version: str = msgspec.field(name="apiVersion", default="v1")
    kind: str = "ConfigMap"
    metadata: ObjectMeta
    data: dict[str, str] = {}


CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, ConfigMap)


class CountingClient(KubeClient):
    """Counts the requests of claims, without list and watch."""

    def __init__(self, config: ClusterConfig) -> None:
        super().__init__(config, user_agent="fast-bench", timeout_seconds=120)
        self.calls: Counter[str] = Counter()

    async def create(self, resource: Any, obj: Any) -> Any:
        self.calls["create"] += 1
        return await super().create(resource, obj)

    async def update(self, resource: Any, obj: Any) -> Any:
        self.calls["update"] += 1
        return await super().update(resource, obj)

    async def get(self, resource: Any, name: str, namespace: str | None = None) -> Any:
        self.calls["get"] += 1
        return await super().get(resource, name, namespace)


class RecordClaimant:
    """One agent of Fast: its own watch cache, its own connection."""

    def __init__(self, client: CountingClient, number: int) -> None:
        self.client = client
        self._number = number
        self._store = KubeStore(client)
        self._run: asyncio.Task[None] | None = None
        self._ipam: Ipam | None = None

    async def start(self) -> None:
        self._run = asyncio.create_task(self._store.run())
        await self._store.wait_synced()
        node = NodeIdentity(f"bench-{self._number}", "boot")
        self._ipam = Ipam(self._store, node)

    async def claim(self, number: int) -> str:
        assert self._ipam is not None
        name = f"p{self._number}-{number}"
        attachment = Attachment(f"{name:0>64}", "eth0", PodRef(namespace=NAMESPACE, name=name, uid=name))
        async with self._ipam.locks.hold(attachment.key):
            (record,) = await self._ipam.claim(attachment, ClaimRequest(pools=(POOL,)))
        return record.metadata.name

    async def stop(self) -> None:
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)


def owner_of(node: int, number: int) -> IpEndpointSpec:
    """Return the owner of an address as records and map entries store it."""
    return IpEndpointSpec(
        pool=POOL,
        pod=PodRef(namespace=NAMESPACE, name=f"p{node}-{number}", uid=str(uuid.uuid4())),
        node=f"bench-{node}",
        boot_id=str(uuid.uuid4()),
        container_id=f"{number:064}",
        interface="eth0",
    )


class StatusMapClaimant:
    """The algorithm beside Fast's: read the map, write it back with one more address, retry on conflict.

    An entry holds the same data as a record. A conflict is retried as client-go's RetryOnConflict does:
    after 10 ms, five times, then (the runtime calls again) after a second.
    """

    def __init__(self, client: CountingClient, number: int, addresses: list[str]) -> None:
        self.client = client
        self._number = number
        self._addresses = addresses

    async def start(self) -> None:
        pass

    async def claim(self, number: int) -> str:
        tries = 0
        entry = msgspec.json.encode(owner_of(self._number, number)).decode()
        while True:
            found = await self.client.get(CONFIG_MAPS, POOL, NAMESPACE)
            address = next(item for item in self._addresses if item not in found.data)
            found.data[address] = entry
            try:
                await self.client.update(CONFIG_MAPS, found)
            except Conflict:
                tries += 1
                await asyncio.sleep((0.01 if tries % _TRIES else 1.0) * random.uniform(1, 1.1))
            else:
                return address

    async def stop(self) -> None:
        pass


async def _claim_all(
    claimant: Any, number: int, claims: int, until: float, seconds: list[float]
) -> list[str]:
    got = []
    for index in range(claims):
        began = time.monotonic()
        if began > until:
            break
        got.append(await claimant.claim(index))
        seconds.append(time.monotonic() - began)
    return got


async def run(options: dict[str, Any]) -> dict[str, Any]:
    """Run the agents; return counts and the seconds of every claim."""
    config = ClusterConfig.load(options["kubeconfig"])
    numbers = range(options["first"], options["first"] + options["agents"])
    clients = [CountingClient(config) for _ in numbers]
    if options["algorithm"] == "records":
        claimants: list[Any] = [RecordClaimant(*pair) for pair in zip(clients, numbers, strict=True)]
    else:
        addresses = [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(100_000)]
        claimants = [StatusMapClaimant(*pair, addresses) for pair in zip(clients, numbers, strict=True)]
    await asyncio.gather(*(claimant.start() for claimant in claimants))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began, seconds = time.monotonic(), list[float]()
    until = began + options["seconds"]
    got = await asyncio.gather(
        *(
            _claim_all(claimant, number, options["claims"], until, seconds)
            for claimant, number in zip(claimants, numbers, strict=True)
        )
    )
    ended = time.monotonic()
    calls: Counter[str] = sum((client.calls for client in clients), Counter())
    for claimant, client in zip(claimants, clients, strict=True):
        await claimant.stop()
        await client.close()
    return {
        "addresses": [address for addresses in got for address in addresses],
        "seconds": seconds,
        "calls": calls,
        "began": began,
        "ended": ended,
    }


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path), required=True)
@click.option("--algorithm", type=click.Choice(["records", "status-map"]), required=True)
@click.option("--first", type=int, required=True)
@click.option("--agents", type=int, required=True)
@click.option("--claims", type=int, required=True)
@click.option("--seconds", type=float, required=True)
def main(**options: Any) -> None:
    """Claim addresses."""
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(run(options))) + b"\n")


if __name__ == "__main__":
    main()
