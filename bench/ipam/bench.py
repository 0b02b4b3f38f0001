"""Measures concurrent claims from one pool: Fast's records beside compare-and-swap on a status map.

Runs on the embedded API server, or on any cluster by --kubeconfig (which must have Fast's CRDs; the pool
``bench``, its records and a ConfigMap are made and deleted). Rounds of all scenarios are interleaved; the table
gives medians.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml
from claimants import CONFIG_MAPS, NAMESPACE, POOL, ConfigMap, owner_of

from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.ips import Ips, IpsSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import IPENDPOINTS, IPSES, Resource
from fast.errors import NotFound
from fast.kube import ClusterConfig, KubeClient
from fast.net import parse_address

HERE = Path(__file__).parent
CRDS = HERE.parents[1] / "deploy" / "crds"
SCENARIOS = ("records, with room", "records, exactly full", "status map")


class Crd(msgspec.Struct):
    """The parts of a CustomResourceDefinition that the benchmark needs."""

    metadata: ObjectMeta
    spec: dict[str, Any]
    api_version: str = msgspec.field(name="apiVersion", default="apiextensions.k8s.io/v1")
    kind: str = "CustomResourceDefinition"


CRD = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, Crd
)


@contextlib.asynccontextmanager
async def api_server(kubeconfig: Path | None) -> AsyncIterator[Path]:
    """Yield a kubeconfig: the given one, or that of an embedded API server started here."""
    if kubeconfig is not None:
        yield kubeconfig
        return
    with tempfile.TemporaryDirectory(prefix="fast-bench-") as directory:
        path = Path(directory) / "kubeconfig"
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from fast_playground.apiserver.fast_apiserver import main; main()",
            "--data-dir", directory, "--listen", "127.0.0.1:0", "--kubeconfig-out", str(path),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            await asyncio.wait_for(server.stdout.readline(), 30)
            async with KubeClient(ClusterConfig.load(path)) as client:
                for manifest in sorted(CRDS.glob("*.yaml")):
                    await client.create(CRD, msgspec.convert(yaml.safe_load(manifest.read_text()), Crd))
            yield path
        finally:
            server.terminate()
            await server.wait()


async def prepare(client: KubeClient, size: int, in_use: int) -> None:
    """Make the pool and the map with the same addresses in use; delete what earlier rounds left."""
    await clean(client)
    first = parse_address("10.64.0.0")
    spec = IpsSpec(subnet="10.64.0.0/10", ips=(f"{first}-{first + size + in_use - 1}",))
    await client.create(IPSES, Ips(metadata=ObjectMeta(name=POOL), spec=spec))
    used = {str(first + number): owner_of(0, number) for number in range(in_use)}
    await together(client.create(IPENDPOINTS, record_of(address, owner)) for address, owner in used.items())
    data = {address: msgspec.json.encode(owner).decode() for address, owner in used.items()}
    metadata = ObjectMeta(name=POOL, namespace=NAMESPACE)
    await client.create(CONFIG_MAPS, ConfigMap(metadata=metadata, data=data))


def record_of(address: str, owner: IpEndpointSpec) -> IpEndpoint:
    """Return the record of an address that ``owner`` holds."""
    return IpEndpoint(metadata=ObjectMeta(name=address), spec=owner)


async def together(requests: Iterable[Awaitable[Any]]) -> None:
    """Run the requests, 16 at a time."""
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            await request

    await asyncio.gather(*(work() for _ in range(16)))


async def clean(client: KubeClient) -> None:
    """Delete everything that this benchmark made."""
    records = await client.list(IPENDPOINTS, field_selector=f"spec.pool={POOL}")
    await together(client.delete(IPENDPOINTS, record.metadata.name) for record in records.items)
    for resource, name, namespace in ((IPSES, POOL, None), (CONFIG_MAPS, POOL, NAMESPACE)):
        with contextlib.suppress(NotFound):
            await client.delete(resource, name, namespace)


async def one_round(kubeconfig: Path, scenario: str, options: dict[str, Any]) -> dict[str, float]:
    """Run one round: the agents of all processes claim at the same time."""
    agents, claims, processes = options["agents"], options["claims"], options["processes"]
    total = agents * claims
    async with KubeClient(ClusterConfig.load(kubeconfig)) as client:
        await prepare(client, total if "full" in scenario else total * 4, options["in_use"])
    algorithm = "records" if scenario.startswith("records") else "status-map"
    share = agents // processes
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "claimants.py"), "--kubeconfig", str(kubeconfig), "--algorithm", algorithm,
            "--first", str(1 + index * share), "--agents", str(share), "--claims", str(claims),
            "--seconds", str(options["seconds"]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 26,
        )
        for index in range(processes)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        await worker.stdout.readline()
    answers = await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
    results = [json.loads(stdout) for stdout, _ in answers]
    addresses = [address for result in results for address in result["addresses"]]
    if len(set(addresses)) != len(addresses):
        raise SystemExit("an address was given twice")
    if (
        algorithm == "records"
        and len(addresses) != total
        and max(r["ended"] - r["began"] for r in results) < options["seconds"]
    ):
        raise SystemExit(f"{total} claims were expected, {len(addresses)} made")
    seconds = sorted(value for result in results for value in result["seconds"])
    elapsed = max(result["ended"] for result in results) - min(result["began"] for result in results)
    calls = sum(sum(result["calls"].values()) for result in results)
    return {
        "claims": len(addresses),
        "claims_per_second": len(addresses) / elapsed,
        "p50_ms": 1000 * statistics.median(seconds),
        "p99_ms": 1000 * seconds[int(0.99 * (len(seconds) - 1))],
        "calls_per_claim": calls / len(addresses),
    }


async def measure(options: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Run every scenario in every round."""
    results: dict[str, list[dict[str, float]]] = {scenario: [] for scenario in SCENARIOS}
    async with api_server(options["kubeconfig"]) as kubeconfig:
        for number in range(options["rounds"]):
            for scenario in SCENARIOS:
                found = await one_round(kubeconfig, scenario, options)
                results[scenario].append(found)
                rounded = {key: round(value, 2) for key, value in found.items()}
                print(f"round {number + 1}, {scenario}: {rounded}", file=sys.stderr)
        async with KubeClient(ClusterConfig.load(kubeconfig)) as client:
            await clean(client)
    return results


@click.command()
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True),
    help="Cluster to use; default: an embedded API server.",
)
@click.option("--agents", default=32, show_default=True, help="Agents in total; a multiple of --processes.")
@click.option("--processes", default=2, show_default=True)
@click.option("--claims", default=50, show_default=True, help="Claims of each agent.")
@click.option("--in-use", default=1000, show_default=True, help="Addresses in use before the first claim.")
@click.option(
    "--seconds", default=20.0, show_default=True, help="Seconds after which no agent begins another claim."
)
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print every round as JSON.")
def main(as_json: bool, **options: Any) -> None:
    """Measure claims per second, their times and their API calls."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    results = asyncio.run(measure(options))
    if as_json:
        print(json.dumps(results, indent=2))
        return
    medians = {
        scenario: {key: statistics.median(item[key] for item in rounds) for key in rounds[0]}
        for scenario, rounds in results.items()
    }
    print(
        f"{options['agents']} agents, {options['in_use']} addresses in use, medians of {options['rounds']} rounds"
    )
    print(f"{'':24}{'claims/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'calls/claim':>13}")
    for scenario, item in medians.items():
        print(
            f"{scenario:24}{item['claims_per_second']:10.1f}{item['p50_ms']:10.1f}{item['p99_ms']:10.1f}"
            f"{item['calls_per_claim']:13.2f}"
        )
    ratio = medians[SCENARIOS[0]]["claims_per_second"] / medians[SCENARIOS[2]]["claims_per_second"]
    print(f"records with room are {ratio:.1f} times the status map")


if __name__ == "__main__":
    main()
